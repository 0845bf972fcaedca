"""JPEG of 12 bits a sample, from scanners and medicine: by imagecodecs, since Pillow does not read it."""

import io
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from nst_lightning.images.color import Raster, full_range, grey_or_rgb
from nst_lightning.images.mending.jpeg import FRAMES, segments
from nst_lightning.images.opening import UnsupportedError

_BITS = 12


def accepts(file: BinaryIO) -> bool:
    """Whether a JPEG has 12 bits a sample."""
    place = _place_of_bits(file)
    if place is None:
        return False
    file.seek(place)
    return file.read(1) == bytes([_BITS])


def header_of(file: BinaryIO) -> Image.Image:
    """The picture as Pillow opens one of 8 bits: size, EXIF and profile are right, its pixels must not be asked for."""
    place = _place_of_bits(file)
    file.seek(0)
    data = bytearray(file.read())
    if place is not None:
        data[place] = 8
    return Image.open(io.BytesIO(data), formats=["JPEG"])


def read(file: BinaryIO, icc: bytes | None) -> Raster:
    """Decode a JPEG of 12 bits; an UnsupportedError if it is neither grey nor of three colours."""
    file.seek(0)
    values = np.asarray(imagecodecs.jpeg8_decode(file.read()))
    if values.ndim == 3 and values.shape[2] not in (1, 3):
        raise UnsupportedError(f"it is a JPEG of {_BITS} bits with {values.shape[2]} samples a pixel")
    return grey_or_rgb(full_range(values, _BITS), icc)


def _place_of_bits(file: BinaryIO) -> int | None:
    """Where a JPEG says how many bits a sample has (ISO/IEC 10918-1, B.2.2); None if it is none or damaged."""
    file.seek(0)
    start = file.read(2)
    if start != b"\xff\xd8":
        return None
    return next((found.begin + 4 for found in segments(start + file.read()) if found.marker in FRAMES), None)
