"""WebP whose lengths are wrong, or that lacks its last bytes: libwebp reads neither."""

import re
import struct

from nst_lightning.images.mending.damage import Mended, told

_NAME = re.compile(rb"[A-Z0-9 ]{4}", re.IGNORECASE)
_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")


def accepts(start: bytes) -> bool:
    """Whether a file that starts so is a WebP."""
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def mend(data: bytes, pixels: bool) -> Mended | None:
    """Give a WebP the length that its chunks have, and zeros for what its last chunk lacks; None if it is sound."""
    place, end, frames, missing = 12, 12, 0, 0.0
    while place + 8 <= len(data) and _NAME.match(data, place):
        kind, length = struct.unpack_from("<4sI", data, place)
        frames += kind in _PIXELS
        there = min(length, len(data) - place - 8)
        if there < length and (kind in _PIXELS or kind == b"ALPH") and frames <= 1:
            missing = 1 - there / length
        end = place + 8 + length
        place = end + length % 2
    if place > len(data) + _MOST_PADDED * len(data):
        return None
    (said_length,) = struct.unpack_from("<I", data, 4)
    if end <= said_length + 8 <= min(place, len(data)):
        return None
    body = data[12:place].ljust(place - 12, b"\0")
    cut = end > len(data)
    said = told(missing) if cut and pixels else "says that it has another length than it has"
    return Mended(b"RIFF" + struct.pack("<I", place - 8) + b"WEBP" + body, said)


_MOST_PADDED = 4  # a stated length of more than so many times the file's own is damaged
