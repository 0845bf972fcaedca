"""How much memory judges will take, from the sizes of pictures alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from nst_lightning.images.resize import target_size
from nst_lightning.judging.panel import JUDGES
from nst_lightning.judging.pictures import size_of_style
from nst_lightning.judging.tiles import make_tiles

Size = tuple[int, int]  # height and width

# Bytes a pixel of a picture, and of one that is being read: samples, and their conversion to sRGB.
_PICTURE, _READING = 12, 36
# A layer of VGG-16 has 256, and nearly four are there at a time. Measured on a CPU, as all that follows.
_LAYERS = 960
_BY_LAYERS = frozenset(("lpips_vgg", "gram", "sliced"))
_NETWORKS = {
    "alexnet": 10 << 20,
    "vgg16": 130 << 20,
}  # bytes of their convolutions, and in the form that is computed with
_WORKING_SPACE, _OF_CONVOLUTIONS = 30 << 20, 45 << 20  # bytes of libraries when they are first used


class _Look(NamedTuple):
    """What comes and goes while a judge looks."""

    whole: int  # bytes a pixel of the picture
    reduced: int = 0  # bytes a pixel of what that is reduced to
    to: int = 0  # px of a side there
    side: Literal["long", "short", "both"] = "long"


_LOOKS = {
    "lpips_alex": _Look(120),
    "dists": _Look(24, 850, 256, "short"),
    "cfsd": _Look(24, 1000, 512, "long"),
    "colors": _Look(45, 3250, 256, "both"),
    "hatching": _Look(152),
    "borders": _Look(12),
    "clipped": _Look(21),
}


def memory_needed(judges: Sequence[str], result: Size, content: Size, style: Size) -> int:
    """Bytes that a process takes for a result at most, beyond those that it has taken when it begins.

    Args:
        judges: Names of judges.
        result: Height and width of the result.
        content: Of the content as it is stored.
        style: Of the style as it is stored.
    """
    seated = size_of_style(style, result)
    stored = _PICTURE * (_area(content) + _area(style))
    # Result and content at its size, and the style; and once more without what lies out of range.
    shown = 2 * _PICTURE * (2 * _area(result) + _area(seated))
    looking = max((_looking(name, result, seated) for name in judges), default=0)
    reading = max(_READING * _area(content), _PICTURE * _area(content) + _READING * _area(style))
    networks = {name for judge in judges for name in JUDGES[judge].networks if name in _NETWORKS}
    once = _WORKING_SPACE + (_OF_CONVOLUTIONS if networks else 0) + sum(_NETWORKS[name] for name in networks)
    return once + max(reading, stored + shown + looking)


def _looking(judge: str, result: Size, style: Size) -> int:
    """Bytes that come and go while a judge looks at pictures of these sizes."""
    if judge in _BY_LAYERS:
        return _LAYERS * max(tile.crop.area for size in (result, style) for tile in make_tiles(*size))
    look = _LOOKS[judge]
    whole = look.whole * max(_area(result), _area(style))
    if not look.reduced:
        return whole
    side = max(result) if look.side == "long" else min(result)
    to = (look.to, look.to) if look.side == "both" else target_size(*result, min(side, look.to), look.side)
    return whole + look.reduced * min(_area(result), _area(to))


def _area(size: Size) -> int:
    return size[0] * size[1]
