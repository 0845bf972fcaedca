"""Where a convolution that works strip by strip reads its input and writes its result, with ReLU and pooling.

Both are computed, forwards and backwards, on a strip that lies in the cache; a feature map that nobody
asked for never exists at full size. All maps have one picture and channels innermost.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from nst_lightning.features.kernels.windows import (
    Codes,
    as_integers,
    compared,
    pool_max,
    pool_mean,
    taken_by_max,
    taken_by_mean,
)

Pool = Literal["max", "average"]


class Source:
    """Input of a convolution: a map of (height, width, channels)."""

    shape: tuple[int, int, int]  # height, width and channels
    in_memory = False  # whether all of it lies there, so that no strip of it has to be computed

    def read(self, first: int, into: Tensor) -> None:
        """Fill ``into`` (rows, width, channels) with the rows from ``first`` on."""
        into.copy_(self.rows(first, len(into)))

    def rows(self, first: int, count: int) -> Tensor:
        """Some rows (count, width, channels), contiguous, to read only."""
        raise NotImplementedError


class Sink(Protocol):
    """Result of a convolution."""

    in_memory: bool  # whether it keeps all rows as they are, so that they may as well come at once
    relu: bool  # whether they are to be rectified; who writes may do so

    def write(self, top: int, rows: Tensor, rectified: bool = False) -> None:
        """Write (n, width, channels), the rows from ``top`` on; both are even but for the last ones.

        They may reach beyond the lower and right border, and are overwritten.
        """
        ...

    def take(self, rows: Tensor, rectified: bool = False) -> None:
        """Be given all rows, (height, width, channels), in memory that nobody else needs."""
        ...


def _rows(feature_map: Tensor) -> Tensor:
    """View a map (1, C, H, W) as (H, W, C)."""
    return feature_map.permute(0, 2, 3, 1)[0]


def as_map(rows: Tensor) -> Tensor:
    """View (H, W, C) as a map (1, C, H, W)."""
    return rows.permute(2, 0, 1)[None]


def _own_map(rows: Tensor) -> Tensor:
    """The same as a tensor of its own: of what a function of autograd returns, no view may be changed in place."""
    view = as_map(rows)
    return rows.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


class MapSource(Source):
    """A map (1, C, H, W) as it is."""

    in_memory = True

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
        if into.element_size() == 2:  # twice as fast as with numbers that have to be widened
            positive = compared(torch.gt, as_integers(self._result[here]), 0)
            torch.mul(as_integers(self._gradient[here]), positive, out=as_integers(into))
        else:
            torch.ops.aten.threshold_backward.grad_input(self._gradient[here], self._result[here], 0, grad_input=into)


class PooledSource(_ComputedSource):
    """The gradient (1, C, H, W) before ReLU and pooling over windows of 2x2.

    It comes from that after pooling, (1, C, H // 2, W // 2), and the codes of `PooledSink`; the size is H and W.
    """

    def __init__(self, gradient: Tensor, codes: Codes, size: tuple[int, int], pool: Pool) -> None:
        self._gradient, self._codes = _rows(gradient / 4 if pool == "average" else gradient), codes
        self._taken = taken_by_max if pool == "max" else taken_by_mean
        self.shape = *size, codes.shape[2]

    def read(self, first: int, into: Tensor) -> None:
        """Copy each window's gradient to the pixels that it came from."""
        down, across, _ = self._codes.shape
        stop = first + len(into)
        into[max(0, 2 * down - first) :].zero_()  # odd last row and column, which pooling leaves out
        into[:, 2 * across :].zero_()
        above, below = first // 2, min(-(-stop // 2), down)  # windows
        if above >= below:
            return
        codes, targets = self._codes.read(above, below, into), as_integers(into)
        gradient = as_integers(self._gradient[above:below])
        for i in (0, 1):
            here = slice(first % 2 - i == 1, (stop - i + 1) // 2 - above)  # windows whose row i is among these
            rows = targets[2 * (above + here.start) + i - first :: 2][: len(gradient[here])]
            for j in (0, 1):
                taken = self._taken(codes[here], 2 * i + j)
                torch.mul(gradient[here], taken, out=rows[:, j : 2 * across : 2])


class MapSink:
    """A map, after ReLU if asked for, of a type and on a device like another's."""

    in_memory = True

    def __init__(self, like: Tensor, channels: int, height: int, width: int, relu: bool = False) -> None:
        self._like, self._shape, self.relu = like, (height, width, channels), relu
        self._values: Tensor | None = None

    @property
    def result(self) -> Tensor:
        """(1, C, H, W)."""
        return _own_map(self.rows)

    @property
    def rows(self) -> Tensor:
        """All rows, (H, W, C), contiguous."""
        if self._values is None:
            self._values = self._like.new_empty(self._shape)
        return self._values

    def write(self, top: int, rows: Tensor, rectified: bool = False) -> None:
        """Copy rows, and apply ReLU."""
        here = self.rows[top : top + len(rows)]
        rows = rows[: len(here), : here.shape[1]]
        if self.relu and not rectified:
            torch.clamp_min(rows, 0, out=here)
        else:
            here.copy_(rows)

    def take(self, rows: Tensor, rectified: bool = False) -> None:
        """Keep these."""
        self._values = rows.contiguous()
        if self.relu and not rectified:
            self._values.clamp_min_(0)


class PooledSink:
    """A map after ReLU, pooled over windows of 2x2, and `Codes` that say where the gradient of each window goes.

    Height and width are those of the map that is pooled.
    """

    in_memory, relu = False, False  # pooling rectifies

    def __init__(self, like: Tensor, channels: int, height: int, width: int, pool: Pool) -> None:
        self._pooled = like.new_empty(height // 2, width // 2, channels)
        self.codes = Codes.empty(height // 2, width // 2, channels, like)
        self._pool = pool_max if pool == "max" else pool_mean

    @property
    def result(self) -> Tensor:
        """(1, C, H // 2, W // 2)."""
        return _own_map(self._pooled)

    def write(self, top: int, rows: Tensor, rectified: bool = False) -> None:
        """Apply ReLU and pool."""
        pooled = self._pooled[top // 2 : top // 2 + len(rows) // 2]
        codes = self.codes.blank(rows, len(pooled))
        self._pool(rows[: 2 * pooled.shape[0], : 2 * pooled.shape[1]], pooled, codes)
        self.codes.write(top // 2, codes)

    def take(self, rows: Tensor, rectified: bool = False) -> None:
        """Apply ReLU and pool."""
        self.write(0, rows, rectified)
