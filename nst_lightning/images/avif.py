"""AVIF with what no encoder at hand puts in: a profile, EXIF and XMP beside 8, 10 or 12 bits, lossless if asked.

Pillow's encoder has 8 bits and no lossless mode, imagecodecs' has both and writes pixels alone; so boxes are added to
the file that the latter makes (ISO/IEC 14496-12, 8.11, and 23008-12, 6.5.5 and Annex A).
"""

from __future__ import annotations

import struct

import imagecodecs

from nst_lightning.errors import notice
from nst_lightning.images.bmff import boxes
from nst_lightning.images.color import Array
from nst_lightning.images.profiles import ColorSpace

_LOSSLESS = 100
_UNSPECIFIED = (2, 2)
_IDENTITY, _BT601 = 0, 6  # matrices of ITU-T H.273; the first stores R, G and B as they are


def encode_avif(values: Array, bits: int, quality: int, space: ColorSpace, exif: bytes, xmp: bytes) -> bytes:
    """Encode ``(H, W, 3 or 4)``, uint8 for 8 bits and uint16 for 10 and 12, in full colour resolution.

    Quality goes to 100, which is lossless; readers heed the profile of the colour space before its numbers. EXIF, as a
    TIFF of its own, and XMP may be empty.
    """
    encoded = imagecodecs.avif_encode(
        values,
        level=quality,
        speed=6,
        bitspersample=bits,
        pixelformat="444",
        primaries=space.cicp[0],
        transfer=space.cicp[1],
        matrix=_IDENTITY if quality == _LOSSLESS else _BT601,
    )
    try:
        return _with_boxes(bytes(encoded), space.icc, exif, xmp)
    except (KeyError, ValueError, struct.error) as error:
        if space.cicp == _UNSPECIFIED:
            raise
        # A later encoder may lay its boxes out otherwise; the numbers of the colour space are in the file already.
        notice(f"AVIF without date, author, settings and profile: {error}")
        return bytes(encoded)


def _with_boxes(data: bytes, icc: bytes, exif: bytes, xmp: bytes) -> bytes:
    top = dict(boxes(data))
    if list(top) != [b"ftyp", b"meta", b"mdat"]:
        raise ValueError("the AVIF encoder makes other boxes than are known")
    meta = dict(boxes(top[b"meta"][4:]))
    items = [(b"Exif", b"\0", b"\0\0\0\0" + exif)] if exif else []  # the zeros: where the TIFF begins in it
    items += [(b"mime", b"\0application/rdf+xml\0", xmp)] if xmp else []
    meta[b"iprp"] = _with_profile(meta[b"iprp"], meta[b"pitm"], icc)
    locations = _locations(meta[b"iloc"])
    numbers = range(max(locations) + 1, max(locations) + 1 + len(items))
    main = meta[b"pitm"][4:6]
    entries = meta[b"iinf"][6:]
    references = meta.get(b"iref", b"\0\0\0\0")
    for number, (kind, about, _) in zip(numbers, items, strict=True):
        entries += _box(b"infe", b"\2\0\0\0" + struct.pack(">HH", number, 0) + kind + about)
        references += _box(b"cdsc", struct.pack(">HH", number, 1) + main)
    meta[b"iinf"] = b"\0\0\0\0" + struct.pack(">H", len(locations) + len(items)) + entries
    if items:
        meta[b"iref"] = references
    content = b"".join(part for _, _, part in items)
    # Places in the file move by what the boxes before them have grown.
    size = 4 + sum(8 + len(box) for box in meta.values()) - len(meta[b"iloc"]) + 8 + 14 * (len(locations) + len(items))
    grown = size - len(top[b"meta"])
    moved = {number: (offset + grown, length) for number, (offset, length) in locations.items()}
    start = len(data) + grown + 8
    for number, (_, _, part) in zip(numbers, items, strict=True):
        moved[number] = (start, len(part))
        start += len(part)
    meta[b"iloc"] = b"\0\0\0\0\x44\0" + struct.pack(">H", len(moved))
    meta[b"iloc"] += b"".join(struct.pack(">HHHII", number, 0, 1, *place) for number, place in moved.items())
    top[b"meta"] = b"\0\0\0\0" + b"".join(_box(kind, box) for kind, box in meta.items())
    return b"".join(_box(kind, box) for kind, box in top.items()) + (_box(b"mdat", content) if items else b"")


def _with_profile(iprp: bytes, pitm: bytes, icc: bytes) -> bytes:
    """Item properties with an ICC profile for the main item."""
    parts = dict(boxes(iprp))
    number = len(list(boxes(parts[b"ipco"]))) + 1
    parts[b"ipco"] += _box(b"colr", b"prof" + icc)
    ipma = parts[b"ipma"]
    changed, position = ipma[:8], 8
    for _ in range(struct.unpack(">I", ipma[4:8])[0]):
        item, count = ipma[position : position + 2], ipma[position + 2]
        used = ipma[position + 3 : position + 3 + count]
        used += bytes([number]) if item == pitm[4:6] else b""
        changed += item + bytes([len(used)]) + used
        position += 3 + count
    parts[b"ipma"] = changed
    return b"".join(_box(kind, box) for kind, box in parts.items())


def _locations(iloc: bytes) -> dict[int, tuple[int, int]]:
    """Where items lie and how long they are, by their numbers."""
    if iloc[:6] != b"\0\0\0\0\x44\0":
        raise ValueError("the AVIF encoder places its items in another way than is known")
    return {
        number: (offset, length)
        for number, _, extents, offset, length in struct.iter_unpack(">HHHII", iloc[8:])
        if extents == 1
    }


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content
