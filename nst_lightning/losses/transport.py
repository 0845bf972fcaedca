"""Style as the features of sampled cells, each of which shall occur in the picture and the style alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.losses.cosine import directions, full, softness
from nst_lightning.losses.reference import Window
from nst_lightning.losses.sampling import Cells, Gathering, Places, gathered
from nst_lightning.losses.term import Layer, Matrices, Term, balance


def relaxed_distance(costs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Relaxed earth mover's distance, a scalar.

    It is what it costs to move each row's mass to the nearest column, or each column's from the nearest row, whichever
    is more. Each of the two leaves one of the conditions of the earth mover's distance out, so both are lower bounds of
    it. Who is whose neighbour is a constant to the gradient.

    Args:
        costs: (n, m), at least 0.
        rows: (n,), masses, with the sum 1.
        columns: (m,), masses, with the sum 1.
    """
    with torch.no_grad():
        of_rows, nearest_column = costs.min(1)
        of_columns, nearest_row = costs.min(0)
        outward = torch.zeros_like(costs).scatter_(1, nearest_column[:, None], rows[:, None])
        inward = torch.zeros_like(costs).scatter_(0, nearest_row[None], columns[None])
        plan = torch.where((of_rows * rows).sum() >= (of_columns * columns).sum(), outward, inward)
    # In two steps, as the last bits of one over everything depend on the number of threads. The gradient is a product
    # with the plan, in place of adding up many rows at one place, whose order is not known.
    return (plan * costs).sum(0).sum()


class StyleCells(NamedTuple):
    """Cells of one style at a layer."""

    unit: Tensor  # (m, C), of about length 1
    masses: Tensor  # (m,), with the sum 1
    share: float  # of the blend


class EMDTarget(NamedTuple):
    """What `RelaxedEMD` compares with."""

    styles: list[StyleCells]
    soft: Tensor  # added to squared lengths, a scalar
    places: Places  # of the image's cells
    total: float  # of the weights of all cells
    scale: Tensor  # what to divide by, a scalar


class RelaxedEMD(Term):
    """Take on the style's features, all of them and no others, by the relaxed earth mover's distance of sampled cells.

    The cosine distance of a cell to the most similar one of the style, on average over the picture, or that of a
    style's cell to the most similar one of the picture, on average over the style, whichever is more (Kolkin, Salavon
    and Shakhnarovich 2019, Style Transfer by Relaxed Optimal Transport and Self-Similarity, section 2.2), over its
    value at the content. Where `NNFM` lets a picture make do with a few of the style's features, here each of them has
    to occur. With several styles the distances are averaged.

    Cells lie at fixed places, the same in tiles: the term is meant for layers whose cells see as far as places are
    apart. Time grows with the square of their number.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Cells of the picture, and of each style, that are compared at a layer, at most.
    """

    group = "style"
    weighs_cells = weighs_styles = balanced = True
    takes_projection = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu3_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 1024,
    ) -> None:
        super().__init__(layers, weight)
        check_at_least(f"{self.name}.samples", samples, 1)
        self.samples = samples

    def content_reference(self, layer: Layer) -> Gathering:
        """Sampled cells."""
        return Gathering(self.samples)

    style_reference = content_reference

    def style_target(self, layer: Layer, styles: Sequence[tuple[Cells, float]]) -> tuple[list[StyleCells], Tensor]:
        """The styles' directions, and what is added to squared lengths."""
        found = [(full(cells.features, layer.projection), cells.places.weights, share) for cells, share in styles]
        lengths = [share * (masses * cells.square().sum(1)).sum() for cells, masses, share in found]
        soft = softness(torch.stack(lengths).sum())
        return [StyleCells(directions(cells, soft), masses, share) for cells, masses, share in found], soft

    def target(self, layer: Layer, content: Cells, style: tuple[list[StyleCells], Tensor]) -> EMDTarget:
        """The same, with the places of the image's cells and the distance of the content."""
        styles, soft = style
        target = EMDTarget(styles, soft, content.places, content.total, torch.ones_like(soft))
        at_content = self._distance(layer, content.features, target)
        return target._replace(scale=balance(at_content, torch.ones_like(at_content)))

    def matrices(self, cells: int) -> Matrices:
        """Of samples by samples, in float32."""
        one = 4 * min(self.samples, cells) ** 2
        return Matrices(left=one, passing=4 * one)

    def measure(self, layer: Layer, features: Tensor, window: Window, target: EMDTarget) -> Tensor:
        """The sampled cells, (1, C, rows, columns) -> (n, C), with zeros for those elsewhere."""
        return gathered(features, window, target.places)

    def loss(self, layer: Layer, mean: Tensor, target: EMDTarget) -> Tensor:
        """Distance from the styles over that of the content."""
        return self._distance(layer, mean * target.total, target) / target.scale

    def _distance(self, layer: Layer, cells: Tensor, target: EMDTarget) -> Tensor:
        unit, masses = directions(full(cells, layer.projection), target.soft), target.places.weights
        found = [s.share * relaxed_distance(1 - unit @ s.unit.T, masses, s.masses) for s in target.styles]
        return torch.stack(found).sum()
