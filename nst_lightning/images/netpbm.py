"""PPM, PGM, PAM and PFM with more than 8 bits a sample, of which Pillow would return only 8 of colours, or nothing."""

import math
import re
from typing import BinaryIO, NamedTuple

import numpy as np

from nst_lightning.images.color import Array, Raster, as_linear, full_range, grey_or_rgb
from nst_lightning.images.opening import UnsupportedError

_HEADER_BYTES = 4096  # longest header that is read, with its comments
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P([2356Ff])" + _SPACE + rb"(\d+)" + _SPACE + rb"(\d+)" + _SPACE + rb"(-?[\d.eE+]+)\s")
_PAM = re.compile(rb"P7\n(.*?\n)ENDHDR\n", re.DOTALL)


class _Header(NamedTuple):
    kind: bytes
    height: int
    width: int
    channels: int
    peak: float  # of PFM a number whose sign tells the order of bytes
    end: int


def accepts(start: bytes) -> bool:
    """Whether a file that starts so is one of the family that is read here."""
    header = _header(start)
    return header is not None and (header.kind in (b"F", b"f", b"7") or header.peak > 255)


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width."""
    header = _read_header(file)
    return header.height, header.width


def read(file: BinaryIO) -> Raster:
    """Decode the first picture of a file; floating-point samples are linear light.

    Raises:
        NotFiniteError: A sample is NaN or infinite.
        UnsupportedError: It has samples that are no colours, or a greatest value of no sense.
        ValueError: The file is truncated.
    """
    header = _read_header(file)
    file.seek(header.end)
    shape = (header.height, header.width, header.channels)
    if header.kind in (b"F", b"f"):
        values = full_range(_binary(file, "<f4" if header.peak < 0 else ">f4", shape)[::-1], 32)  # from below
        return as_linear(grey_or_rgb(values))
    if not 1 <= header.peak <= 65535 or not 1 <= header.channels <= 4:
        raise UnsupportedError(f"it has {header.channels} samples a pixel up to {header.peak:g}")
    if header.kind in (b"2", b"3"):
        count = math.prod(shape)
        text = re.sub(rb"#[^\n]*", b" ", file.read()).split(maxsplit=count)[:count]
        if len(text) < count:
            raise ValueError("the file is truncated")
        values = np.array(text, np.uint16).reshape(shape)
    else:
        values = _binary(file, ">u2" if header.peak > 255 else "u1", shape)
    if header.peak in (255, 65535):
        values = values.astype(np.uint8 if header.peak == 255 else np.uint16)
    else:
        values = np.minimum(values.astype(np.float32) / np.float32(header.peak), 1)
    return grey_or_rgb(values)


def _read_header(file: BinaryIO) -> _Header:
    file.seek(0)
    header = _header(file.read(_HEADER_BYTES))
    if header is None:
        raise ValueError("its header is too long")
    return header


def _header(start: bytes) -> _Header | None:
    if found := _PNM.match(start):
        kind, width, height, peak = found.groups()
        try:
            return _Header(kind, int(height), int(width), 3 if kind in b"36F" else 1, float(peak), found.end())
        except ValueError:  # a number of more than one point
            return None
    if found := _PAM.match(start):
        fields = dict(line.split(None, 1) for line in found[1].splitlines() if len(line.split(None, 1)) == 2)
        try:
            height, width, depth, peak = (int(fields[key]) for key in (b"HEIGHT", b"WIDTH", b"DEPTH", b"MAXVAL"))
        except (KeyError, ValueError):
            return None
        return _Header(b"7", height, width, depth, peak, found.end())
    return None


def _binary(file: BinaryIO, kind: str, shape: tuple[int, int, int]) -> Array:
    size = math.prod(shape) * np.dtype(kind).itemsize
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file is truncated")
    return np.frombuffer(data, kind).reshape(shape)
