"""PNG with wrong checksums, without its end, or with chunks that decoders choke on."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import PngImagePlugin

from nst_lightning.images.mending.damage import Mended, told
from nst_lightning.images.tags import png_places

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Kinds of chunks that are kept, beside IHDR and IDAT.
_NEEDED = {b"PLTE", b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"pHYs", b"eXIf"}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples of a pixel by colour type
# Of the passes of an interlaced picture: first column and row, and steps (PNG, third edition, 8.1).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 4096


class _Chunk(NamedTuple):
    kind: bytes
    data: bytes
    sound: bool
    whole: bool


def accepts(start: bytes) -> bool:
    """Whether a file that starts so is a PNG."""
    return start.startswith(_SIGNATURE)


def mend(data: bytes, pixels: bool) -> Mended | None:
    """Rebuild a PNG if a checksum in it is wrong or, where pixels are read, its end is missing; None if it is sound."""
    last = b""
    for chunk in _chunks(data):
        last = chunk.kind
        if not pixels and last == b"IDAT":
            return None
        if not chunk.sound:
            return rebuild(data, pixels)
    return None if last == b"IEND" or not pixels else rebuild(data, pixels)


def rebuild(data: bytes, pixels: bool) -> Mended | None:
    """Make a PNG anew of what its pixels need; None where IHDR or PLTE, without which there are none, is not sound.

    Raises:
        ValueError: The pixels are not those that were written.
    """
    chunks = list(_chunks(data))
    if not chunks or chunks[0].kind != b"IHDR" or len(chunks[0].data) != 13:
        return None
    if not all(chunk.sound for chunk in chunks if chunk.kind in (b"IHDR", b"PLTE")):
        return None
    compressed = b"".join(chunk.data for chunk in chunks if chunk.kind == b"IDAT")
    said, stored = "", b""
    if pixels:
        wanted = _raw_length(chunks[0].data)
        raw, checked = _inflated(compressed, wanted)
        if not checked and not all(chunk.sound for chunk in chunks if chunk.kind == b"IDAT" and chunk.whole):
            raise ValueError("the checksums of its pixels are wrong")
        said = told(1 - len(raw) / wanted) if len(raw) < wanted else _whole(chunks, checked)
        stored = zlib.compress(raw.ljust(wanted, b"\0"), 0)
    needed = [(chunk.kind, chunk.data) for chunk in chunks[1:] if chunk.sound and chunk.kind in _NEEDED]
    parts = [(b"IHDR", chunks[0].data), *needed, (b"IDAT", stored), (b"IEND", b"")]
    file = io.BytesIO()
    file.write(_SIGNATURE)
    for kind, content in parts:
        PngImagePlugin.putchunk(file, kind, content)
    return Mended(file.getvalue(), said)


def _whole(chunks: list[_Chunk], checked: bool) -> str:
    """What was wrong with a file of which no pixel is missing."""
    if chunks[-1].kind != b"IEND" or not chunks[-1].whole:
        return told(0)
    if not checked:
        return "has a wrong checksum of its pixels, and others that are right"
    wrong = sorted({chunk.kind.decode("latin-1") for chunk in chunks if not chunk.sound})
    if wrong:
        return f"has a wrong checksum in {' and '.join(wrong)}, which no pixel suffers from"
    return "has notes that cannot be read; they are left aside"


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks up to IEND or the end of the file, the last one maybe cut."""
    for kind, begin, length in png_places(io.BytesIO(data)):
        content = data[begin : begin + length]
        check = data[begin + length : begin + length + 4]
        whole = len(check) == 4
        sound = whole and int.from_bytes(check, "big") == zlib.crc32(content, zlib.crc32(kind))
        yield _Chunk(kind, content, sound, whole)
        if kind == b"IEND":
            return


def _raw_length(header: bytes) -> int:
    """Bytes of the pixels before compression: each row with a byte for its filter."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if not interlaced:
        passes = [(width, height)]
    else:
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _PASSES]
    depth = bits * _SAMPLES.get(colour, 4)
    return sum(rows * (1 + (columns * depth + 7) // 8) for columns, rows in passes if columns > 0 and rows > 0)


def _inflated(compressed: bytes, wanted: int) -> tuple[bytes, bool]:
    """What can be decompressed, up to a length, and whether its own checksum was there and right."""
    inflater, found = zlib.decompressobj(), bytearray()
    place, step = 0, _PIECE
    while place < len(compressed) and len(found) <= wanted and not inflater.eof:
        before = inflater.copy()
        try:
            found += inflater.decompress(compressed[place : place + step], wanted + 1 - len(found))
            place += step
        except zlib.error:
            if step == 1:
                break
            # What it found in the bytes that it fails at, zlib does not return: one by one they give all up to there.
            inflater, step = before, 1
    return bytes(found[:wanted]), inflater.eof
