"""Reading pictures into sRGB tensors and writing tensors as pictures."""

import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.files.atomic import check_replaceable, keeping
from nst_lightning.files.folders import make_folder
from nst_lightning.files.paths import expand
from nst_lightning.images.color import Array, off_white, over_white, profile_of_raster, to_srgb, to_unit, unmanaged
from nst_lightning.images.decode import read_header, read_raster
from nst_lightning.images.encode import Content, encode, format_of
from nst_lightning.images.metadata import Metadata
from nst_lightning.images.origin import read_settings
from nst_lightning.images.profiles import ColorSpace, check_color_space, color_space, to_space
from nst_lightning.images.recolor import luma

_STRIP = 512  # number of rows converted to samples at a time


@dataclass(frozen=True)
class Picture:
    """A picture ready to be worked on.

    Attributes:
        pixels: ``(1, 3, H, W)`` float32 sRGB in ``[0, 1]``, composited on white; beyond where that was asked for.
        alpha: ``(1, 1, H, W)`` float32 in ``[0, 1]``; None for a picture that is opaque everywhere.
        path: The file it came from, or None.
        profile: The ICC profile that it came in; None for sRGB, and for HDR.

    Example:
        >>> picture = Picture(torch.zeros(1, 3, 36, 48))
        >>> picture.height, picture.width
        (36, 48)
    """

    pixels: Tensor
    alpha: Tensor | None = None
    path: Path | None = None
    profile: bytes | None = None

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

    Example:
        >>> write_image("grey.png", torch.full((1, 3, 36, 48), 0.5))
        >>> check_image("grey.png")
        (36, 48)
    """
    header = read_header(expand(path, name), name)
    return header.height, header.width


def read_image(
    path: str | Path, *, name: str = "image", extended: bool = False, needed: tuple[int, int] | None = None
) -> Picture:
    """Read a picture: JPEG, PNG, WebP, TIFF, AVIF, HEIC, JPEG XL and what else docs/formats.md names.

    Of an animation it is the first frame, of a HEIC the primary picture. It is turned as EXIF says, or as the
    container of AVIF, HEIC and JPEG XL does. Colours become sRGB, by the profile in the file, or by code points
    (CICP), PNG's gAMA and cHRM, or EXIF's Adobe RGB. More than 8 bits and floating-point samples keep their
    precision. Greyscale, palette, CMYK and L*a*b* become RGB, alpha is composited on white.

    Args:
        path: The file.
        name: Configuration argument that gave the path, for messages.
        extended: Keep colours that sRGB does not hold, as values beyond ``[0, 1]`` (scRGB's, gamma-encoded).
        needed: Height and width that it will be used in: a very large JPEG is decoded in a half, a quarter or an
            eighth of its size where that is at least as large.

    Returns:
        The picture, on the CPU.

    Raises:
        UserError: As ``check_image``, or the file is damaged, more than a quarter of its pixels are missing, or it
            holds NaN.

    Warns:
        UserNotice: The embedded profile is not usable, and the pixels are taken as sRGB; or the picture is HDR, whose
            white of 203 cd/m2 becomes white; or it has floating-point samples without a profile, taken as linear light;
            or the file is slightly damaged.

    Example:
        >>> write_image("grey.tif", torch.full((1, 3, 36, 48), 0.5), bits=16)
        >>> pixels = read_image("grey.tif").pixels
        >>> tuple(pixels.shape), round(float(pixels.mean()), 4)
        ((1, 3, 36, 48), 0.5)
    """
    path = expand(path, name)
    raster = read_raster(path, name, needed)
    rgb, alpha = to_srgb(raster, path, extended=extended), raster.alpha
    if alpha is None:
        return Picture(_to_tensor(rgb), None, path, profile_of_raster(raster))
    return Picture(_to_tensor(over_white(rgb, alpha)), _to_tensor(alpha[..., None]), path, profile_of_raster(raster))


class MaskSamples(NamedTuple):
    """A picture whose samples are numbers and no colours."""

    grey: Tensor  # ``(1, 1, H, W)`` float32 in ``[0, 1]``, the samples as stored; of a coloured picture their luma
    alpha: Tensor | None  # the same of its alpha; None for a picture that is opaque everywhere
    chroma: float  # mean difference of the largest and the smallest of red, green and blue where the picture is visible


def read_mask_samples(path: str | Path, name: str = "mask") -> MaskSamples:
    """Read a picture whose samples are numbers and no colours: no profile is applied and nothing is composited.

    Args:
        path: The file.
        name: Configuration argument that gave the path, for messages.

    Returns:
        The samples after EXIF orientation.

    Raises:
        UserError: As ``read_image``.

    Example:
        >>> write_image("mask.png", torch.ones(1, 3, 36, 48))
        >>> float(read_mask_samples("mask.png").grey.min())
        1.0
    """
    raster = read_raster(expand(path, name), name)
    alpha = None if raster.alpha is None else _to_tensor(raster.alpha[..., None])
    if raster.space in ("GRAY", "LAB"):
        return MaskSamples(_to_tensor(to_unit(raster.values[..., :1])), alpha, 0.0)
    rgb = unmanaged(raster)
    spread = np.ptp(rgb, axis=2)
    unseen = raster.alpha is not None and not raster.alpha.any()
    chroma = 0.0 if unseen else float(np.average(spread, weights=raster.alpha))
    return MaskSamples(luma(_to_tensor(rgb)), alpha, chroma)


def write_image(
    path: str | Path,
    pixels: Tensor,
    *,
    alpha: Tensor | None = None,
    bits: int = 8,
    quality: int = 95,
    metadata: dict[str, str] | None = None,
    origin: Metadata | None = None,
    space: ColorSpace | None = None,
    replaceable: Callable[[Path], bool] | None = None,
) -> Path | None:
    """Write a picture in the format that the suffix names, whole or not at all.

    Values are clamped to what the colour space holds and rounded to the nearest step. The file carries its profile,
    ``metadata`` as JSON in XMP, and the content's own date, author and so on.

    Args:
        path: ``.png``, ``.tif``/``.tiff``, ``.jpg``/``.jpeg``, ``.webp`` (lossless), ``.avif`` or ``.jxl``.
        pixels: ``(1, 3, H, W)`` sRGB composited on white, of any device and floating-point type; values beyond
            ``[0, 1]`` are colours that a larger space may hold.
        alpha: ``(1, 1, H, W)``, attached so that the file shows ``pixels`` over white; left out of JPEG.
        bits: 8, or 16 for PNG, TIFF and JPEG XL, or 10 or 12 for AVIF.
        quality: 1 to 100, for JPEG, AVIF and JPEG XL, which both are lossless with 100.
        metadata: Texts to store with the picture; ``read_metadata`` returns them.
        origin: What the content's file says of itself, as ``read_origin`` gives it.
        space: Colour space of the file, sRGB by default.
        replaceable: Says whether a file that is at `path` may be lost; else it is moved aside. By default it may.

    Returns:
        Where the file that was at `path` is now; None if it was replaced, or there was none.

    Raises:
        UserError: The path, the bits, the quality or the space do not fit the format, or the disk refuses it.
        ValueError: A tensor is not finite or of another shape.

    Example:
        >>> write_image("result.png", torch.rand(1, 3, 36, 48), bits=16, metadata={"Style": "waves"})
    """
    path, space = expand(path, "output"), space or color_space("srgb")
    kind = format_of(path, bits, color_space=space.name)
    _check_fits(path, pixels, quality, bits)
    values = _to_samples(pixels, alpha if kind.alpha else None, bits, space)
    said = replace(origin or Metadata(), settings=metadata or {})
    try:
        with keeping(path, replaceable) as new:
            encode(kind, new.file, Content(values, bits, quality, space, said))
    except OSError as error:
        raise _not_writable(path, "output", error) from error
    return new.aside


def to_samples(pixels: Tensor, alpha: Tensor | None = None, bits: int = 8) -> Array:
    """The samples that a file in sRGB holds after ``write_image``.

    Args:
        pixels: ``(1, 3, H, W)`` in ``[0, 1]``, composited on white.
        alpha: ``(1, 1, H, W)`` in ``[0, 1]``, or None.
        bits: 8 or 16.

    Returns:
        ``(H, W, 3)``, or ``(H, W, 4)`` with alpha; uint8 or uint16.

    Example:
        >>> to_samples(torch.full((1, 3, 1, 1), 0.5)).tolist()
        [[[128, 128, 128]]]
    """
    return _to_samples(pixels, alpha, bits, color_space("srgb"))


def check_writable(path: str | Path, *, name: str = "output", bits: int = 8, color_space: str = "srgb") -> None:
    """See to it that ``write_image`` will be able to write a file, before hours of work go into it.

    Creates the folder of the file where it is missing; leaves nothing else behind.

    Args:
        path: The file to be written.
        name: Configuration argument that gave the path, for messages.
        bits: Bits a sample it shall have.
        color_space: Colour space it shall have.

    Raises:
        UserError: The format is unknown or has no such bits or space, or the path or its folder is not writable.

    Example:
        >>> check_writable("results/picture.tif", bits=16)
        >>> Path("results").is_dir()
        True
    """
    path = expand(path, name)
    format_of(path, bits, name, check_color_space(color_space))
    check_place(path, name)


def check_place(path: Path, name: str) -> None:
    """See to it that a file of any kind can be written; creates its folder, and leaves nothing else behind.

    Args:
        path: The file to be written.
        name: Configuration argument that gave the path, for messages.

    Raises:
        UserError: The path or its folder is not writable.
    """
    try:
        if path.exists():
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise UserError(f"{name}: needs a file, got the folder '{path}'; add the name of a file")
            if not stat.S_ISREG(mode):
                raise UserError(f"{name}: needs a regular file, got '{path}'; choose another path")
        make_folder(path.parent)
        check_replaceable(path)
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

    Example:
        >>> write_image("result.jpg", torch.rand(1, 3, 36, 48), metadata={"Style": "waves"})
        >>> read_metadata("result.jpg")
        {'Style': 'waves'}
    """
    return read_settings(expand(path, "image"))


def _check_fits(path: Path, pixels: Tensor, quality: int, bits: int) -> None:
    if not 1 <= quality <= 100:
        raise UserError(f"quality: must be from 1 to 100, got {quality}; choose a value in this range")
    check_sides(path, (pixels.shape[-2], pixels.shape[-1]), bits)


def check_sides(path: str | Path, size: tuple[int, int], bits: int = 8) -> None:
    """Refuse a picture that is larger than a file of its kind can be.

    Args:
        path: The file to be written.
        size: Height and width in pixels.
        bits: Bits a sample it shall have.

    Raises:
        UserError: If a side is too long.
    """
    kind = format_of(Path(path), bits)
    if max(size) > kind.longest_side:
        raise UserError(
            f"output: {kind.name} holds at most {kind.longest_side} px a side, got {size[0]} x {size[1]} for '{path}'; "
            "choose PNG or TIFF"
        )


def _not_writable(path: Path, name: str, error: Exception) -> UserError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return UserError(f"{name}: cannot write '{path}': {reason}; choose another path or make room there")


def _to_tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


def _to_samples(pixels: Tensor, alpha: Tensor | None, bits: int, space: ColorSpace) -> Array:
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
        if space.is_srgb:
            strip = np.clip(strip, 0, 1)
        if alpha is not None:
            opacity = np.clip(_to_array(alpha[..., rows, :], "alpha"), 0, 1)
            opacity = np.floor(opacity * peak + np.float32(0.5)) / peak  # rounded as in the file
            strip = off_white(strip, opacity[..., 0])
        if not space.is_srgb:
            strip = to_space(strip, space)
        if alpha is not None:
            strip = np.concatenate([strip, opacity], axis=2)
        values[rows] = (strip * peak + np.float32(0.5)).astype(kind)
    return values


def _to_array(tensor: Tensor, what: str) -> Array:
    """``(1, C, H, W)`` to ``(H, W, C)`` float32."""
    # NumPy from here: PyTorch would start a pool of threads for a writer beside the run, and with more threads than
    # cores OpenMP puts all of them to sleep between loops, which costs the run 10 ms an evaluation.
    values = tensor.detach().to("cpu", torch.float32).numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite, got NaN or infinity")
    return np.ascontiguousarray(values[0].transpose(1, 2, 0))
