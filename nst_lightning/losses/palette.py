"""Style as a set of colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.losses.reference import Sharing, Sum, Window, at_least_float32
from nst_lightning.losses.sampling import division
from nst_lightning.losses.term import IMAGE, Layer, Term, balance
from nst_lightning.losses.transport import relaxed_distance

_SOFT = 1e-3  # of colours in [0, 1]: below this a distance counts by its square, for a gradient at no distance


class Rectangles(NamedTuple):
    """Parts of a picture, as many rows and columns of them, and those of them in which something counts."""

    down: int
    across: int
    chosen: Tensor  # (n,), indices of the parts, row by row
    masses: Tensor  # (n,), the share of all weights that each has, above 0

    @classmethod
    def of(cls, window: Window, most: int, like: Tensor) -> Rectangles:
        """Divide the map of a window into so many at most, with masses of the type and on the device of a tensor."""
        down, across = division(window.height, window.width, most)
        whole = window._replace(rows=slice(0, window.height), columns=slice(0, window.width))
        weights = window.map_weights
        counts = like.new_ones(1, 1, window.height, window.width) if weights is None else weights.to(like)
        masses = sums_in_parts(counts, whole, down, across)[0]
        chosen = masses.nonzero()[:, 0]
        return cls(down, across, chosen, masses[chosen] / masses.sum())


def sums_in_parts(values: Tensor, window: Window, down: int, across: int) -> Tensor:
    """Sums over the equal parts of a map, so many down and across, as far as a window goes.

    Args:
        values: (1, C, rows, columns) of the window.
        window: Where these lie.
        down: Rows of parts.
        across: Columns of parts.

    Returns:
        (C, down * across), of the values' type.
    """
    rows = _belonging(window.rows, window.height, down).to(values)
    columns = _belonging(window.columns, window.width, across).to(values)
    return (rows.T @ (values[0] @ columns)).flatten(1)  # products, as their bits do not depend on threads


def _belonging(cells: slice, length: int, parts: int) -> Tensor:
    """1 where a row of cells lies in a part, else 0: (rows, parts)."""
    part = ((torch.arange(cells.start, cells.stop) + 1) * parts - 1) // length
    return part[:, None] == torch.arange(parts)


class Colours(NamedTuple):
    """Mean colours of the parts of a picture."""

    colours: Tensor  # (n, 3)
    parts: Rectangles
    total: float  # sum of the weights of all pixels


class ColourReference:
    """Gathers the mean colours of a picture's parts, so many at most."""

    sharing: Sharing = "dealt"

    def __init__(self, most: int) -> None:
        self._most, self._sum = most, Sum()
        self._parts: Rectangles | None = None

    def add(self, features: Tensor, window: Window) -> None:
        """Add the colours of a window."""
        if self._parts is None:
            self._parts = Rectangles.of(window, self._most, at_least_float32(features[0, 0, 0]))
        self._sum.add(weighted_colours(features, window, self._parts))

    def sums(self) -> list[Tensor]:
        """The sums of colours."""
        return self._sum.tensors()

    def result(self, cells: float) -> Colours:
        """The mean colours."""
        assert self._parts is not None
        return Colours(self._sum.value(cells) / self._parts.masses[:, None], self._parts, cells)


def weighted_colours(pixels: Tensor, window: Window, parts: Rectangles) -> Tensor:
    """Sums of colours, as often as they count, in the parts of a picture: (1, 3, rows, columns) -> (n, 3)."""
    values = at_least_float32(pixels)
    values = values if window.weights is None else values * window.weights
    return sums_in_parts(values, window, parts.down, parts.across).T[parts.chosen]


class StyleColours(NamedTuple):
    """Colours of one style."""

    colours: Tensor  # (m, 3)
    masses: Tensor  # (m,), with the sum 1
    share: float  # of the blend


class PaletteTarget(NamedTuple):
    """What `Palette` compares with."""

    styles: list[StyleColours]
    parts: Rectangles  # of the image
    scale: Tensor  # what to divide by, a scalar


class Palette(Term):
    """Take on the style's colours, all of them and no others, by the relaxed earth mover's distance.

    As `RelaxedEMD`, of colours in place of features and by their Euclidean distance (Kolkin, Salavon and Shakhnarovich
    2019, Style Transfer by Relaxed Optimal Transport and Self-Similarity, section 2.2, the colour matching loss, over
    its value at the content). They turn RGB so that the mean of the channels is an axis, which leaves distances as they
    are. Colours are means over equal rectangles of the picture, not of single pixels, which would become dots.

    It says nothing of where colours are; it is made to stand beside a term of features.

    Args:
        weight: Factor on the term.
        samples: Rectangles that the picture, and each style, is divided into, at most.
    """

    group = "style"
    weighs_cells = weighs_styles = balanced = True

    def __init__(self, weight: float = 1.0, samples: int = 1024) -> None:
        super().__init__([IMAGE], weight)
        check_at_least(f"{self.name}.samples", samples, 1)
        self.samples = samples

    def content_reference(self, layer: Layer) -> ColourReference:
        """Mean colours of rectangles."""
        return ColourReference(self.samples)

    style_reference = content_reference

    def style_target(self, layer: Layer, styles: Sequence[tuple[Colours, float]]) -> list[StyleColours]:
        """The styles' colours."""
        return [StyleColours(found.colours, found.parts.masses, share) for found, share in styles]

    def target(self, layer: Layer, content: Colours, style: list[StyleColours]) -> PaletteTarget:
        """The same, with the parts of the image and the distance of the content."""
        at_content = self._distance(content.colours, content.parts, style)
        return PaletteTarget(style, content.parts, balance(at_content, torch.ones_like(at_content)))

    def measure(self, layer: Layer, features: Tensor, window: Window, target: PaletteTarget) -> Tensor:
        """Sums of colours in the parts of the picture, (1, 3, rows, columns) -> (n, 3)."""
        return weighted_colours(features, window, target.parts)

    def loss(self, layer: Layer, mean: Tensor, target: PaletteTarget) -> Tensor:
        """Distance from the styles' colours over that of the content."""
        colours = mean / target.parts.masses[:, None]
        return self._distance(colours, target.parts, target.styles) / target.scale

    @staticmethod
    def _distance(colours: Tensor, parts: Rectangles, styles: list[StyleColours]) -> Tensor:
        found = [
            style.share * relaxed_distance(colour_distances(colours, style.colours), parts.masses, style.masses)
            for style in styles
        ]
        return torch.stack(found).sum()


def colour_distances(some: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances of (n, 3) and (m, 3) colours, rounded off below a thousandth: (n, m)."""
    squares = torch.stack([(one[:, None] - other).square() for one, other in zip(some.T, others.T, strict=True)]).sum(0)
    return (squares + _SOFT**2).sqrt() - _SOFT
