"""Where a convolution that works strip by strip reads its input and writes its result, and what happens on the way.

Rectifier and pooling are done, forwards and backwards, on a strip that lies in the cache; a feature map that nobody
asked for never exists at full size. All maps have one picture and channels innermost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

Pool = Literal["max", "average"]

TILE = 4  # results come in tiles of 4x4, a multiple of what pooling takes together


class Source(Protocol):
    """Input of a convolution: a map of (height, width, channels)."""

    shape: tuple[int, int, int]

    def read(self, first: int, into: Tensor) -> None:
        """Fill ``into`` (rows, width, channels) with the rows from ``first`` on."""
        ...


class Sink(Protocol):
    """Result of a convolution."""

    result: Tensor

    def write(self, top: int, tiles: Tensor) -> None:
        """Take (4, 4, down, across, channels): row and column in a tile of 4x4, tile rows from row ``top`` on, tiles.

        Tiles may reach beyond the lower and right border.
        """
        ...


def read_strips(source: Source, rows: int, like: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Read a map with a border of one pixel, zero beyond the map.

    Args:
        source: The map.
        rows: Rows of tiles at a time.
        like: Type and device.

    Yields:
        The first row of tiles, how many there are, and (4 n + 2, 4 across + 2, C) values, overwritten by the next.
    """
    height, width, channels = source.shape
    down, across = tiles_of(source)
    padded = like.new_zeros(TILE * rows + 2, TILE * across + 2, channels)  # its outer columns stay zero
    for top in range(0, down, rows):
        strip = min(rows, down - top)
        first, last = TILE * top - 1, min(TILE * (top + strip) + 1, height)  # rows that these tiles see
        above = max(0, -first)
        seen = last - first - above
        padded[:above].zero_()
        source.read(first + above, padded[above : above + seen, 1 : width + 1])
        padded[above + seen :].zero_()
        yield top, strip, padded[: TILE * strip + 2]


def tiles_of(source: Source) -> tuple[int, int]:
    """Tiles down and across, the last ones maybe beyond the border."""
    return -(-source.shape[0] // TILE), -(-source.shape[1] // TILE)


def _rows(feature_map: Tensor) -> Tensor:
    """View a map (1, C, H, W) as (H, W, C)."""
    return feature_map.permute(0, 2, 3, 1)[0]


def _empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(
        (1, channels, height, width),
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def _scatter(values: Tensor, target: Tensor, bias: Tensor | None = None) -> None:
    """Write (i, j, down, across, channels), i and j inside a cell, to rows (i · down, width, channels), cut to fit."""
    i, j, down, across, channels = values.shape
    values = values.permute(2, 0, 3, 1, 4)
    fits = target.numel() == values.numel()
    whole = target if fits else target.new_empty(down * i, across * j, channels)
    if bias is None:
        whole.view(values.shape).copy_(values)
    else:
        torch.add(values, bias, out=whole.view(values.shape))
    if not fits:
        target.copy_(whole[: target.shape[0], : target.shape[1]])


class MapSource:
    """A map as it is.

    Args:
        x: (1, C, H, W).
    """

    def __init__(self, x: Tensor) -> None:
        self._values = _rows(x)
        self.shape = x.shape[2], x.shape[3], x.shape[1]

    def read(self, first: int, into: Tensor) -> None:
        """Copy rows; see the protocol."""
        into.copy_(self._values[first : first + into.shape[0]])


class RectifiedSource:
    """The gradient before a rectifier.

    Args:
        gradient: After the rectifier, (1, C, H, W).
        result: What the rectifier returned, (1, C, H, W).
    """

    def __init__(self, gradient: Tensor, result: Tensor) -> None:
        self._gradient, self._result = _rows(gradient), _rows(result)
        self.shape = result.shape[2], result.shape[3], result.shape[1]

    def read(self, first: int, into: Tensor) -> None:
        """Copy rows, with zeros where the rectifier's result is zero; see the protocol."""
        here = slice(first, first + into.shape[0])
        torch.ops.aten.threshold_backward.grad_input(self._gradient[here], self._result[here], 0, grad_input=into)


class PooledSource:
    """The gradient before a rectifier and pooling over cells of 2x2.

    Args:
        gradient: After pooling, (1, C, H // 2, W // 2).
        codes: From `PooledSink`.
        size: H and W.
        pool: Kind of pooling.
    """

    def __init__(self, gradient: Tensor, codes: Tensor, size: tuple[int, int], pool: Pool) -> None:
        self._gradient, self._codes = _rows(gradient / 4 if pool == "average" else gradient), _rows(codes)
        self.shape = *size, codes.shape[1]

    def read(self, first: int, into: Tensor) -> None:
        """Hand each cell's gradient to the pixels that it came from; see the protocol."""
        down, across, _ = self._codes.shape
        rows = into.shape[0]
        into[max(0, 2 * down - first) :].zero_()  # odd last row and column, which pooling leaves out
        into[:, 2 * across :].zero_()
        for i in (0, 1):
            top = first + (first + i) % 2  # the first row that lies at i in its cell
            count = min(-(-(first + rows - top) // 2), down - top // 2)
            if count <= 0:
                continue
            cells = slice(top // 2, top // 2 + count)
            gradient, codes = self._gradient[cells], self._codes[cells]
            targets = into[top - first :: 2][:count]
            for j in (0, 1):
                # Comparisons and `where` are not vectorised; multiplication with 0 or 1 is, and several times faster.
                chosen = (codes >> (2 * i + j)).bitwise_and_(1).to(gradient.dtype)
                torch.mul(gradient, chosen, out=targets[:, j : 2 * across : 2])


class MapSink:
    """A map, with a bias added and rectified if asked for.

    Args:
        like: Type and device.
        channels: C.
        height: H.
        width: W.
        bias: (C,) or None.
        rectify: Whether negative values become zero.
    """

    def __init__(
        self, like: Tensor, channels: int, height: int, width: int, bias: Tensor | None = None, rectify: bool = False
    ) -> None:
        self.result = _empty(like, channels, height, width)
        self._values, self._bias, self._rectify = _rows(self.result), bias, rectify

    def write(self, top: int, tiles: Tensor) -> None:
        """Put tiles side by side; see the protocol."""
        here = self._values[top : top + tiles.shape[0] * tiles.shape[2]]
        _scatter(tiles, here, self._bias)
        if self._rectify:
            here.relu_()


class PooledSink:
    """A rectified map, pooled over cells of 2x2, and a byte a cell that says where its gradient goes.

    Bit 2 i + j of a code is set if the pixel at row i and column j of the cell takes part: for the mean each positive
    one, for the maximum the first of the largest, if it is positive.

    Args:
        like: Type and device.
        channels: C.
        height: Of the map that is pooled.
        width: Of the map that is pooled.
        bias: (C,) or None.
        pool: Kind of pooling.
    """

    def __init__(self, like: Tensor, channels: int, height: int, width: int, bias: Tensor | None, pool: Pool) -> None:
        self.result = _empty(like, channels, height // 2, width // 2)
        self.codes = _empty(like, channels, height // 2, width // 2, torch.uint8)
        self._bias, self._pool = bias, pool

    def write(self, top: int, tiles: Tensor) -> None:
        """Rectify and pool tiles; see the protocol."""
        halves = tiles.view(2, 2, 2, 2, *tiles.shape[2:])  # (2, i, 2, j, down, across, C): four cells a tile
        corners = [halves[:, i, :, j] for i in (0, 1) for j in (0, 1)]
        if self._pool == "max":
            pooled = torch.maximum(torch.maximum(*corners[:2]), torch.maximum(*corners[2:]))
            codes = _bits(torch.eq, corners, pooled)
            codes &= -codes  # the lowest bit: of equals only the first
            if self._bias is not None:  # the same for all four, so the largest stays the largest
                pooled.add_(self._bias)
            pooled.relu_()
            codes *= torch.gt(pooled, 0, out=torch.empty_like(pooled)).to(torch.uint8)
        else:
            corners = [(corner if self._bias is None else corner + self._bias).relu() for corner in corners]
            codes = _bits(torch.gt, corners, torch.zeros((), dtype=tiles.dtype, device=tiles.device))
            pooled = (corners[0].add_(corners[1])).add_(corners[2].add_(corners[3])).mul_(0.25)
        here = slice(top // 2, top // 2 + 2 * tiles.shape[2])
        _scatter(pooled, _rows(self.result)[here])
        _scatter(codes, _rows(self.codes)[here])


def _bits(compare: Callable[..., Tensor], corners: list[Tensor], other: Tensor) -> Tensor:
    """Put comparisons together, the first as the lowest bit, into uint8.

    Their results are numbers of the corners' own type: comparisons that give booleans are not vectorised.
    """
    total, flag = torch.empty_like(corners[0]), torch.empty_like(corners[0])
    compare(corners[0], other, out=total)
    for power, corner in enumerate(corners[1:], start=1):
        total.add_(compare(corner, other, out=flag), alpha=2**power)
    return total.to(torch.uint8)
