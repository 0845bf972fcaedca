"""What is kept of a content or a style picture at a layer, gathered window by window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from nst_lightning.hardware.numerics import widest_dtype

if TYPE_CHECKING:
    from nst_lightning.losses.term import Layer, Term


class Window(NamedTuple):
    """Some cells of a layer's feature map; a cell is one position, with a value of each channel.

    Attributes:
        rows: Rows of these cells.
        columns: Columns of these cells.
        height: Rows of the whole map.
        width: Columns of the whole map.
        map_weights: How much each cell of the whole map counts, (1, 1, height, width) of at least 0; None: all alike.
    """

    rows: slice
    columns: slice
    height: int
    width: int
    map_weights: Tensor | None = None

    @classmethod
    def whole(cls, features: Tensor, weights: Tensor | None = None) -> Window:
        """All cells of (1, C, h, w) features."""
        height, width = features.shape[-2:]
        return cls(slice(0, height), slice(0, width), height, width, weights)

    @property
    def is_whole(self) -> bool:
        """Whether these are all cells."""
        return (self.rows, self.columns) == (slice(0, self.height), slice(0, self.width))

    @property
    def weights(self) -> Tensor | None:
        """How much each of these cells counts, (1, 1, rows, columns), or None for all alike."""
        return None if self.map_weights is None else self.map_weights[..., self.rows, self.columns]


Sharing: TypeAlias = Literal["dealt", "own", "all"]


class Reference(Protocol):
    """Gathers what a term needs of one picture at one layer.

    Attributes:
        sharing: Which windows each process is shown where several work on one picture. ``dealt``: some, and the `sums`
            of all processes are added up; ``own``: those of the tiles that this process evaluates, and sums likewise;
            ``all``: all.
    """

    sharing: Sharing

    def add(self, features: Tensor, window: Window) -> None:
        """Take (1, C, rows, columns) features of a window; windows come without overlaps, in any order."""
        ...

    def sums(self) -> list[Tensor]:
        """What was summed over the windows, for adding up over processes in place."""
        ...

    def result(self, cells: float) -> Any:
        """What `Term.style_target` and `Term.target` get.

        Args:
            cells: Sum of the weights of all cells of the map; h w without weights.
        """
        ...


class Mean:
    """Mean over cells of what a term measures, summed in double precision, so that no order of windows shows.

    Args:
        term: Whose `measure`.
        layer: The layer.
    """

    sharing: Sharing = "dealt"

    def __init__(self, term: Term, layer: Layer) -> None:
        self._term, self._layer, self._sum = term, layer, Sum()

    def add(self, features: Tensor, window: Window) -> None:
        """Add the measure of a window."""
        self._sum.add(self._term.measure(self._layer, features, window, None))

    def sums(self) -> list[Tensor]:
        """The sum."""
        return self._sum.tensors()

    def result(self, cells: float) -> Tensor:
        """The mean, in the measure's own type and on its device."""
        return self._sum.value(cells)


class Sum:
    """A sum in double precision: on the CPU where the device has none."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._like: Tensor | None = None  # empty, of the type and on the device of what was summed

    def add(self, value: Tensor) -> None:
        """Add a tensor of any floating type."""
        exact = widest_dtype(value.device) == torch.float64
        # Apart, as MPS cannot widen on the way.
        addend = value.detach().to(value.device if exact else torch.device("cpu")).to(torch.float64)
        if self._total is None:
            self._total, self._like = addend.clone(), value.detach().new_empty(0)
        else:
            self._total += addend

    def tensors(self) -> list[Tensor]:
        """The sum itself, for adding up over processes in place."""
        return [] if self._total is None else [self._total]

    def value(self, divisor: float = 1.0) -> Tensor:
        """The sum over a divisor, in the type and on the device of what was added."""
        assert self._total is not None
        assert self._like is not None
        return (self._total / divisor).to(self._like)


class Sample:
    """Some cells of a picture, on a regular grid, which is the same whole and in tiles.

    Args:
        most: How many, about: every nth row and column is taken, and one row at least.
    """

    sharing: Sharing = "all"

    def __init__(self, most: int) -> None:
        self._most, self._cells = most, list[Tensor]()

    def add(self, features: Tensor, window: Window) -> None:
        """Take those of the sampled cells that lie in a window; where cells have weights, some of those that count."""
        if window.map_weights is not None:
            taken = counting(window.map_weights, self._most)[window.rows, window.columns]
            self._cells.append(at_least_float32(features)[0][:, taken].T)
            return
        step = math.ceil(math.sqrt(window.height * window.width / self._most))
        rows, columns = -window.rows.start % step, -window.columns.start % step
        cells = at_least_float32(features)[0, :, rows::step, columns::step].flatten(1).T
        self._cells.append(cells.clone())

    def sums(self) -> list[Tensor]:
        """Nothing is summed."""
        return []

    def result(self, cells: float) -> Tensor:
        """(n, C), in float32 or wider."""
        return torch.cat(self._cells)


class WeighedSample(Sample):
    """Some cells of a picture, as `Sample`, and how often each counts: with weights, of all that count at all."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._weights = list[Tensor]()

    def add(self, features: Tensor, window: Window) -> None:
        """Take those of the sampled cells that lie in a window."""
        if window.map_weights is None:
            super().add(features, window)
            return
        taken = counting(window.map_weights, self._most, least=0.0)[window.rows, window.columns]
        self._cells.append(at_least_float32(features)[0][:, taken].T)
        self._weights.append(window.map_weights[0, 0, window.rows, window.columns][taken])

    def result(self, cells: float) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        """(n, C), in float32 or wider, and (n,) weights, or None."""
        return super().result(cells), torch.cat(self._weights) if self._weights else None


class WholeMap:
    """The whole feature map of a picture, put together from tiles if there are any, and the weights of its cells."""

    sharing: Sharing = "all"

    def __init__(self) -> None:
        self._found: tuple[Tensor, Tensor | None] | None = None

    def add(self, features: Tensor, window: Window) -> None:
        """Take a window's features."""
        if window.is_whole:
            self._found = features, window.map_weights
            return
        if self._found is None:
            empty = features.new_empty(1, features.shape[1], window.height, window.width)
            self._found = empty, window.map_weights
        self._found[0][..., window.rows, window.columns] = features

    def sums(self) -> list[Tensor]:
        """Nothing is summed."""
        return []

    def result(self, cells: float) -> tuple[Tensor, Tensor | None]:
        """(1, C, h, w) features and (1, 1, h, w) weights or None."""
        assert self._found is not None
        return self._found


def counting(weights: Tensor, most: int | None = None, least: float = 0.5) -> Tensor:
    """Which cells stand for a part of a picture, where cells are taken or left: those that count half or more.

    Of weights (1, 1, h, w) of at least 0, this is (h, w), true for one cell at least, and for so many at the most:
    evenly spaced ones of a longer list. Those that count so much of the greatest weight are taken, if that is not half.
    """
    flat = weights.flatten()
    found = ((flat >= least * flat.max()) & ((flat > 0) | (flat.max() <= 0))).nonzero()[:, 0]
    step = 1 if most is None else math.ceil(len(found) / most)
    taken = torch.zeros_like(flat, dtype=torch.bool)
    taken[found[::step]] = True
    return taken.view(weights.shape[-2:])


def at_least_float32(features: Tensor) -> Tensor:
    """Features in float32, or float64 if they are: the type that sums belong into."""
    return features if features.dtype == torch.float64 else features.float()
