"""JPEG 2000, bare or as JP2: by imagecodecs, since Pillow spoils more than 8 bits and drops the profile.

All that reads a file raises ValueError where there is no code stream, or a damaged one.
"""

import struct
from typing import BinaryIO

import imagecodecs
import numpy as np

from nst_lightning.images import bmff
from nst_lightning.images.color import Raster, Space, full_range, split_alpha
from nst_lightning.images.opening import UnsupportedError

_BOX = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
_CMYK = 12
_ENUMERATED = (_CMYK, 16, 17, 18)  # EnumCS that are read: CMYK, sRGB, grey, and sYCC, which is decoded as RGB
_PROFILES = (b"\2", b"\3")  # methods of a colr box: a restricted profile, or any
_HEADER_BYTES = 64


def accepts(start: bytes) -> bool:
    """Whether a file that starts so is JPEG 2000."""
    return start.startswith((_BOX, _CODESTREAM))


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width."""
    right, bottom, left, top = struct.unpack_from(">4I", _stream(file), 8)  # SIZ (ISO/IEC 15444-1, A.5.1)
    return max(bottom - top, 0), max(right - left, 0)


def read(file: BinaryIO) -> Raster:
    """Decode a picture; palettes and subsampled YCbCr come as RGB.

    Raises:
        UnsupportedError: Its colour space is none of sRGB, sYCC, grey and CMYK, and no profile says what it is.
    """
    bits = 1 + (_stream(file)[42] & 0x7F)  # Ssiz of the first component
    header = bmff.top_box(file, b"jp2h") or b""
    file.seek(0)
    data = file.read()
    # Where it sees a profile imagecodecs converts to sRGB by itself, and does not tell.
    for kind, content in bmff.boxes(header):
        if kind == b"colr" and content[:1] in _PROFILES:
            data = data.replace(kind + content, b"free" + content, 1)
    values = np.asarray(imagecodecs.jpeg2k_decode(data))
    if values.ndim == 2:
        values = values[..., None]
    if bmff.first_box(header, b"pclr") is not None:  # what a palette gives has bits of its own
        bits = 8 * values.itemsize
    if values.dtype.kind != "u":
        raise UnsupportedError("its samples have a sign")
    space, icc = _colours(header, values.shape[2])
    if values.shape[2] > 4 + (space == "CMYK"):
        raise UnsupportedError(f"it has {values.shape[2]} samples a pixel")
    colours, alpha = split_alpha(full_range(values, bits), space)
    return Raster(colours, space, alpha, icc)


def _colours(header: bytes, samples: int) -> tuple[Space, bytes | None]:
    """Colour space, and the profile where there is one."""
    supposed: Space = "GRAY" if samples <= 2 else "RGB"
    named = [content for kind, content in bmff.boxes(header) if kind == b"colr"]
    icc = next((content[3:] for content in named if content[:1] in _PROFILES), None)
    if icc is not None:
        return ("CMYK" if icc[16:20] == b"CMYK" and samples >= 4 else supposed), icc
    stated = next((content[3:7] for content in named if content[:1] == b"\1" and len(content) >= 7), None)
    if stated is None:
        return supposed, None
    code = int.from_bytes(stated, "big")
    if code not in _ENUMERATED:
        raise UnsupportedError(f"its colour space is the one of number {code} in JPEG 2000")
    return ("CMYK" if code == _CMYK and samples >= 4 else supposed), None


def _stream(file: BinaryIO) -> bytes:
    """The start of the code stream."""
    file.seek(0)
    start = file.read(_HEADER_BYTES)
    if not start.startswith(_CODESTREAM):
        start = bmff.top_box(file, b"jp2c", most=_HEADER_BYTES) or b""
    if not start.startswith(_CODESTREAM) or len(start) < 43:
        raise ValueError("it has no code stream or is truncated")
    return start
