"""Means of a picture's features over blocks of cells, the same blocks in every evaluation, whole and in tiles.

The sums over blocks are sums over windows, each of which adds its cells' to the blocks that they lie in. So what
compares blocks with each other, however far apart they are, works in tiles and on several processes as any statistic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.losses.reference import Sharing, Sum, Window, at_least_float32
from nst_lightning.losses.sampling import division


class Blocks(NamedTuple):
    """How a map is divided into equal rectangles, and how much is in each."""

    down: int
    across: int
    counts: Tensor  # (n,), sums of the weights of a block's cells, or their number
    weights: Tensor  # (n,), the same as shares of the whole

    @classmethod
    def of(cls, window: Window, most: int, like: Tensor) -> Blocks:
        """Blocks of the map of a window, so many at most, nearly square, of the type and on the device of a tensor."""
        height, width = window.height, window.width
        down, across = division(height, width, most)
        weights = like.new_ones(1, height, width) if window.map_weights is None else window.map_weights[0].to(like)
        whole = Window(slice(0, height), slice(0, width), height, width)
        counts = _sums(weights, whole, down, across)[:, 0]
        return cls(down, across, counts, counts / counts.sum().clamp(min=torch.finfo(counts.dtype).tiny))

    def sums(self, features: Tensor, window: Window) -> Tensor:
        """Sums over the cells of each block that lie in a window, as they are weighed; those of other blocks are 0.

        Args:
            features: (1, C, rows, columns) of the window.
            window: Where these lie.

        Returns:
            (n, C), float32 or wider; of bfloat16 to its precision.
        """
        # float16 lacks the range for sums of a block.
        values = features[0].float() if features.dtype == torch.float16 else features[0]
        if window.weights is not None:
            values = values * window.weights[0].to(values.dtype)
        return _sums(values, window, self.down, self.across)

    def counting(self) -> Tensor:
        """Indices of the blocks in which something counts, (n,)."""
        return self.counts.nonzero()[:, 0]

    def means(self, sums: Tensor) -> Tensor:
        """Sums over the whole map (n, C) -> means, (n, C); 0 for a block without any weight."""
        return sums / self.counts.clamp(min=torch.finfo(sums.dtype).tiny)[:, None]


def _sums(values: Tensor, window: Window, down: int, across: int) -> Tensor:
    """(C, rows, columns) -> (n, C), by products of matrices, which have the network's speed."""
    channels, height, width = values.shape
    rows = _members(window.rows, window.height, down, values)
    columns = _members(window.columns, window.width, across, at_least_float32(values[:0]))
    strips = rows @ values.permute(1, 2, 0).reshape(height, width * channels)  # no copy where channels lie innermost
    strips = at_least_float32(strips).view(down, width, channels)
    return (columns @ strips).flatten(0, 1)


def _members(inside: slice, length: int, count: int, like: Tensor) -> Tensor:
    """Which of so many equal parts of a row each cell of a slice lies in: (count, cells), 1 in its own and 0 else."""
    part = ((torch.arange(inside.start, inside.stop, device=like.device) + 1) * count - 1) // length
    return (part == torch.arange(count, device=like.device)[:, None]).to(like)


class BlockMeans(NamedTuple):
    """Of a picture at a layer."""

    means: Tensor  # (n, C), float32 or wider
    blocks: Blocks
    total: float  # sum of the weights of all cells


class BlockReference:
    """Takes the means of a picture's features over blocks.

    Args:
        most: How many blocks, at most.
    """

    sharing: Sharing = "dealt"

    def __init__(self, most: int) -> None:
        self._most, self._sum = most, Sum()
        self._blocks: Blocks | None = None

    def add(self, features: Tensor, window: Window) -> None:
        """Add what lies in a window."""
        if self._blocks is None:
            self._blocks = Blocks.of(window, self._most, at_least_float32(features[0, :1, :1, :1]))
        self._sum.add(self._blocks.sums(features, window))

    def sums(self) -> list[Tensor]:
        """The sums over blocks."""
        return self._sum.tensors()

    def result(self, cells: float) -> BlockMeans:
        """The means."""
        assert self._blocks is not None
        return BlockMeans(self._blocks.means(self._sum.value()), self._blocks, cells)
