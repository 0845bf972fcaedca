"""Reading pictures into sRGB tensors and writing tensors as pictures."""

import json
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.images.atomic import check_replaceable, replacing
from nst_lightning.images.color import Array, off_white, over_white, to_srgb, to_unit, unmanaged
from nst_lightning.images.decode import read_header, read_raster, readable_formats
from nst_lightning.images.deep import is_tiff, read_tiff_description
from nst_lightning.images.encode import DESCRIPTION_TAG, format_of
from nst_lightning.images.opening import opened
from nst_lightning.images.recolor import luma
from nst_lightning.paths import expand

_STRIP = 512  # rows that are turned into samples at a time


@dataclass(frozen=True)
class Picture:
    """A picture ready to be worked on.

    Attributes:
        pixels: ``(1, 3, H, W)`` float32 sRGB in ``[0, 1]``, composited on white.
        alpha: ``(1, 1, H, W)`` float32 in ``[0, 1]``; None for a picture that is opaque everywhere.
        path: The file it came from, or None.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    path: Path | None = None

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[-2])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[-1])


def check_image(path: str | Path, *, name: str = "image") -> tuple[int, int]:
    """Size of a picture, from its header alone; damage further on is found by ``read_image`` only.

    Args:
        path: The file.
        name: Configuration argument that gave the path, for messages.

    Returns:
        ``(height, width)`` after EXIF orientation.

    Raises:
        UserError: There is no such file, it is no picture, or one too large or too small.
    """
    header = read_header(expand(path, name), name)
    return header.height, header.width


def read_image(path: str | Path, *, name: str = "image") -> Picture:
    """Read the first frame of a JPEG, PNG, WebP or TIFF (or GIF, BMP, PPM, TGA, JPEG 2000, AVIF).

    EXIF orientation is applied, embedded ICC profiles are converted to sRGB, 16-bit and floating-point
    samples keep their precision, greyscale, palette, CMYK and L*a*b* become RGB, alpha is composited on
    white.

    Args:
        path: The file.
        name: Configuration argument that gave the path, for messages.

    Returns:
        The picture, on the CPU.

    Raises:
        UserError: As ``check_image``, or the file is truncated, damaged or holds NaN.

    Warns:
        UserWarning: The embedded profile is not usable; the pixels are taken as sRGB.
    """
    path = expand(path, name)
    raster = read_raster(path, name)
    rgb, alpha = to_srgb(raster, path), raster.alpha
    if alpha is None or bool((alpha == 1).all()):
        return Picture(_to_tensor(rgb), None, path)
    return Picture(_to_tensor(over_white(rgb, alpha)), _to_tensor(alpha[..., None]), path)


def read_mask_samples(path: str | Path, name: str = "mask") -> tuple[Tensor, Tensor | None]:
    """Read a picture whose samples are numbers and no colours: no profile is applied and nothing is composited.

    Args:
        path: The file.
        name: Configuration argument that gave the path, for messages.

    Returns:
        ``(1, 1, H, W)`` float32 in ``[0, 1]``, the samples as stored (of a coloured picture their luma) after EXIF
        orientation; and alpha of the same shape, None for a picture that is opaque everywhere.

    Raises:
        UserError: As ``read_image``.
    """
    raster = read_raster(expand(path, name), name)
    if raster.space in ("GRAY", "LAB"):
        grey = _to_tensor(to_unit(raster.values[..., :1]))
    else:
        grey = luma(_to_tensor(unmanaged(raster)))
    if raster.alpha is None or bool((raster.alpha == 1).all()):
        return grey, None
    return grey, _to_tensor(raster.alpha[..., None])


def write_image(
    path: str | Path,
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    bits: int = 8,
    quality: int = 95,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a picture in the format that the suffix names, whole or not at all.

    Values are clamped to ``[0, 1]`` and rounded to the nearest step. The file carries an sRGB profile and
    ``metadata`` as JSON, in the image description (EXIF and TIFF) or the Description text (PNG).

    Args:
        path: ``.png``, ``.tif``/``.tiff``, ``.jpg``/``.jpeg`` or ``.webp`` (lossless); replaced if there.
        pixels: ``(1, 3, H, W)`` sRGB composited on white, of any device and floating-point type.
        alpha: ``(1, 1, H, W)``, attached so that the file shows ``pixels`` over white; left out of JPEG.
        bits: 8, or 16 for PNG and TIFF.
        quality: 1 to 100, for JPEG.
        metadata: Texts to keep with the picture; ``read_metadata`` gives them back.

    Raises:
        UserError: The path, the bits or the quality do not fit the format, or the disk does not take it.
        ValueError: A tensor is not finite or of another shape.
    """
    path = expand(path, "output")
    kind = format_of(path, bits)
    if not 1 <= quality <= 100:
        raise UserError(f"quality: must be from 1 to 100, got {quality}; choose a value in this range")
    height, width = pixels.shape[-2:]
    if max(height, width) > kind.longest_side:
        raise UserError(
            f"output: {kind.name} holds at most {kind.longest_side} px a side, got {height} x "
            f"{width} for '{path}'; choose PNG or TIFF"
        )
    values = _to_samples(pixels, alpha if kind.alpha else None, bits)
    description = json.dumps(metadata) if metadata else ""  # ASCII, which every format can hold
    try:
        with replacing(path) as file:
            kind.encode(file, values, quality, description)
    except OSError as error:
        raise _not_writable(path, "output", error) from error


def check_writable(path: str | Path, *, name: str = "output", bits: int = 8) -> None:
    """See to it that ``write_image`` will be able to write a file, before hours of work go into it.

    Creates the folder of the file where it is missing; leaves nothing else behind.

    Args:
        path: The file to be written.
        name: Configuration argument that gave the path, for messages.
        bits: Bits a sample it shall have.

    Raises:
        UserError: The format is unknown or has no such bits, or the path or its folder is not writable.
    """
    path = expand(path, name)
    format_of(path, bits, name)
    try:
        if path.exists():
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise UserError(f"{name}: needs a file, got the folder '{path}'; add the name of a file")
            if not stat.S_ISREG(mode):
                raise UserError(f"{name}: needs a regular file, got '{path}'; choose another path")
        path.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(path)
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _not_writable(path, name, error) from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The texts that ``write_image`` put into a picture.

    Args:
        path: The file.

    Returns:
        The texts by their keys; empty for a picture with none, or with a description of another origin.

    Raises:
        UserError: The file cannot be read as a picture.
    """
    path = expand(path, "image")
    with opened(path, "image") as file:
        tiff = is_tiff(file.read(4))
        file.seek(0)
        if tiff:
            text: object = read_tiff_description(file)
        else:
            with Image.open(file, formats=readable_formats()) as image:
                # Not the method of PNG images, which decodes them.
                exif = Image.Image.getexif(image)
                text = image.info.get("Description") or exif.get(DESCRIPTION_TAG, "")
    try:
        found = json.loads(str(text))
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _not_writable(path: Path, name: str, error: Exception) -> UserError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return UserError(f"{name}: cannot write '{path}': {reason}; choose another path or make room there")


def _to_tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


def _to_samples(pixels: Tensor, alpha: Tensor | None, bits: int) -> Array:
    """``(H, W, 3 or 4)`` uint8 or uint16, strip by strip: a picture may be as large as memory allows."""
    for what, tensor, channels in (("pixels", pixels, 3), ("alpha", alpha, 1)):
        if tensor is not None and (tensor.ndim != 4 or tensor.shape[:2] != (1, channels)):
            raise ValueError(f"{what} must be (1, {channels}, H, W), got {tuple(tensor.shape)}")
    height, width = pixels.shape[-2:]
    if alpha is not None and alpha.shape[-2:] != pixels.shape[-2:]:
        raise ValueError(f"alpha is {tuple(alpha.shape[-2:])} and pixels are {(height, width)}")
    peak = np.float32(2**bits - 1)
    kind = np.uint8 if bits == 8 else np.uint16
    values = np.empty((height, width, 3 if alpha is None else 4), kind)
    for top in range(0, height, _STRIP):
        rows = slice(top, top + _STRIP)
        strip = _to_array(pixels[..., rows, :], "pixels")
        if alpha is not None:
            opacity = np.floor(_to_array(alpha[..., rows, :], "alpha") * peak + np.float32(0.5)) / peak  # as stored
            strip = np.concatenate([off_white(strip, opacity[..., 0]), opacity], axis=2)
        values[rows] = (strip * peak + np.float32(0.5)).astype(kind)
    return values


def _to_array(tensor: Tensor, what: str) -> Array:
    """``(1, C, H, W)`` to ``(H, W, C)`` float32 in ``[0, 1]``."""
    # NumPy from here: PyTorch would start a team of threads for a writer beside the run, and with more threads than
    # cores OpenMP puts all of them to sleep between loops, which costs the run 10 ms an evaluation.
    values = tensor.detach().to("cpu", torch.float32).numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite, got NaN or infinity")
    return np.ascontiguousarray(np.clip(values[0], 0, 1).transpose(1, 2, 0))
