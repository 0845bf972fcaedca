"""Where a convolution that works strip by strip reads its input and writes its result, with ReLU and pooling.

Both are computed, forwards and backwards, on a strip that lies in the cache; a feature map that nobody
asked for never exists at full size. All maps have one picture and channels innermost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

Pool = Literal["max", "average"]


class Source:
    """Input of a convolution: a map of (height, width, channels)."""

    shape: tuple[int, int, int]  # height, width and channels

    @property
    def most_channels(self) -> int:
        """Largest number of channels that a row has on its way."""
        return self.shape[2]

    def read(self, first: int, into: Tensor) -> None:
        """Fill ``into`` (rows, width, channels) with the rows from ``first`` on."""
        into.copy_(self.rows(first, len(into)))

    def rows(self, first: int, count: int) -> Tensor:
        """Some rows (count, width, channels), contiguous, to read only."""
        raise NotImplementedError


class Sink(Protocol):
    """Result of a convolution."""

    result: Tensor  # (1, C, H, W)
    most_channels: int  # largest number of channels that a row has on its way

    def write(self, top: int, rows: Tensor) -> None:
        """Write (n, width, channels), the rows from ``top`` on; both are even but for the last ones.

        They may reach beyond the lower and right border, and are overwritten.
        """
        ...


def _rows(feature_map: Tensor) -> Tensor:
    """View a map (1, C, H, W) as (H, W, C)."""
    return feature_map.permute(0, 2, 3, 1)[0]


def _empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    shape, innermost = (1, channels, height, width), torch.channels_last
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=innermost)


class MapSource(Source):
    """A map (1, C, H, W) as it is."""

    def __init__(self, x: Tensor) -> None:
        self._values = _rows(x)
        self.shape = x.shape[2], x.shape[3], x.shape[1]

    def read(self, first: int, into: Tensor) -> None:
        """Copy rows from ``first`` on, once, in whatever order the map's dimensions lie."""
        into.copy_(self._values[first : first + len(into)])

    def rows(self, first: int, count: int) -> Tensor:
        """Some rows, a view if channels lie innermost."""
        return self._values[first : first + count].contiguous()


class _ComputedSource(Source):
    """Rows that are computed when they are asked for, by a `read` of its own."""

    _gradient: Tensor

    def rows(self, first: int, count: int) -> Tensor:
        into = self._gradient.new_empty(count, *self.shape[1:])
        self.read(first, into)
        return into


class ReluSource(_ComputedSource):
    """The gradient before ReLU, from that after it and what ReLU returned, (1, C, H, W) both."""

    def __init__(self, gradient: Tensor, result: Tensor) -> None:
        self._gradient, self._result = _rows(gradient), _rows(result)
        self.shape = result.shape[2], result.shape[3], result.shape[1]

    def read(self, first: int, into: Tensor) -> None:
        """Copy rows, with zeros where ReLU's result is zero."""
        here = slice(first, first + into.shape[0])
        torch.ops.aten.threshold_backward.grad_input(self._gradient[here], self._result[here], 0, grad_input=into)


class PooledSource(_ComputedSource):
    """The gradient (1, C, H, W) before ReLU and pooling over windows of 2x2.

    It comes from that after pooling, (1, C, H // 2, W // 2), and the codes of `PooledSink`; the size is H and W.
    """

    def __init__(self, gradient: Tensor, codes: Tensor, size: tuple[int, int], pool: Pool) -> None:
        self._gradient, self._codes = _rows(gradient / 4 if pool == "average" else gradient), _rows(codes)
        self._one = pool == "max"  # whether one pixel of a window counts at most
        self.shape = *size, codes.shape[1]

    def read(self, first: int, into: Tensor) -> None:
        """Copy each window's gradient to the pixels that it came from."""
        down, across, _ = self._codes.shape
        rows = into.shape[0]
        into[max(0, 2 * down - first) :].zero_()  # odd last row and column, which pooling leaves out
        into[:, 2 * across :].zero_()
        for i in (0, 1):
            top = first + (first + i) % 2  # the first row that lies at i in its window
            count = min(-(-(first + rows - top) // 2), down - top // 2)
            if count <= 0:
                continue
            windows = slice(top // 2, top // 2 + count)
            gradient, codes = self._gradient[windows], self._codes[windows]
            if self._one:
                codes = codes.to(gradient.dtype)
            targets = into[top - first :: 2][:count]
            for j in (0, 1):
                # Multiplication with 0 or 1 is vectorised, as are comparisons that return numbers; `where` is not.
                if self._one:
                    chosen = _compared(torch.eq, codes, 1 << (2 * i + j))
                else:
                    chosen = (codes >> (2 * i + j)).bitwise_and_(1).to(gradient.dtype)
                torch.mul(gradient, chosen, out=targets[:, j : 2 * across : 2])


class MapSink:
    """A map, after ReLU if asked for, of a type and on a device like another's."""

    def __init__(self, like: Tensor, channels: int, height: int, width: int, relu: bool = False) -> None:
        self.result = _empty(like, channels, height, width)
        self.most_channels = channels
        self._values, self._relu = _rows(self.result), relu

    def write(self, top: int, rows: Tensor) -> None:
        """Copy rows, and apply ReLU."""
        here = self._values[top : top + len(rows)]
        rows = rows[: len(here), : here.shape[1]]
        if self._relu:
            torch.clamp_min(rows, 0, out=here)
        else:
            here.copy_(rows)


class PooledSink:
    """A map after ReLU, pooled over windows of 2x2, and a byte a window that says where its gradient goes.

    Bit 2 i + j of a code is set if the pixel at row i and column j of the window counts: for the mean each positive
    one, for the maximum one of the largest, if it is positive: the left column's, and of that the upper. Height and
    width are those of the map that is pooled.
    """

    def __init__(self, like: Tensor, channels: int, height: int, width: int, pool: Pool) -> None:
        self.result = _empty(like, channels, height // 2, width // 2)
        self.codes = _empty(like, channels, height // 2, width // 2, torch.uint8)
        self.most_channels = channels
        self._pool = pool

    def write(self, top: int, rows: Tensor) -> None:
        """Apply ReLU and pool."""
        here = slice(top // 2, top // 2 + len(rows) // 2)
        pooled, codes = _rows(self.result)[here], _rows(self.codes)[here]
        rows = rows[: 2 * pooled.shape[0], : 2 * pooled.shape[1]]
        (_max if self._pool == "max" else _mean)(rows, pooled, codes)


def _max(rows: Tensor, pooled: Tensor, codes: Tensor) -> None:
    """Largest of each window and which it is; rows (2 h, 2 w, C), results (h, w, C)."""
    upper, lower = rows[0::2], rows[1::2]
    below = _compared(torch.gt, lower, upper)
    largest = torch.maximum(upper, lower, out=upper)
    left, right = largest[:, 0::2], largest[:, 1::2]
    beside = _compared(torch.gt, right, left)
    torch.clamp_min(torch.maximum(left, right, out=left), 0, out=pooled)
    # 2 ** (2 below + beside), with what is below in the chosen column
    code = torch.addcmul(below[:, 0::2], below[:, 1::2] - below[:, 0::2], beside).mul_(3).add_(1)
    code.addcmul_(code, beside).mul_(torch.gt(pooled, 0, out=beside))
    codes.copy_(code)


def _mean(rows: Tensor, pooled: Tensor, codes: Tensor) -> None:
    """Mean of each window's pixels after ReLU and which are positive; as `_max`."""
    corners = [rows[i::2, j::2].relu() for i in (0, 1) for j in (0, 1)]
    total = _compared(torch.gt, corners[0], 0)
    for power, corner in enumerate(corners[1:], start=1):
        total.add_(_compared(torch.gt, corner, 0), alpha=2**power)
    codes.copy_(total)
    torch.mul((corners[0].add_(corners[1])).add_(corners[2].add_(corners[3])), 0.25, out=pooled)


def _compared(compare: Callable[..., Tensor], one: Tensor, other: Tensor | float) -> Tensor:
    """A comparison as numbers of the operand's own type: those that give booleans are not vectorised."""
    result: Tensor = compare(one, other, out=torch.empty_like(one, memory_format=torch.contiguous_format))
    return result
