"""From files of masks to the masks of each stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.images.io import check_image, read_image
from nst_lightning.images.recolor import luma
from nst_lightning.images.resize import resize
from nst_lightning.masks import Mask, Masks
from nst_lightning.styles import Style

_SHAPE_TOLERANCE = 0.01  # of the aspect


class MaskFiles:
    """The masks of content and styles; each file is read once.

    Args:
        styles: All styles of the blend. Those with the same mask share a region; those without have what is left.
        content: Path of the content's mask, or None.
    """

    def __init__(self, styles: Sequence[Style], content: str | None) -> None:
        self._styles = styles
        self._content = content
        self._regions = list(dict.fromkeys(item.mask for item in styles))
        self._pixels: dict[str | Path, Tensor] = {}  # by path, (1, 1, H, W)

    @property
    def regions(self) -> int:
        """Number of parts of the picture with styles of their own; 0 if all styles are everywhere."""
        return 0 if self._regions == [None] else len(self._regions)

    def check(self, content_shape: tuple[int, int], style_shapes: Sequence[tuple[int, int]]) -> None:
        """Find a mask that is missing or of another shape before anything is done.

        Args:
            content_shape: Height and width of the content.
            style_shapes: The same of each style.

        Raises:
            UserError: With the argument that names the mask.
        """
        asked: list[tuple[str, str | Path | None, tuple[int, int], str]] = [
            ("data.content_mask", self._content, content_shape, "content")
        ]
        for index, (item, shape) in enumerate(zip(self._styles, style_shapes, strict=True)):
            asked.append((f"data.style[{index}].mask", item.mask, content_shape, "content"))
            asked.append((f"data.style[{index}].style_mask", item.style_mask, shape, "style"))
        for argument, path, (height, width), of in asked:
            if path is None:
                continue
            h, w = check_image(path, name=argument)
            if abs(h * width - w * height) > max(h * width, w * height) * _SHAPE_TOLERANCE + max(width, height):
                raise UserError(
                    f"{argument}: must have the shape of the {of} ({width}x{height} px, or the same in another size), "
                    f"got {w}x{h} px; crop or enlarge the mask"
                )

    def masks(self, size: tuple[int, int], style_sizes: Sequence[tuple[int, int]]) -> Masks | None:
        """Read and resize the masks for a stage; None if there are none.

        Args:
            size: Height and width of the image.
            style_sizes: The same of each style image.

        Raises:
            UserError: If a file cannot be read.
        """
        special = any(item.style_mask or item.layers is not None for item in self._styles)
        if not self.regions and self._content is None and not special:
            return None
        of_styles = [
            None if item.style_mask is None else self._mask(item.style_mask, own, f"data.style: '{item.style_mask}'")
            for item, own in zip(self._styles, style_sizes, strict=True)
        ]
        content = self._content
        return Masks(
            self._masks_of_regions(size),
            [self._regions.index(item.mask) if self.regions else None for item in self._styles],
            of_styles,
            [item.layers for item in self._styles],
            None if content is None else self._mask(content, size, f"data.content_mask: '{content}'"),
        )

    def _masks_of_regions(self, size: tuple[int, int]) -> list[Mask]:
        """Those that are asked for, and what they leave."""
        if not self.regions:
            return []
        found = [self._mask(path, size, f"data.style: mask '{path}'") for path in self._regions if path is not None]
        if None in self._regions:
            rest = torch.ones(1, 1, *size)
            for mask in found:
                rest -= mask.pixels
            found.insert(self._regions.index(None), Mask(rest.clamp(min=0), "data.style: what the masks leave"))
        return found

    def _mask(self, path: str | Path, size: tuple[int, int], argument: str) -> Mask:
        if path not in self._pixels:
            self._pixels[path] = luma(read_image(path, name="mask").pixels)
        return Mask(resize(self._pixels[path], size, "bilinear").clamp(0, 1), argument)
