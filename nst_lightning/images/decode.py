"""From a file of any supported kind to upright samples."""

import functools
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import imagecodecs
import numpy as np
from PIL import Image, ImageOps

from nst_lightning.errors import UserError
from nst_lightning.images import deep, heif, jpeg12, jpeg2000, jxl, netpbm, raw
from nst_lightning.images.color import Array, Raster, from_narrow, full_range, grey_or_rgb
from nst_lightning.images.limits import LARGE, check_pixels, open_image, reduction, without_pillows_limit
from nst_lightning.images.mending import attempt
from nst_lightning.images.mending.partial import load
from nst_lightning.images.opening import opened, remark
from nst_lightning.images.tags import png_chunks, read_tags
from nst_lightning.images.tiffpages import is_raw_tiff, with_picture_first

# Not all that Pillow knows: some of its formats start other programs (EPS) or are no pictures (MPEG). Each with the
# plugin of Pillow that reads it.
_FORMATS = {
    **{"JPEG": "Jpeg", "MPO": "Mpo", "PNG": "Png", "WEBP": "WebP", "TIFF": "Tiff", "GIF": "Gif"},
    **{"BMP": "Bmp", "DIB": "Bmp", "PPM": "Ppm", "TGA": "Tga", "AVIF": "Avif"},
}
# Kinds that Pillow would spoil or does not read.
_READERS: dict[str, "_Reader"] = {"raw": raw, "heif": heif, "jxl": jxl, "jpeg2000": jpeg2000, "netpbm": netpbm}
_START_BYTES = 4096
_ORIENTATION_TAG = 274
_SMALLEST_SIDE = 2


class _Reader(Protocol):
    """A module that reads one kind of file, whose size (height and width) it knows as the picture is shown."""

    def accepts(self, start: bytes) -> bool: ...

    def read_size(self, file: BinaryIO) -> tuple[int, int]: ...

    def read(self, file: BinaryIO) -> Raster: ...


@dataclass(frozen=True)
class Header:
    """What the start of a file says: upright size in pixels, EXIF orientation, and who decodes it."""

    height: int
    width: int
    orientation: int
    decoder: str


def read_header(path: Path, name: str) -> Header:
    """Read the size of a picture, after EXIF orientation, without decoding it.

    What is no picture, or too large or too small a one, is a UserError that begins with `name`.
    """
    with opened(path, name) as file:
        header = attempt(file, _header, pixels=False)
    if min(header.height, header.width) < _SMALLEST_SIDE:
        raise UserError(
            f"{name}: must be at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} px, got {header.height} x "
            f"{header.width} (height x width) in '{path}'; choose a larger picture"
        )
    return header


def read_raster(path: Path, name: str, needed: tuple[int, int] | None = None) -> Raster:
    """Decode the first frame of a picture, upright, in the colour space of the file; messages begin with `name`.

    If `needed` says in which height and width it will be used, a very large JPEG comes smaller, but not below them.

    Raises:
        UserError: As ``read_header``, or the file is truncated, damaged or not finite.
    """
    header = read_header(path, name)
    with opened(path, name) as file:
        return attempt(file, functools.partial(_raster, header, needed), pixels=True)


def _raster(header: Header, needed: tuple[int, int] | None, stored: BinaryIO) -> Raster:
    file = with_picture_first(stored) if "tiff" in header.decoder else stored
    if header.decoder in _READERS:
        raster = _READERS[header.decoder].read(file)
    elif header.decoder == "tiff":
        raster = deep.read_deep_tiff(file)
    elif header.decoder == "jpeg12":
        with jpeg12.header_of(file) as image:
            raster = jpeg12.read(file, read_tags(image, file).icc)
    else:
        large = header.height * header.width > LARGE
        with open_image(file, readable_formats()) as image, without_pillows_limit() if large else nullcontext():
            factor = reduction(header.height, header.width, needed) if image.format in ("JPEG", "MPO") else 1
            if factor > 1:
                image.draft(None, (image.width // factor, image.height // factor))
                if needed is None:
                    remark(f"is read in 1/{factor} of its size, as memory does not hold more")
            raster = _decoded(image, file, header.decoder)
    opaque = raster.alpha is None or bool((raster.alpha == 1).all())
    alpha = None if raster.alpha is None or opaque else _upright(raster.alpha, header.orientation)
    return replace(raster, values=_upright(raster.values, header.orientation), alpha=alpha)


SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".bmp"]
)
"""Ends of names that pictures in a folder are known by; a file that is given is known by what is in it."""


def _header(file: BinaryIO) -> Header:
    start = file.read(_START_BYTES)
    file.seek(0)
    reader = next((name for name, module in _READERS.items() if module.accepts(start)), None)
    if reader is None and deep.is_tiff(start) and is_raw_tiff(file):
        reader = "raw"
    if reader is not None:
        height, width = _READERS[reader].read_size(file)
        check_pixels(height * width, file)
        return Header(height, width, 1, reader)
    if deep.is_tiff(start):
        file = with_picture_first(file)
        height, width, orientation, is_deep = deep.read_tiff_header(file)
        if not is_deep:
            with open_image(file, ["TIFF"]):
                pass  # refuses what Pillow cannot decode, and bombs
        decoder = "tiff" if is_deep else "pillow-tiff"
    elif jpeg12.accepts(file):
        with jpeg12.header_of(file) as image:
            width, height = image.size
            orientation, decoder = _orientation(image, file), "jpeg12"
    else:
        with open_image(file, readable_formats()) as image:
            width, height = image.size
            orientation = _orientation(image, file)
            if image.format == "AVIF" and (crop := read_tags(image, file).crop) is not None:
                width, height = crop[2:]
        decoder = "png" if deep.is_deep_png(start) else "pillow"
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5:
        height, width = width, height
    # Pillow turns a TIFF by itself when it decodes it.
    return Header(height, width, 1 if decoder == "pillow-tiff" else orientation, decoder)


def readable_formats() -> list[str]:
    """Names of the formats that pictures are read from, as far as this build of Pillow has them."""
    for plugin in dict.fromkeys(_FORMATS.values()):  # by itself Pillow would import those of fifty formats
        with suppress(ImportError):
            import_module(f"PIL.{plugin}ImagePlugin")
    return [kind for kind in _FORMATS if kind in Image.OPEN]


def _orientation(image: Image.Image, file: BinaryIO) -> Any:
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow sees one behind the pixels only when it decodes it.
        late = png_chunks(file, {b"eXIf"}, behind_pixels=True).get(b"eXIf")
        if late is not None:
            image.info["exif"] = late
    try:
        # The method of PNG images would decode the whole picture in search of a late chunk.
        return Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF, which fails in many ways, is no reason to refuse the picture
        return 1


def _upright(values: Array, orientation: int) -> Array:
    """Apply an EXIF orientation (EXIF 2.32, tag 0x0112) to ``(H, W, ...)``."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _decoded(image: Image.Image, file: BinaryIO, decoder: str) -> Raster:
    """The samples of a picture that Pillow has opened, by it or by a decoder that returns all of their bits."""
    tags = read_tags(image, file)
    file.seek(0)
    if decoder == "png":
        raster = grey_or_rgb(np.asarray(imagecodecs.png_decode(file.read())), tags.icc)
    elif tags.bits > 8:  # an AVIF, of which the first frame is wanted
        raster = grey_or_rgb(full_range(np.asarray(imagecodecs.avif_decode(file.read(), index=0)), tags.bits), tags.icc)
    else:
        raster = _from_pillow(load(image, file), tags.icc)
    values, alpha = from_narrow(raster.values) if tags.narrow else raster.values, raster.alpha
    if tags.crop is not None:
        left, top, width, height = tags.crop
        values = values[top : top + height, left : left + width]
        alpha = None if alpha is None else alpha[top : top + height, left : left + width]
    return replace(raster, values=values, alpha=alpha, points=tags.points)


def _from_pillow(image: Image.Image, icc: bytes | None) -> Raster:
    if image.format == "TIFF":
        ImageOps.exif_transpose(image, in_place=True)  # nothing left to do where load() did it
    if image.mode == "CMYK":
        return Raster(np.array(image), "CMYK", None, icc)
    if image.mode == "LAB":
        lab = np.array(image)
        lab[..., 1:] ^= 128  # numpy is given a* and b* as TIFF stores them: signed bytes
        return Raster(lab, "LAB", None, icc)
    if image.mode[0] == "F":
        values = full_range(np.array(image), 32)
    elif image.mode[0] == "I":
        values = np.clip(np.array(image), 0, 65535).astype(np.uint16)
    else:
        plain, with_alpha = ("L", "LA") if image.mode[0] in "1L" else ("RGB", "RGBA")
        values = np.array(image.convert(with_alpha if image.has_transparency_data else plain))
    return grey_or_rgb(values, icc)
