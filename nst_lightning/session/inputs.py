"""Pictures in a program's memory: given to a run as files without loss, and its result in the kind that was given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias, Union

import imagecodecs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.images.io import to_samples

PictureLike: TypeAlias = Union[str, "os.PathLike[str]", Image.Image, "np.ndarray[Any, Any]", Tensor]

_IN_PNG = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_IN_TIFF = {"CMYK", "LAB"}
_AS_OTHER = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB", "I;16B": "I;16"}
_KINDS = "a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W)"
_CHANNELS = (1, 3, 4)


def as_file(picture: PictureLike, argument: str, folder: Path, name: str) -> str:
    """The path of a picture; one in memory is written to a file first.

    Samples of 8 and 16 bits stay what they are; floating-point ones are rounded to 16 bits, which is exact for those
    that come from 8. A PIL image keeps its colour profile, its orientation and what it says of itself.

    Args:
        picture: A path, a PIL image, an array or a tensor.
        argument: Which argument gave it, for messages.
        folder: Where files are written.
        name: Stem of the file's name.

    Raises:
        UserError: If it is nothing of this, or its values are no picture's.
    """
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture)
    if isinstance(picture, Image.Image):
        return _write_image(picture, argument, folder / name)
    if isinstance(picture, Tensor):
        samples = _channels_last(picture.detach().cpu(), argument)
    elif isinstance(picture, np.ndarray):
        samples = picture
        if not (samples.ndim == 2 or (samples.ndim == 3 and samples.shape[2] in _CHANNELS)):
            raise UserError(f"{argument}: an array must be (H, W), (H, W, 3) or (H, W, 4), got {samples.shape}")
    else:
        raise UserError(f"{argument}: must be {_KINDS}, got {type(picture).__name__}")
    path = folder / f"{name}.png"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(_to_integers(samples, argument)), level=1))
    return str(path)


def _write_image(picture: Image.Image, argument: str, stem: Path) -> str:
    image = picture.convert(_AS_OTHER[picture.mode]) if picture.mode in _AS_OTHER else picture
    if image.mode not in _IN_PNG | _IN_TIFF:
        raise UserError(
            f"{argument}: a PIL image must be of mode {', '.join(sorted(_IN_PNG | _IN_TIFF))}, got {image.mode}; "
            "convert it, or give an array of floats in [0, 1]"
        )
    told: dict[str, Any] = {"exif": picture.getexif()}
    if profile := picture.info.get("icc_profile"):
        told["icc_profile"] = profile
    if image.mode in _IN_TIFF:
        path = stem.with_suffix(".tif")
        image.save(path, "TIFF", **told)
    else:
        path = stem.with_suffix(".png")
        image.save(path, "PNG", compress_level=1, **told)
    return str(path)


def _channels_last(tensor: Tensor, argument: str) -> np.ndarray[Any, Any]:
    shape = tuple(tensor.shape)
    planes = tensor[0] if tensor.ndim == 4 and shape[0] == 1 else tensor
    if planes.ndim != 3 or planes.shape[0] not in _CHANNELS:
        raise UserError(f"{argument}: a tensor must be (3, H, W) or (1, 3, H, W), got {shape}")
    if planes.dtype == torch.bfloat16:
        planes = planes.float()
    samples: np.ndarray[Any, Any] = planes.permute(1, 2, 0).numpy()
    return samples


def _to_integers(samples: np.ndarray[Any, Any], argument: str) -> np.ndarray[Any, Any]:
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    if samples.dtype in (np.uint8, np.uint16):
        return samples
    if not np.issubdtype(samples.dtype, np.floating):
        raise UserError(f"{argument}: samples must be uint8, uint16 or floats in [0, 1], got {samples.dtype}")
    least, most = (float(samples.min()), float(samples.max())) if samples.size else (0.0, 0.0)
    if not (least >= 0 and most <= 1):  # NaN, too
        raise UserError(
            f"{argument}: floats must be in [0, 1], got {least:g} to {most:g}; divide by the largest value, or clip"
        )
    rounded: np.ndarray[Any, Any] = np.rint(samples.astype(np.float64) * 65535).astype(np.uint16)
    return rounded


def like(given: PictureLike | None, pixels: Tensor, alpha: Tensor | None) -> Any:
    """A result in the kind of the content that was given: a PIL image for paths and PIL images.

    Args:
        given: The content.
        pixels: (1, 3, H, W), RGB in [0, 1], on the CPU.
        alpha: (1, 1, H, W), or None; left out of a tensor.
    """
    if isinstance(given, Tensor):
        found = pixels if given.ndim == 4 else pixels[0]
        if not given.is_floating_point():
            found = torch.from_numpy(to_samples(pixels)).permute(2, 0, 1)
            found = found[None] if given.ndim == 4 else found
        return found.to(given.device, given.dtype)
    if isinstance(given, np.ndarray):
        if np.issubdtype(given.dtype, np.floating):
            planes = pixels if alpha is None else torch.cat([pixels, alpha], dim=1)
            return planes[0].permute(1, 2, 0).contiguous().numpy().astype(given.dtype)
        return to_samples(pixels, alpha, 16 if given.dtype == np.uint16 else 8)
    return Image.fromarray(to_samples(pixels, alpha))
