"""Content by directions: what each cell of the content shows may be stronger or weaker, but not something else."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.losses.content import ContentMap, ContentTarget
from nst_lightning.losses.cosine import softness
from nst_lightning.losses.projection import Projection, strips, times
from nst_lightning.losses.reference import Window, at_least_float32
from nst_lightning.losses.term import Layer, Term

_LEAST = 3  # rows or columns of a map of which the outermost do not count


class DirectionsTarget(NamedTuple):
    """What `CosineContent` compares with."""

    directions: Tensor  # (1, C, h, w) of the content
    powers: Tensor  # (1, 1, h, w), squared lengths of the content's features over their mean
    soft: Tensor  # added to squared lengths, a scalar


class CosineContent(Term):
    """Keep the directions of the content's features, cell by cell, and let their lengths be the style's.

    The mean over inner cells of half the squared distance of directions, that is of ``1 - cos`` of the angle between
    a cell's features and the content's there: 0 at the content, 1 for what has nothing in common with it. A face that
    a dark painting darkens, or whose contours a bold brush makes bolder, keeps its directions. LPIPS compares features
    so at several layers, too (Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric, equation 1), and weighs channels besides.

    A cell counts by the square of its features' length in the content: where little is, as in a clear sky or before a
    plain wall, the style may paint what it wants. When all cells count alike such places stay photographs.

    The outermost cells do not count. They see the zeros around the picture, and how its edge stands out against these:
    a picture that is darker there than the content would get a bright line of a pixel to look the same.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
    """

    group = "content"
    additive = weighs_cells = balanced = True
    takes_projection = True
    copies = 1.0  # the gradient

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu2_1", "relu3_1", "relu4_1", "relu5_1"],  # noqa: B006 - shows in --help
        weight: float = 1.0,
    ) -> None:
        super().__init__(layers, weight)

    def content_reference(self, layer: Layer) -> ContentMap:
        """The content's features."""
        return ContentMap(layer)

    def style_reference(self, layer: Layer) -> None:
        """Nothing of a style."""

    def target(self, layer: Layer, content: ContentTarget, style: Any) -> DirectionsTarget:
        """The content's directions."""
        features = content.features
        kind = torch.promote_types(features.dtype, torch.float32)
        mean = (content.energy / (features.shape[-2] * features.shape[-1])).to(kind)
        soft = softness(mean)
        directions, lengths = turned(features, soft, layer.projection)
        powers = lengths.square() / mean.clamp(min=torch.finfo(kind).tiny)
        return DirectionsTarget(directions, powers, soft)

    def measure(self, layer: Layer, features: Tensor, window: Window, target: DirectionsTarget) -> Tensor:
        """Half the squared distances of directions over the number of cells, (1, C, rows, columns) -> a scalar."""
        down, across = _inner(window.rows, window.height), _inner(window.columns, window.width)
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in ((down, window.rows), (across, window.columns))
        )
        weights = target.powers[..., down, across]
        if window.weights is not None:
            weights = weights * window.weights[..., rows, columns]
        there = target.directions[..., down, across]
        total = turning(features[..., rows, columns], there, target.soft, layer.projection, weights)
        return total / (_counted(window.height) * _counted(window.width))


def _inner(cells: slice, length: int) -> slice:
    """Those of some rows or columns of a map that are not its first or last, if it has others."""
    if length < _LEAST:
        return cells
    first = max(cells.start, 1)
    return slice(first, max(first, min(cells.stop, length - 1)))


def _counted(length: int) -> int:
    return length - 2 if length >= _LEAST else length


def turned(features: Tensor, soft: Tensor, projection: Projection | None) -> tuple[Tensor, Tensor]:
    """Cells of (1, c, h, w) features over their lengths after projection, in their type, and the lengths."""
    found, lengths = torch.empty_like(features), soft.new_empty(1, 1, *features.shape[2:])
    for rows in strips(features):
        cells = at_least_float32(features[..., rows, :])
        lengths[..., rows, :] = _lengths(cells, _projected(cells, projection), soft)
        found[..., rows, :] = cells / lengths[..., rows, :]
    return found, lengths


def turning(
    features: Tensor, target: Tensor, soft: Tensor, projection: Projection | None, weights: Tensor | None = None
) -> Tensor:
    """Half the squared distances of cells' directions, summed: 1 - cos each, for cells with any activation.

    In strips and in two steps, as `nst_lightning.losses.projection.cells_energy`.

    Args:
        features: (1, c, h, w), of any floating type; they are widened to float32.
        target: From `turned`, of the same shape.
        soft: Added to squared lengths, a scalar.
        projection: None: the features are VGG-19's own.
        weights: (1, 1, h, w), how often each cell counts; None: once.

    Returns:
        A scalar in float32 or wider.
    """
    if not features.numel():  # a tile of outermost cells alone
        return at_least_float32(features).sum()
    result: Tensor = _Turning.apply(features, target, soft, projection, weights)
    return result


class _Turning(torch.autograd.Function):
    """`turning`; the gradient is stored in place of what automatic differentiation would keep, four times as much."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, target: Tensor, soft: Tensor, projection: Projection | None, weights: Tensor | None
    ) -> Tensor:
        kind = features.dtype if features.dtype != torch.float16 else torch.float32  # whose range is needed
        gradient = torch.empty_like(features, dtype=kind) if ctx.needs_input_grad[0] else None
        total: Tensor | None = None
        for rows in strips(features):
            cells = at_least_float32(features[..., rows, :])
            products = _projected(cells, projection)
            lengths = _lengths(cells, products, soft)
            unit, products = cells / lengths, products / lengths
            difference = unit - at_least_float32(target[..., rows, :])
            away = _projected(difference, projection)
            counts = 1.0 if weights is None else weights[..., rows, :]
            here = (difference * away * counts).sum((0, 2, 3)) / 2
            total = here if total is None else total + here
            if gradient is not None:
                # Of a cell f of length L: the part of the difference that is not along the direction u of f, over L.
                along = (unit * away).sum(1, keepdim=True)
                gradient[..., rows, :] = (away - along * products) * (counts / lengths)
        ctx.save_for_backward(gradient)
        assert total is not None
        return total.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.saved_tensors[0] * upstream, None, None, None, None


def _projected(cells: Tensor, projection: Projection | None) -> Tensor:
    """Cells (1, c, rows, w), or WᵀW times each: inner products with these are those of VGG-19's channels."""
    return cells if projection is None else times(cells, projection.moments.to(cells.dtype))


def _lengths(cells: Tensor, products: Tensor, soft: Tensor) -> Tensor:
    return ((cells * products).sum(1, keepdim=True).clamp(min=0) + soft).sqrt()
