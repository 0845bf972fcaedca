"""Terms that compare each cell with cells of other pictures, wherever those lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.losses.term import CellTerm, StyleFeatures, Window, wide


def counting(weights: Tensor, samples: int | None = None) -> Tensor:
    """Which cells stand for a part of a picture, where cells are taken or left: those that count half or more.

    Args:
        weights: (1, 1, h, w) of at least 0.
        samples: How many, at most; every so many of a longer list are taken.

    Returns:
        (h, w), with one cell at least.
    """
    flat = weights.flatten()
    found = (flat >= 0.5 * flat.max()).nonzero()[:, 0]
    step = 1 if samples is None else math.ceil(len(found) / samples)
    taken = torch.zeros_like(flat, dtype=torch.bool)
    taken[found[::step]] = True
    return taken.view(weights.shape[-2:])


class SampleTerm(CellTerm):
    """A sum over cells, each compared with what was learned from cells of content and styles.

    Of large pictures cells are taken on a regular grid, so that time and memory stay bounded; the grid is the same
    whether a picture is seen whole or in tiles.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Cells taken of each picture at a layer, at most.
    """

    group = "style"

    def __init__(self, layers: Mapping[str, float] | Sequence[str], weight: float, samples: int) -> None:
        super().__init__(layers, weight)
        if samples < 1:
            raise UserError(f"{self.name}.samples: must be at least 1, got {samples}; the default is a good start")
        self.samples = samples
        self._gathered: dict[str, dict[int, list[Tensor]]] = {}

    def begin(self, layer: str) -> None:
        """Forget what was gathered at a layer; see the base class."""
        self._gathered[layer] = {}

    def gather(self, layer: str, picture: int, features: Tensor, window: Window, weights: Tensor | None = None) -> None:
        """Take the sampled cells of a window.

        Args:
            layer: Its name.
            picture: 0 for the content, then the styles in order.
            features: (1, C, rows, columns).
            window: Where they lie.
            weights: (1, 1, h, w) of the whole map, of which `counting` says what is taken; None: all alike.
        """
        if weights is not None:
            taken = counting(weights, self.samples)[window.rows, window.columns]
            self._gathered[layer].setdefault(picture, []).append(wide(features)[0][:, taken].T)
            return
        step = math.ceil(math.sqrt(window.height * window.width / self.samples))
        rows, columns = -window.rows.start % step, -window.columns.start % step
        cells = wide(features)[0, :, rows::step, columns::step].flatten(1).T
        self._gathered[layer].setdefault(picture, []).append(cells.clone())

    def finish(self, layer: str, shares: Sequence[float]) -> None:
        """Take targets from what was gathered.

        Args:
            layer: Its name.
            shares: Of the styles in the blend; they sum to 1.
        """
        content, *styles = (torch.cat(cells) for _, cells in sorted(self._gathered.pop(layer).items()))
        self.set_target(layer, content, list(zip(styles, shares, strict=True)))

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Take targets from sampled cells, (n, C) of the content, and of each style with its share."""
        raise NotImplementedError

    def keep(self, layer: str, features: Tensor, window: Window) -> None:
        """Nothing is kept of the content's cell at the same place; see the base class."""

    def prepare(self, layer: str, content: Tensor, styles: Sequence[StyleFeatures]) -> None:
        """Sample whole pictures; see the base class."""
        self.begin(layer)
        self.gather(layer, 0, content, Window.whole(content))
        for picture, style in enumerate(styles, start=1):
            self.gather(layer, picture, style.features, Window.whole(style.features), style.weights)
        self.finish(layer, [style.share for style in styles])


class CountTerm(SampleTerm):
    """A sum over cells whose targets also depend on counts over all cells of the image itself."""

    def count(self, layer: str, features: Tensor) -> Tensor:
        """Counts over (1, C, h, w) features; those of two parts add up."""
        raise NotImplementedError

    def settle(self, layer: str, counts: Tensor) -> None:
        """Take the counts of the whole image, before `part` is asked for."""
        raise NotImplementedError

    def value(self, layer: str, features: Tensor) -> Tensor:
        """Count, then sum over all cells; see the base class."""
        self.settle(layer, self.count(layer, features.detach()))
        return self.part(layer, features, Window.whole(features))
