"""What an evaluation of a network of convolutions holds, in bytes a pixel: on its way forward, and on the way back.

On the way forward each convolution leaves what its pass back needs: the rectified map, which terms share, or half a
byte a window where pooling follows at once; and terms leave what theirs need. On the way back a layer's own are there
until it is through, and besides, one after the other:

- where terms look at the layer, the gradient that comes from below it and that of the terms;
- the gradient that comes to the convolution, and that which it hands on.

Where only a part of each map is looked at, as in a tile with a border, the terms' gradient is there twice: of the part,
and with zeros around it.

Where each operation is one of PyTorch's own, as on accelerators (`footprint_of_operations`), the rectified map stays
under a pooling, too, and so does what is pooled, and the picture as the network sees it. On the way back there are
besides, one after the other:

- the gradient of what was pooled, that of the map, and the windows' winners, which are found again: their values, and
  8 bytes for the place of each;
- the gradient before and behind the rectifier;
- that behind it, and the one which the convolution hands on, when the map itself is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_PLACE = 8  # bytes that say which value of a window is the largest


class Step(NamedTuple):
    """A convolution with what follows it, in values a pixel of the image."""

    inputs: float  # of the map that it sees
    values: float  # of its result
    looked_at: bool  # whether terms do
    pooled: bool  # whether pooling follows at once, in the same pass
    maps: int = 1  # of its size that stay: two if terms look at it before the rectifier
    held: float = 0.0  # what terms leave, as often as the result is large


class Footprint(NamedTuple):
    """Bytes a pixel."""

    kept: float  # between the way forward and the way back
    whole: float  # the most that is there at a time
    part: float  # likewise, where terms look at a part of each map


def footprint(steps: Sequence[Step], itemsize: int) -> Footprint:
    """What passes forward and back through some steps hold, with so many bytes a value."""
    left = [s.values / 8 if s.pooled else (s.maps + s.held) * s.values * itemsize for s in steps]
    kept = whole = part = sum(left)
    before = kept
    for index in range(len(steps) - 1, -1, -1):
        step, last = steps[index], index == len(steps) - 1
        size = step.values * itemsize
        if step.looked_at:
            of_terms = before + size * (1 if last else 2)
            whole, part = max(whole, of_terms), max(part, of_terms + size)
        incoming = size / 4 if step.pooled else size
        handing_on = before - step.held * size + incoming + step.inputs * itemsize
        whole, part = max(whole, handing_on), max(part, handing_on)
        before -= left[index]
    return Footprint(kept, whole, part)


def on_the_way(steps: Sequence[Step], itemsize: int) -> list[float]:
    """Bytes a pixel that such operations have left when each step's result is there, before any pooling of it."""
    found, total = [], steps[0].inputs if steps else 0.0
    for step in steps:
        total += (step.maps + step.held) * step.values
        found.append(total * itemsize)
        total += step.values / 4 if step.pooled else 0.0
    return found


def footprint_of_operations(steps: Sequence[Step], itemsize: int) -> Footprint:
    """The same of operations each of which makes a map of its own; `Step.pooled` says that one of pooling follows."""
    pooled = [step.values / 4 * itemsize if step.pooled else 0.0 for step in steps]
    left = [(step.maps + step.held) * step.values * itemsize for step in steps]
    kept = whole = part = sum(left) + sum(pooled) + (steps[0].inputs * itemsize if steps else 0.0)
    before = kept
    for index in range(len(steps) - 1, -1, -1):
        step, last = steps[index], index == len(steps) - 1
        size = step.values * itemsize
        there = [before + 2 * pooled[index] + size + _PLACE * step.values / 4 if step.pooled else 0.0]
        before -= pooled[index]
        of_terms = before + size * (1 if last else 2) if step.looked_at else 0.0
        there += [of_terms, before + 2 * size]
        before -= left[index]
        there.append(before + size + step.inputs * itemsize)
        whole, part = max(whole, *there), max(part, *there, of_terms + size if step.looked_at else 0.0)
    return Footprint(kept, whole, part)
