"""Boxes of ISO base media files (ISO/IEC 14496-12), of which AVIF, HEIF, JPEG 2000 and JPEG XL are made."""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from nst_lightning.images.codepoints import CodePoints

_DESCRIPTION = 1 << 24  # most bytes of a box that holds no pixels


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each box in ``data``: its kind and its content. Ends at the first that is cut."""
    for kind, begin, end in _places(io.BytesIO(data)):
        if end > len(data):
            return
        yield kind, data[begin:end]


def first_box(data: bytes, *path: bytes) -> bytes | None:
    """Content of the box at the end of a path of kinds, the first of each kind; None if there is none."""
    for kind in path:
        found = next((content for name, content in boxes(data) if name == kind), None)
        if found is None:
            return None
        data = found
    return data


def top_box(file: BinaryIO, wanted: bytes, most: int = _DESCRIPTION) -> bytes | None:
    """Content of the first box of a kind at the top of a file, cut to ``most`` bytes; None if there is none."""
    for kind, begin, end in _places(file):
        if kind == wanted:
            file.seek(begin)
            return file.read(min(end - begin, most))
    return None


def _places(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Each box at the top of a file: its kind, and where its content begins and ends, if the file does not before."""
    place = 0
    length = file.seek(0, io.SEEK_END)
    while place + 8 <= length:
        file.seek(place)
        size, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        head = 16 if size == 1 else 8
        size = large if size == 1 else size or length - place
        if size < head:
            return
        yield kind, place + head, place + size
        place += size


def primary_properties(meta: bytes) -> list[tuple[bytes, bytes]]:
    """The properties of the primary item of a ``meta`` box (ISO/IEC 23008-12), in their order."""
    inner = meta[4:]  # behind version and flags
    pitm, iprp = first_box(inner, b"pitm"), first_box(inner, b"iprp")
    if pitm is None or iprp is None:
        return []
    properties = list(boxes(first_box(iprp, b"ipco") or b""))
    primary = int.from_bytes(pitm[4:6] if pitm[0] == 0 else pitm[4:8], "big")
    for kind, content in boxes(iprp):
        if kind == b"ipma":
            for item, indices in _associations(content):
                if item == primary:
                    return [properties[index - 1] for index in indices if 0 < index <= len(properties)]
    return []


def _associations(ipma: bytes) -> Iterator[tuple[int, list[int]]]:
    """Items and the indices, from one, of their properties."""
    version, two_bytes = ipma[0], ipma[3] & 1
    item_size = 4 if version >= 1 else 2
    (entries,) = struct.unpack_from(">I", ipma, 4)
    place = 8
    for _ in range(entries):
        if place + item_size >= len(ipma):
            return
        item = int.from_bytes(ipma[place : place + item_size], "big")
        count = ipma[place + item_size]
        place += item_size + 1
        step, mask = (2, 0x7FFF) if two_bytes else (1, 0x7F)  # the bit on top says whether a property is essential
        ends = range(place, place + count * step, step)
        yield item, [int.from_bytes(ipma[end : end + step], "big") & mask for end in ends]
        place += count * step


def nclx(content: bytes) -> CodePoints | None:
    """Code points of a ``colr`` box; None if it holds a profile instead."""
    if content[:4] != b"nclx" or len(content) < 8:
        return None
    return CodePoints(*struct.unpack_from(">HH", content, 4))
