"""ReLU and pooling over windows of 2x2 as arithmetic of integers, and where the gradient of each window goes.

Positive floating-point numbers are ordered as the integers that their bits are, and a CPU has instructions for integers
of 16 bits where it has to widen bfloat16 and narrow it again: pooling takes a quarter of the time. Numbers that are not
positive become 0 by ReLU, so their order does not matter. All tensors have channels innermost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_TOGETHER, _BITS = 4, 4  # codes in 16 bits


def as_integers(values: Tensor) -> Tensor:
    """View floating-point numbers as integers of the same size."""
    return values.view(_INTEGERS[values.element_size()])


class Codes:
    """A number from 0 to 15 for each window of a map (height, width, channels), in half a byte.

    Args:
        packed: (height, a quarter of the width, channels), int16: numbers that lie a quarter apart share an integer.
        width: Windows across.
    """

    def __init__(self, packed: Tensor, width: int) -> None:
        self.packed = packed
        self.shape = packed.shape[0], width, packed.shape[2]
        self._quarter = packed.shape[1]

    @classmethod
    def empty(cls, height: int, width: int, channels: int, like: Tensor) -> Codes:
        """Room for all numbers, on the device of ``like``."""
        return cls(like.new_empty(height, -(-width // _TOGETHER), channels, dtype=torch.int16), width)

    def blank(self, like: Tensor, rows: int) -> Tensor:
        """Room for the codes of some rows, (rows, width, channels), for `write`: integers of the size of ``like``."""
        _, width, channels = self.shape
        room = like.new_empty(rows, _TOGETHER * self._quarter, channels, dtype=_INTEGERS[like.element_size()])
        room[:, width:].zero_()
        return room[:, :width]

    def write(self, first: int, codes: Tensor) -> None:
        """Store rows of codes, from `blank`."""
        rows, _, channels = codes.shape
        room = codes.as_strided((rows, _TOGETHER, self._quarter, channels), self._strides(channels))
        packed = self.packed[first : first + rows]
        if codes.dtype != packed.dtype:
            room = room.to(packed.dtype)
        packed.copy_(room[:, 0])
        for index in range(1, _TOGETHER):
            packed.add_(room[:, index], alpha=1 << (_BITS * index))

    def read(self, first: int, stop: int, like: Tensor) -> Tensor:
        """Rows of codes, as integers of the size of ``like``."""
        _, width, channels = self.shape
        packed = self.packed[first:stop].to(_INTEGERS[like.element_size()])
        room = packed.new_empty(stop - first, _TOGETHER * self._quarter, channels)
        parts = room.as_strided((stop - first, _TOGETHER, self._quarter, channels), self._strides(channels))
        for index in range(_TOGETHER):
            torch.bitwise_right_shift(packed, _BITS * index, out=parts[:, index])
        return room.bitwise_and_((1 << _BITS) - 1)[:, :width]

    def _strides(self, channels: int) -> tuple[int, int, int, int]:
        return _TOGETHER * self._quarter * channels, self._quarter * channels, channels, 1


def pool_max(rows: Tensor, pooled: Tensor, codes: Tensor) -> None:
    """ReLU, the largest of each window, and one more than which it is; 0 if it is not positive.

    Pixels are numbered 0 to 3 row by row; of equal ones it is the left column's, and of that the upper.

    Args:
        rows: (2 h, 2 w, C), overwritten.
        pooled: (h, w, C), for the result.
        codes: (h, w, C), from `Codes.blank`.
    """
    values, result = as_integers(rows), as_integers(pooled)
    upper, lower = values[0::2], values[1::2]
    below = compared(torch.gt, lower, upper)
    largest = torch.maximum(upper, lower, out=upper)
    left, right = largest[:, 0::2], largest[:, 1::2]
    beside = compared(torch.gt, right, left)
    torch.maximum(left, right, out=result).clamp_min_(0)
    row = torch.sub(below[:, 1::2], below[:, 0::2], out=codes).mul_(beside).add_(below[:, 0::2])  # of the chosen column
    torch.add(beside, row, alpha=2, out=codes)
    codes.add_(1).mul_(torch.gt(result, 0, out=beside))


def pool_mean(rows: Tensor, pooled: Tensor, codes: Tensor) -> None:
    """ReLU, the mean of each window, and which of its pixels are positive, a bit each; as `pool_max`."""
    corners = [rows[i::2, j::2].relu() for i in (0, 1) for j in (0, 1)]
    torch.gt(as_integers(corners[0]), 0, out=codes)
    for index, corner in enumerate(corners[1:], start=1):
        codes.add_(compared(torch.gt, as_integers(corner), 0), alpha=1 << index)
    torch.mul((corners[0].add_(corners[1])).add_(corners[2].add_(corners[3])), 0.25, out=pooled)


def taken_by_max(codes: Tensor, pixel: int) -> Tensor:
    """1 where a pixel of the window, 0 to 3, takes its gradient, 0 elsewhere; from the codes of `pool_max`."""
    return compared(torch.eq, codes, pixel + 1)


def taken_by_mean(codes: Tensor, pixel: int) -> Tensor:
    """The same for the codes of `pool_mean`."""
    return (codes >> pixel).bitwise_and_(1)


def compared(compare: Callable[..., Tensor], one: Tensor, other: Tensor | float) -> Tensor:
    """A comparison as numbers of the operand's own type: those that give booleans are not vectorised."""
    result: Tensor = compare(one, other, out=torch.empty_like(one, memory_format=torch.contiguous_format))
    return result
