"""Some cells of a picture that stand for all of them, at the same places in every evaluation, whole and in tiles.

The matrix of their features is a sum over windows, each of which fills the rows of the cells that lie in it. So what
compares cells with each other, however far apart they are, works in tiles and on several processes as any statistic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.losses.reference import Sharing, Window, at_least_float32


@dataclass(frozen=True, eq=False)
class Places:
    """Where cells of a map lie, and how much each counts.

    Rows and columns are on the CPU: which of them lie in a window is then known without waiting for a device.
    """

    rows: Tensor  # (n,), integers
    columns: Tensor  # (n,), integers
    weights: Tensor  # (n,), at least 0, with the sum 1
    _known: dict[Any, Tensor] = field(default_factory=dict, repr=False)  # what `within` returned before

    @classmethod
    def of(cls, window: Window, most: int, like: Tensor) -> Places:
        """Places in the map of a window, so many at most, with weights of the type and on the device of a tensor.

        There is one in each of equal rectangles. Where cells have weights those without any are left out, and the
        rectangles are smaller, so that a small region has as many places as all of a picture.
        """
        height, width = window.height, window.width
        if window.map_weights is None:
            rows, columns = _scattered(height, width, most)
            return cls(rows, columns, like.new_full((len(rows),), 1 / len(rows)))
        weights = window.map_weights[0, 0].cpu()
        counting = weights > 0
        found = max(1, int(counting.sum()))
        rows, columns = _scattered(height, width, most * height * width // found)
        within = counting[rows, columns]
        rows, columns = rows[within], columns[within]
        if 2 * len(rows) < min(most, found):  # the mask is finer than the rectangles
            rows, columns = counting.nonzero().unbind(1) if found > 1 else torch.tensor([[0], [0]])
        chosen = _spread(len(rows), most)
        rows, columns = rows[chosen], columns[chosen]
        given = weights[rows, columns].to(like)
        return cls(rows, columns, given / given.sum())

    def within(self, window: Window, size: tuple[int, int], device: torch.device) -> Tensor:
        """Those in a window of so many rows and columns, (3, k) on a device: which, and their rows and columns.

        They are brought there once: the window comes again with each evaluation, and a device makes the host wait for
        what it is sent.
        """
        key = window.rows.start, window.columns.start, size, device
        if key not in self._known:
            rows, columns = self.rows - window.rows.start, self.columns - window.columns.start
            here = ((rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])).nonzero()[:, 0]
            self._known[key] = torch.stack([here, rows[here], columns[here]]).to(device)
        return self._known[key]


def _spread(length: int, most: int) -> Tensor:
    """Evenly spaced indices of a list, the middles of as many equal parts, (n,) with n at most `most`."""
    count = min(length, most)
    return (2 * torch.arange(count) + 1) * length // (2 * count)


def division(height: int, width: int, most: int) -> tuple[int, int]:
    """How many rectangles, as square as may be, a map is divided into down and across: `most` of them at the most."""
    down = max(1, min(height, most, round((most * height / width) ** 0.5)))
    across = max(1, min(width, most // down))
    return max(1, min(height, most // across)), across


def _scattered(height: int, width: int, most: int) -> tuple[Tensor, Tensor]:
    """Rows and columns, (n,) each, of one cell in each of equal rectangles, at random, the same ones always.

    On a lattice all places have the same phase to a pattern of its period, and a picture that shall be alike in all of
    them takes that pattern on.
    """
    down, across = division(height, width, most)
    generator = torch.Generator().manual_seed(0)
    found = []
    for index, (length, count) in enumerate(((height, down), (width, across))):
        ends = torch.arange(count + 1) * length // count
        within = torch.rand(down, across, generator=generator, dtype=torch.float64)
        start, size = ends[:-1], ends.diff()
        if index == 0:
            start, size = start[:, None], size[:, None]
        found.append((start + (within * size).long()).flatten())
    return found[0], found[1]


def gathered(features: Tensor, window: Window, places: Places) -> Tensor:
    """Features at places of the map, (n, C) in float32 or wider, of those that lie in the window; the others' are 0.

    Args:
        features: (1, C, rows, columns) of the window.
        window: Where these lie.
        places: In the whole map.
    """
    index = places.within(window, (features.shape[-2], features.shape[-1]), features.device)
    result: Tensor = _Gathered.apply(features, index, len(places.rows))
    return result


class _Gathered(torch.autograd.Function):
    """`gathered`; nothing is kept of the features, and the gradient lies in memory as they do."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: Tensor, count: int) -> Tensor:
        here, rows, columns = index
        innermost = features.is_contiguous(memory_format=torch.channels_last) or features.stride(1) == 1
        ctx.layout = torch.channels_last if innermost else torch.contiguous_format
        ctx.shape, ctx.dtype = features.shape, features.dtype
        ctx.save_for_backward(index)
        cells = at_least_float32(features[0].permute(1, 2, 0)[rows, columns])
        return cells.new_zeros(count, features.shape[1]).index_copy_(0, here, cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        here, rows, columns = ctx.saved_tensors[0]
        gradient = torch.empty(ctx.shape, dtype=ctx.dtype, device=upstream.device, memory_format=ctx.layout).zero_()
        gradient[0].permute(1, 2, 0)[rows, columns] = upstream[here].to(ctx.dtype)
        return gradient, None, None


class Cells(NamedTuple):
    """Cells of a picture at a layer."""

    features: Tensor  # (n, C), float32 or wider
    places: Places
    total: float  # sum of the weights of all cells of the map


class Gathering:
    """Gathers the cells of a picture at `Places`.

    Args:
        most: How many, at most.
    """

    sharing: Sharing = "all"

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: Places | None = None
        self._features: Tensor | None = None

    def add(self, features: Tensor, window: Window) -> None:
        """Take those that lie in a window."""
        if self._places is None:
            self._places = Places.of(window, self._most, at_least_float32(features[0, 0, 0]))
        here = gathered(features, window, self._places)
        self._features = here if self._features is None else self._features + here

    def sums(self) -> list[Tensor]:
        """Nothing is summed over processes: each sees all windows."""
        return []

    def result(self, cells: float) -> Cells:
        """The cells."""
        assert self._features is not None
        assert self._places is not None
        return Cells(self._features, self._places, cells)
