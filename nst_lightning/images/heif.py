"""HEIC and HEIF, which phones write: by pillow-heif, with the extra ``heif``.

All that reads a file raises MissingExtraError where there is no pillow-heif, and UnsupportedError where the picture is
coded by something that this build of it lacks.
"""

import re
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from nst_lightning.images.codepoints import CodePoints
from nst_lightning.images.color import Raster, full_range, grey_or_rgb, unassociated
from nst_lightning.images.opening import MissingExtraError, UnsupportedError

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_OTHER_CODEC = "its pixels are coded in a way that pillow-heif does not read"
_CODEC = re.compile(r"unsupported|not been built", re.IGNORECASE)


def accepts(start: bytes) -> bool:
    """Whether a file that starts so is HEIF and not AVIF, which is HEIF by its structure."""
    if start[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, end, 4))}
    return bool(brands & _BRANDS) and not brands & _AVIF_BRANDS


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width as the container turns the picture: EXIF has no word in it (ISO/IEC 23008-12)."""
    width, height = _primary(file).size
    return height, width


def read(file: BinaryIO) -> Raster:
    """Decode the primary picture with the bits it has."""
    image = _primary(file)
    try:
        values = np.asarray(image)
    except RuntimeError as error:
        raise _explained(error) from error
    said = image.info.get("nclx_profile")
    points = CodePoints(int(said["color_primaries"]), int(said["transfer_characteristics"])) if said else None
    values = full_range(values, int(image.info["bit_depth"]))
    raster = grey_or_rgb(values, image.info.get("icc_profile") or None, points)
    if raster.alpha is not None and image.premultiplied_alpha:
        return replace(raster, values=unassociated(raster.values, raster.alpha))
    return raster


def read_info(file: BinaryIO) -> dict[str, Any]:
    """EXIF and XMP of the primary picture, by the names that Pillow has for them."""
    return dict(_primary(file).info)


def _primary(file: BinaryIO) -> Any:
    """The primary picture, not decoded: a pillow_heif.HeifImage."""
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("a HEIC picture", "heif") from error
    file.seek(0)
    try:
        images = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    except RuntimeError as error:
        raise _explained(error) from error
    if len(images) == 0:  # those of other codecs are passed over
        raise UnsupportedError(_OTHER_CODEC)
    return images[images.primary_index]


def _explained(error: RuntimeError) -> Exception:
    return UnsupportedError(_OTHER_CODEC) if _CODEC.search(str(error)) else error
