"""JPEG that ends too early, as libjpeg reads it, but told of; and JPEG with notes that decoders choke on."""

import io
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nst_lightning.images.mending.damage import Mended, told

_MARKER = re.compile(rb"\xff+([\xc0-\xfe])")
_END_OF_SCAN = re.compile(rb"\xff[\xc4\xd9-\xdd\xe0-\xef\xfe]")  # neither stuffed zeros nor restart markers
_SOI, _EOI, _SOS, _DNL = 0xD8, 0xD9, 0xDA, 0xDC
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_NEEDED_NOTES = {0xE0: b"JFIF", 0xE2: b"ICC_PROFILE", 0xEE: b"Adobe"}  # segments that pixels and colours depend on
_END = b"\xff\xd9"
_JUNK = 4096  # number of bytes put in place of missing ones: some blocks are enough
_HUFFMAN = {0xC0, 0xC1}  # frames of one scan, which ends with the last block
_SPARE = 32  # bytes: no more than the last blocks have, and more than encoders pad with
_BOTTOM = 256  # number of last rows that are compared
_FINE = 1  # number of lowest bits of a coefficient that may be missing


class _Scan(NamedTuple):
    """One pass over a picture: its components, their coefficients from first to last, and the lowest bit sent."""

    components: tuple[int, ...]
    first: int
    last: int
    low: int
    whole: bool


class _Frame(NamedTuple):
    kind: int
    blocks: dict[int, tuple[int, int]]  # of each component in an MCU: across, down


class Segment(NamedTuple):
    """Where a part of a JPEG lies that begins with a marker."""

    marker: int
    begin: int
    end: int
    coded: int  # where entropy-coded data behind it end


class _Structure(NamedTuple):
    """What markers tell of a JPEG."""

    segments: list[Segment]
    frame: _Frame | None
    scans: list[_Scan]


def mend(data: bytes) -> Mended | None:
    """Close a JPEG that does not end, and tell how much of it is missing; None if it ends."""
    structure = _read(data)
    if structure.frame is None or not structure.scans or structure.segments[-1].marker == _EOI:
        return None
    if data.endswith(bytes(16)):  # room that was made for the file and never filled
        data = data.rstrip(b"\0")
    data = data.rstrip(b"\xff")  # half of a marker, or of what stands for 255
    if not _in_passes(structure):
        return Mended(data + _END, told(_missing_blocks(data, structure)))
    missing = _missing_coefficients(structure)
    return Mended(data + _END, told(missing) if missing else "is cut short: its finest detail is missing")


def early_end(data: bytes) -> float:
    """Share of the pixels that a JPEG which does end says nothing of: libjpeg makes them grey."""
    structure = _read(data)
    if structure.frame is None or not structure.scans or _in_passes(structure):
        return 0.0
    return _missing_blocks(data[: structure.segments[-1].coded], structure)


def has_spare_bytes(data: bytes, image: Image.Image) -> bool:
    """Whether all blocks were there before the coded bytes ended: somewhere between, bytes are not those written.

    Damage within a restart interval, if not the last one, is not seen so. The image is what was decoded, not reduced.
    """
    structure = _read(data)
    if structure.frame is None or structure.frame.kind not in _HUFFMAN or _in_passes(structure):
        return False
    coded = data[: structure.segments[-1].coded].rstrip(b"\0\xff")
    begin = max(segment.end for segment in structure.segments if segment.marker == _SOS)
    if len(coded) - begin < _SPARE:
        return False
    intact = coded[:-_SPARE].rstrip(b"\xff")  # an 0xff at the end would make a marker with the byte behind it
    with Image.open(io.BytesIO(intact + _junk(_SPARE) + _END), formats=["JPEG"]) as other:
        if other.size != image.size or other.mode != image.mode:
            return False
        bottom = (0, max(0, image.height - _BOTTOM), image.width, image.height)
        return np.array_equal(np.asarray(other.crop(bottom)), np.asarray(image.crop(bottom)))


def without_notes(data: bytes) -> Mended | None:
    """Leave out the segments that no pixel needs: EXIF, comments, previews and what programs note there."""
    structure = _read(data)
    if structure.frame is None:
        return None
    parts, place, left = [], 0, False
    for marker, begin, end, _ in structure.segments:
        wanted = _NEEDED_NOTES.get(marker)
        note = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if note and not (wanted and data[begin + 4 :].startswith(wanted)):
            parts.append(data[place:begin])
            place, left = end, True
    parts.append(data[place:])
    said = "has notes (such as EXIF) that cannot be read; they are left aside"
    return Mended(b"".join(parts), said) if left else None


def segments(data: bytes) -> Iterator[Segment]:
    """The segments of a JPEG up to its EOI; what should not be between them is passed over."""
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        marker, begin = found[1][0], found.end() - 2
        place = found.end()
        if marker == _EOI:
            yield Segment(marker, begin, place, begin)
            return
        if marker == _SOI or 0xD0 <= marker <= 0xD7:
            continue
        place = end = begin + 2 + max(2, int.from_bytes(data[begin + 2 : begin + 4], "big"))
        if marker == _SOS:
            after = _END_OF_SCAN.search(data, end)
            place = len(data) if after is None else after.start()
        yield Segment(marker, begin, end, place)


def _read(data: bytes) -> _Structure:
    found = list(segments(data))
    frame, scans = None, []
    for marker, begin, end, coded in found:
        content = data[begin + 4 : end]
        if marker in FRAMES and len(content) >= 6:
            components = [content[6 + 3 * k : 9 + 3 * k] for k in range(content[5])]
            frame = _Frame(marker, {c[0]: (c[1] >> 4 or 1, c[1] & 15 or 1) for c in components if len(c) == 3})
        elif marker == _SOS and content:
            scans.append(_scan(content, coded < len(data)))
    return _Structure(found, frame, scans)


def _scan(content: bytes, whole: bool) -> _Scan:
    count = content[0]
    first, last, bits = struct.unpack("3B", content[1 + 2 * count : 4 + 2 * count].ljust(3, b"\0"))
    return _Scan(tuple(content[1 : 1 + 2 * count : 2]), first, last, bits & 15, whole)


def _in_passes(structure: _Structure) -> bool:
    """Whether more than one scan makes the picture."""
    assert structure.frame is not None
    several = len(structure.scans[0].components) < len(structure.frame.blocks)
    return structure.frame.kind in _PROGRESSIVE or several


def _missing_coefficients(structure: _Structure) -> float:
    """Share of the coefficients of which more than the lowest bit was not sent to the end."""
    assert structure.frame is not None
    there = {component: np.full(64, 15) for component in structure.frame.blocks}
    for scan in structure.scans:
        for component in scan.components:
            if scan.whole and component in there:
                last = scan.last if structure.frame.kind in _PROGRESSIVE else 63
                there[component][scan.first : last + 1] = scan.low
    weights = {component: across * down for component, (across, down) in structure.frame.blocks.items()}
    lost = sum(weights[component] * float(np.mean(bits > _FINE)) for component, bits in there.items())
    return lost / max(1, sum(weights.values()))


def _missing_blocks(data: bytes, structure: _Structure) -> float:
    """Share of the blocks that come out otherwise when other bytes follow the last ones."""
    assert structure.frame is not None
    found, other = _luma(data + _END), _luma(data + _junk(_JUNK) + _END)
    differ: NDArray[np.bool_] = (found != other).any(-1)
    across = 8 * max(columns for columns, _ in structure.frame.blocks.values())
    down = 8 * max(rows for _, rows in structure.frame.blocks.values())
    if len(structure.frame.blocks) == 1:  # blocks of one component go one by one, whatever it says of them
        across = down = 8
    if not differ.any():
        return 0.0
    rows, columns = -(-len(found) // down), -(-len(found[0]) // across)
    row = int(differ.any(1).argmax()) // down
    column = int(differ[row * down : (row + 1) * down].any(0).argmax()) // across
    return 1.0 - (row * columns + column) / (rows * columns)


def _junk(length: int) -> bytes:
    return np.random.default_rng(0).integers(0, 255, length, dtype=np.uint8).tobytes()  # 255 would be a marker


def _luma(data: bytes) -> NDArray[np.uint8]:
    """``(H, W, C)``, brightness alone where it can be had: chroma of neighbours mixes beyond the blocks."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", image.size)
        values = np.asarray(image)
    return values if values.ndim == 3 else values[..., None]
