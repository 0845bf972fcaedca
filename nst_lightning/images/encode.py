"""The formats that pictures are written in, each with an sRGB profile and a description."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import tifffile
from PIL import Image

from nst_lightning.errors import UserError
from nst_lightning.images.color import Array, srgb_profile

DESCRIPTION_TAG = 270  # ImageDescription, in TIFF and in EXIF

Encoder = Callable[[BinaryIO, Array, int, str], None]


@dataclass(frozen=True)
class Format:
    """What a format can hold.

    Attributes:
        name: Its usual name.
        bits: Bits a sample that it can hold.
        alpha: Whether it can hold alpha.
        longest_side: Largest height or width in pixels.
        encode: Writes ``(H, W, 3 or 4)`` uint8 or uint16 with a JPEG quality and an ASCII description.
    """

    name: str
    bits: tuple[int, ...]
    alpha: bool
    longest_side: int
    encode: Encoder


def format_of(path: Path, bits: int, name: str = "output") -> Format:
    """The format that the suffix of a path stands for.

    Raises:
        UserError: The suffix is unknown, or its format does not hold so many bits a sample.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise UserError(f"{name}: must end in one of {', '.join(FORMATS)}, got '{path}'; change the suffix of the path")
    if bits not in (8, 16):
        raise UserError(f"{name}: must have 8 or 16 bits a sample, got {bits}; choose one of them")
    if bits not in found.bits:
        raise UserError(
            f"{name}: {found.name} holds 8 bits a sample, got {bits} for '{path}'; choose 8 bits, PNG or TIFF"
        )
    return found


def _jpeg(file: BinaryIO, values: Array, quality: int, description: str) -> None:
    Image.fromarray(values).save(
        file,
        "JPEG",
        quality=quality,
        subsampling="4:4:4",  # styles are made of coloured strokes as fine as the pixels
        icc_profile=srgb_profile(),
        exif=_exif(description),
    )


def _webp(file: BinaryIO, values: Array, quality: int, description: str) -> None:
    # exact: keep colours under full transparency, which resampling may bring to light.
    Image.fromarray(values).save(
        file, "WEBP", lossless=True, exact=True, icc_profile=srgb_profile(), exif=_exif(description)
    )


def _exif(description: str) -> bytes:
    exif = Image.Exif()
    if description:
        exif[DESCRIPTION_TAG] = description
    return exif.tobytes()


def _png(file: BinaryIO, values: Array, quality: int, description: str) -> None:
    encoded = io.BytesIO(imagecodecs.png_encode(values))
    file.write(encoded.read(33))  # signature and IHDR, behind which the other chunks may start
    _png_chunk(file, b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))
    if description:
        _png_chunk(file, b"tEXt", b"Description\0" + description.encode("ascii"))
    file.write(encoded.getbuffer()[33:])


def _png_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def _tiff(file: BinaryIO, values: Array, quality: int, description: str) -> None:
    tifffile.imwrite(
        file,
        values,
        photometric="rgb",
        extrasamples=["unassalpha"] if values.shape[2] == 4 else None,
        compression="zlib",
        predictor=True,
        # By itself tifffile goes to 64-bit offsets only without compression, which may yet not help.
        bigtiff=values.nbytes > 2**32 - 2**25,
        iccprofile=srgb_profile(),
        description=description or None,
        software=False,
        metadata=None,
    )


_JPEG = Format("JPEG", (8,), alpha=False, longest_side=65_500, encode=_jpeg)  # libjpeg's JPEG_MAX_DIMENSION
_PNG = Format("PNG", (8, 16), alpha=True, longest_side=1_000_000, encode=_png)  # libpng's default limit
_TIFF = Format("TIFF", (8, 16), alpha=True, longest_side=2**31 - 1, encode=_tiff)
_WEBP = Format("WebP", (8,), alpha=True, longest_side=16_383, encode=_webp)  # 14 bits in its header
FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _WEBP,
}
