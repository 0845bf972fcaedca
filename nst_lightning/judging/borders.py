"""Border lines: a row or column of pixels at the edge that is unlike all those beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.images.recolor import luma

_INNER = 8  # neighbours further in that the outermost step is compared with
SMALLEST = 2 * (_INNER + 2)  # pixels of a side
_SMALLEST_STEP = 1 / 255 / 4


def border_step(picture: Tensor) -> float:
    """Mean step of luma from the outermost row or column to the next, over that of the eight neighbours further in.

    Args:
        picture: (1, 3, H, W), RGB in [0, 1], sides of at least 20 px.

    Returns:
        The mean over the four sides; 1 where the border is like what lies within.
    """
    brightness = luma(picture)[0, 0]
    sides = (brightness, brightness.flip(0), brightness.T, brightness.T.flip(0))
    return sum(map(_step, sides)) / len(sides)


def _step(rows: Tensor) -> float:
    """Of the first row of (H, W)."""
    steps = (rows[1 : _INNER + 2] - rows[: _INNER + 1]).abs().mean(1)
    outer, inner = (float(part.clamp(min=_SMALLEST_STEP)) for part in (steps[0], torch.mean(steps[1:])))
    return outer / inner
