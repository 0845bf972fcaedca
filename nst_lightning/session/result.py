"""What a picture's maker gets: the picture, and how it was made."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from nst_lightning.images.io import to_samples, write_image

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Outcome:
    """A run's picture, and what there is to know of it.

    Attributes:
        pixels: (1, 3, H, W) float32 on the CPU, RGB in [0, 1], on white where the content is transparent.
        alpha: (1, 1, H, W) in [0, 1]: the content's; None if it is opaque.
        losses: Weighted losses of the latest evaluation by name, as in ``metrics.csv``.
        evaluations: How many were made.
        total: How many were to be made; fewer were, if something ended the run.
        seconds: From the call to the picture.
        configuration: The YAML that repeats it: ``nst fit --config file.yaml``.
        folder: The run's folder; None if it was for the time of the run alone.
        metadata: What a file of the picture says of how it was made.
    """

    pixels: Tensor = field(repr=False)
    alpha: Tensor | None = field(repr=False)
    losses: dict[str, float]
    evaluations: int
    total: int
    seconds: float
    configuration: str = field(repr=False)
    folder: Path | None = None
    metadata: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.pixels.shape[-1]), int(self.pixels.shape[-2])


@dataclass(frozen=True)
class Result(Outcome, Generic[_Kind]):
    """What `stylize` returns: an `Outcome` with the picture in the kind of the content.

    Attributes:
        image: A PIL image if the content was a path or a PIL image; else an array or a tensor like the content.
        output: The file that was written; None if none was asked for.

    Example:
        >>> result = stylize("photo.jpg", "painting.jpg", size=64, evaluations=3)
        >>> result.image.size
        (64, 48)
        >>> result.save("picture.png")
    """

    image: _Kind = field(default=None, repr=False)  # type: ignore[assignment]
    output: Path | None = None

    def save(self, path: str | Path, *, bits: int = 8, quality: int = 95) -> None:
        """Write the picture with its settings.

        Args:
            path: Its suffix says the format: png, jpg, tif, webp, avif or jxl.
            bits: Bits a sample: 8, or 16 for PNG, TIFF and JPEG XL, or 10 or 12 for AVIF.
            quality: 1 to 100, of JPEG, AVIF and JPEG XL.

        Raises:
            UserError: If the format is unknown, or the file cannot be written.
        """
        write_image(path, self.pixels, alpha=self.alpha, bits=bits, quality=quality, metadata=self.metadata)

    def to_pil(self) -> Image.Image:
        """The picture as a PIL image, in 8 bits."""
        return Image.fromarray(to_samples(self.pixels, self.alpha))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """The picture as (H, W, 3) or (H, W, 4) uint8, for NumPy and what builds on it."""
        samples = to_samples(self.pixels, self.alpha)
        return samples if dtype is None else samples.astype(dtype)

    def _repr_png_(self) -> bytes:
        """The picture, for notebooks."""
        file = io.BytesIO()
        self.to_pil().save(file, "PNG")
        return file.getvalue()
