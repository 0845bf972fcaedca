"""JPEG XL, with the extra ``jxl``: samples by imagecodecs, and the profile that is theirs by pillow-jxl-plugin.

All that reads a file raises MissingExtraError where there is no pillow-jxl-plugin, and ValueError if its header is cut.
"""

from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np

from nst_lightning.images import bmff
from nst_lightning.images.color import Raster, full_range, grey_or_rgb
from nst_lightning.images.opening import MissingExtraError

_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_CODESTREAM = b"\xff\x0a"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # width to height
_HEADER_BYTES = 256  # longer than all fields that are read here


class _Header(NamedTuple):
    """Size as it is shown, and bits of an integer sample."""

    height: int
    width: int
    bits: int


def accepts(start: bytes) -> bool:
    """Whether a file that starts so is JPEG XL, bare or in a container."""
    return start.startswith((_CONTAINER, _CODESTREAM))


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width as the decoder turns the picture: EXIF has no word in it (ISO/IEC 18181-2)."""
    _decoder()  # or it says what to install
    header = _header(file)
    return header.height, header.width


def read(file: BinaryIO) -> Raster:
    """Decode the first frame."""
    bits = _header(file).bits
    file.seek(0)
    data = file.read()
    values = np.asarray(imagecodecs.jpegxl_decode(data, index=0))
    # The profile of the samples as libjxl gives them out, which for lossy files may not be that of the original.
    return grey_or_rgb(full_range(values, bits), bytes(_decoder()(data)[3]) or None)


def _decoder() -> Any:
    try:
        from pillow_jxl import Decoder  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("a JPEG XL picture", "jxl") from error
    return Decoder(num_threads=1)


def _header(file: BinaryIO) -> _Header:
    """SizeHeader and the start of ImageMetadata (ISO/IEC 18181-1, annex D)."""
    file.seek(0)
    stream = file.read(_HEADER_BYTES)
    if stream.startswith(_CONTAINER):
        whole = bmff.top_box(file, b"jxlc", most=_HEADER_BYTES)
        stream = whole if whole is not None else (bmff.top_box(file, b"jxlp", most=_HEADER_BYTES) or b"")[4:]
    bits = _Bits(stream[2:])
    height, width = _size(bits)
    depth = 8
    if not bits.read(1):  # not all default
        if bits.read(1):  # extra fields
            orientation = 1 + bits.read(3)
            if orientation >= 5:
                height, width = width, height
            if bits.read(1):  # intrinsic size
                _size(bits)
            if bits.read(1):
                _preview(bits)
            if bits.read(1):
                _animation(bits)
        if not bits.read(1):  # integers; of floating-point numbers the bits matter to no one
            depth = bits.choose((8, 0), (10, 0), (12, 0), (1, 6))
    return _Header(height, width, depth)


def _size(bits: "_Bits") -> tuple[int, int]:
    small = bits.read(1)  # a multiple of 8
    sizes = ((1, 9), (1, 13), (1, 18), (1, 30))
    height = 8 * (1 + bits.read(5)) if small else bits.choose(*sizes)
    ratio = bits.read(3)
    if ratio:
        over, under = _RATIOS[ratio]
        return height, height * over // under
    return height, 8 * (1 + bits.read(5)) if small else bits.choose(*sizes)


def _preview(bits: "_Bits") -> None:
    sizes = ((16, 0), (32, 0), (1, 5), (33, 9)) if bits.read(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.choose(*sizes)
    if not bits.read(3):  # no ratio
        bits.choose(*sizes)


def _animation(bits: "_Bits") -> None:
    bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))  # ticks a second, over
    bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
    bits.choose((0, 0), (0, 3), (0, 16), (0, 32))  # loops
    bits.read(1)  # time codes


class _Bits:
    """Bits from the least one of the first byte on."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")
        self._count = 8 * len(data)

    def read(self, count: int) -> int:
        if count > self._count:
            raise ValueError("the header is too short")
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        self._count -= count
        return value

    def choose(self, *choices: tuple[int, int]) -> int:
        """A U32 of the standard: two bits choose among a base and so many bits to add to it."""
        base, more = choices[self.read(2)]
        return base + self.read(more)
