"""Style as features that are chosen for each cell once a stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import check_at_least
from nst_lightning.hardware.accelerator import cached_values
from nst_lightning.losses.cosine import directions, full, softness
from nst_lightning.losses.nnfm import nearest
from nst_lightning.losses.projection import Projection
from nst_lightning.losses.reference import Sample, Sharing, Sum, Window, at_least_float32
from nst_lightning.losses.term import Layer, Term, balance


class Candidates(NamedTuple):
    """Cells of one style."""

    centred: Tensor  # (m, C), directions of features less their mean, by which they are found
    unit: Tensor  # (m, C), directions of the features themselves
    share: float  # of the blend


def candidates_of(cells: Tensor, soft: Tensor, share: float) -> Candidates:
    """Candidates from (m, C) cells."""
    return Candidates(directions(cells - cells.mean(0), soft), directions(cells, soft), share)


def chosen(centred: Tensor, styles: Sequence[Candidates]) -> Tensor:
    """The styles' nearest features, blended by their shares, for (n, C) features less their mean: (n, C)."""
    return torch.stack([s.share * s.unit[nearest(centred, s.centred)] for s in styles]).sum(0)


class Start(NamedTuple):
    """Features of the picture that a stage starts from."""

    features: Tensor  # (1, C, h, w), those of `windows`
    windows: list[Window]
    mean: Tensor  # (C,), as cells count
    total: float  # sum of the weights of all cells


class StartMap:
    """Gathers a picture's features in their places, and their mean; those of a tile in bfloat16, to save memory."""

    sharing: Sharing = "own"

    def __init__(self) -> None:
        self._features: Tensor | None = None
        self._windows: list[Window] = []
        self._sum = Sum()

    def add(self, features: Tensor, window: Window) -> None:
        """Copy a window's features."""
        values, weights = at_least_float32(features), window.weights
        self._sum.add((values if weights is None else values * weights).sum((0, 2, 3)))
        self._windows.append(window)
        if window.is_whole:
            self._features = features.clone()
            return
        if self._features is None:
            kind = torch.bfloat16 if features.dtype == torch.float32 else features.dtype
            self._features = features.new_zeros(1, features.shape[1], window.height, window.width, dtype=kind)
        self._features[..., window.rows, window.columns] = features

    def sums(self) -> list[Tensor]:
        """The sum of features."""
        return self._sum.tensors()

    def result(self, cells: float) -> Start:
        """Features and mean."""
        assert self._features is not None
        return Start(self._features, self._windows, self._sum.value(cells), cells)


class NeighbourTarget(NamedTuple):
    """What `NearestNeighbour` compares with."""

    styles: list[Candidates]  # empty once features are chosen
    soft: Tensor  # added to squared lengths, a scalar
    scale: Tensor  # what to divide by, a scalar
    features: Tensor | None = None  # (1, C, h, w), the chosen ones, of length 1 but for blends
    total: float = 0.0  # sum of the weights of all cells


class NearestNeighbour(Term):
    """Give each cell the features of the style's that it resembles most where a stage starts.

    1 - cos of a cell's features and those that were chosen for it, over that of the content. Chosen are those with the
    largest cosine after each picture's mean is subtracted (Kolkin et al. 2022, Neural Neighbor Style Transfer, whose
    loss for whole columns of layers this is at each layer). `NNFM` looks again in each evaluation; here the choice is
    fixed for a stage, so that an evaluation costs no search and the loss has one minimum for each choice. With several
    styles each has its own neighbour, and the distances are averaged.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Cells of each style that are looked through at a layer, about, on a regular grid.
        turns: Whether cells may also be chosen from the styles turned by 90, 180 and 270 degrees and from the mirror
            images of all four, `samples` of each: eight times the search.
    """

    group = "style"
    additive = True
    needs_start = True
    weighs_cells = weighs_styles = balanced = True
    takes_projection = True
    copies = 1.0  # the gradient

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu3_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 4096,
        turns: bool = False,
    ) -> None:
        super().__init__(layers, weight)
        check_at_least(f"{self.name}.samples", samples, 1)
        self.samples, self.turns = samples, turns

    def content_reference(self, layer: Layer) -> Sample:
        """A sample of a picture's cells."""
        return Sample(self.samples)

    style_reference = content_reference

    def start_reference(self, layer: Layer) -> StartMap:
        """All features of the picture that the stage starts from."""
        return StartMap()

    def style_target(self, layer: Layer, styles: Sequence[tuple[Tensor, float]]) -> NeighbourTarget:
        """The styles' candidates."""
        found = [(full(cells, layer.projection), share) for cells, share in styles]
        soft = softness(torch.stack([share * cells.square().sum(1).mean() for cells, share in found]).sum())
        styles_found = [candidates_of(cells, soft, share) for cells, share in found]
        return NeighbourTarget(styles_found, soft, torch.ones_like(soft))

    def target(self, layer: Layer, content: Tensor, style: NeighbourTarget) -> NeighbourTarget:
        """The same, with the distance of the content from what it would choose."""
        cells = full(content, layer.projection)
        there = chosen(directions(cells - cells.mean(0), style.soft), style.styles)
        at_content = 1 - (directions(cells, style.soft) * there).sum(1).mean()
        return style._replace(scale=balance(at_content, torch.ones_like(at_content)))

    def start_target(self, layer: Layer, start: Start, target: NeighbourTarget) -> NeighbourTarget:
        """Choose the features of each cell, in the place of the picture's own."""
        features, windows, mean, total = start
        middle = full(mean[None], layer.projection)
        for window in windows:
            for rows in _strips(features[..., window.rows, window.columns]):
                part = features[..., window.rows, window.columns][..., rows, :]
                cells = full(_cells(at_least_float32(part)), layer.projection)
                there = chosen(directions(cells - middle, target.soft), target.styles)
                part.copy_(_map(there, part))
        return target._replace(styles=[], features=features, total=total)

    def measure(self, layer: Layer, features: Tensor, window: Window, target: NeighbourTarget) -> Tensor:
        """Mean distance from the chosen features, as far as these cells go, (1, C, rows, columns) -> a scalar."""
        assert target.features is not None
        there = target.features[..., window.rows, window.columns]
        return chosen_distance(features, there, target.soft, layer.projection, window.weights) / (
            target.total * target.scale
        )


def chosen_distance(
    features: Tensor, there: Tensor, soft: Tensor, projection: Projection | None = None, weights: Tensor | None = None
) -> Tensor:
    """Sum of 1 - cos over cells, a scalar.

    Args:
        features: (1, C, h, w), of any floating type.
        there: Directions to compare with, of that shape.
        soft: Added to squared lengths, a scalar.
        projection: Of features with fewer channels.
        weights: (1, 1, h, w), how often each cell counts; None: once.
    """
    root = None if projection is None else projection.root.to(at_least_float32(features[0, 0, 0]))
    result: Tensor = _Distance.apply(features, there, soft, root, weights)
    return result


class _Distance(torch.autograd.Function):
    """`chosen_distance`; its gradient is stored, in the type of the features, strip by strip as it is computed."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, there: Tensor, soft: Tensor, root: Tensor | None, weights: Tensor | None
    ) -> Tensor:
        kind = features.dtype if features.dtype != torch.float16 else torch.float32  # whose range is needed
        gradient = torch.empty_like(features, dtype=kind) if ctx.needs_input_grad[0] else None
        total = soft.new_zeros(())
        for rows in _strips(features):
            part = features[..., rows, :]
            own = _cells(at_least_float32(part))
            turned = own if root is None else own @ root.T
            lengths = (turned.square().sum(1, keepdim=True) + soft).sqrt()
            unit, aim = turned / lengths, _cells(there[..., rows, :]).to(turned)
            cosine = (unit * aim).sum(1, keepdim=True)
            counts = torch.ones_like(cosine) if weights is None else _cells(weights[..., rows, :]).to(cosine)
            # In two steps, as the last bits of one over everything depend on the number of threads.
            total = total + (counts * (1 - cosine)).view(part.shape[-2:]).sum(1).sum()
            if gradient is not None:
                slope = (unit * cosine - aim) * (counts / lengths)
                gradient[..., rows, :] = _map(slope if root is None else slope @ root, part)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.saved_tensors[0] * upstream, None, None, None, None


def _strips(features: Tensor) -> list[slice]:
    """Rows of (1, C, h, w) features of which a cache holds so many at a time."""
    height, row = features.shape[2], features.shape[1] * features.shape[3]
    count = max(1, min(height, cached_values(features.device) // max(1, row)))
    return [slice(top, min(top + count, height)) for top in range(0, height, count)]


def _cells(features: Tensor) -> Tensor:
    """(1, C, h, w) features as (h w, C)."""
    return features[0].permute(1, 2, 0).reshape(-1, features.shape[1])


def _map(cells: Tensor, like: Tensor) -> Tensor:
    """(h w, C) cells as a map of the shape of another, (1, C, h, w)."""
    return cells.view(like.shape[-2], like.shape[-1], -1).permute(2, 0, 1)[None]
