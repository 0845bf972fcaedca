"""Content by directions: what each cell of the content shows may be stronger or weaker, but not something else."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError
from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.losses.content import ContentMap
from nst_lightning.losses.cosine import softness
from nst_lightning.losses.projection import Projection, multiplier, strips
from nst_lightning.losses.reference import Window, at_least_float32
from nst_lightning.losses.term import Layer, Term


class Lengths(NamedTuple):
    """What `CosineContent` keeps of a content."""

    features: Tensor  # (1, C, h, w), where this process evaluates; elsewhere there is anything
    energy: Tensor  # sum of squared lengths of all cells, a scalar
    total: Tensor  # sum of their lengths, a scalar


class LengthsMap(ContentMap):
    """Gathers a content's features in their places, and sums up the lengths of all cells."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self._total: Tensor | None = None

    def add(self, features: Tensor, window: Window) -> None:
        """Copy a window's features."""
        super().add(features, window)
        moments = multiplier(features, self._projection, None)
        lengths = at_least_float32(features.new_empty(1, 1, *features.shape[2:]))
        for rows in strips(features):
            cells, turned = _cells(features[..., rows, :], moments)
            lengths[..., rows, :] = _dot(cells, turned).clamp(min=0).sqrt().view(lengths[..., rows, :].shape)
        total = lengths.sum((0, 1, 2)).sum()  # in two steps, as threads would share out a single one
        total = total.to(widest_dtype(total.device))
        self._total = total if self._total is None else self._total + total

    def sums(self) -> list[Tensor]:
        """Energy and lengths."""
        return [*super().sums(), *([] if self._total is None else [self._total])]

    def result(self, cells: float) -> Lengths:  # type: ignore[override]
        """Features and sums."""
        assert self._total is not None
        return Lengths(*super().result(cells), self._total)


class DirectionsTarget(NamedTuple):
    """What `CosineContent` compares with: the content's directions t, cell by cell."""

    products: Tensor  # (1, C, h, w), WᵀW t: inner products of features with these are those with t, after projection
    squares: Tensor  # (1, 1, h, w), tᵀ WᵀW t: 1, and less where there is hardly any activation
    counts: Tensor  # (1, 1, h, w), lengths of the content's features over their mean, 0 for outermost cells; or 1
    soft: Tensor  # added to squared lengths, a scalar

    def part(self, rows: slice, columns: slice) -> DirectionsTarget:
        """Some rows and columns of it."""
        products, squares, counts = (values[..., rows, columns] for values in self[:3])
        return DirectionsTarget(products, squares, counts, self.soft)


class CosineContent(Term):
    """Keep the directions of the content's features, cell by cell, and let their lengths be the style's.

    The mean over inner cells of half the squared distance of directions, that is of ``1 - cos`` of the angle between
    a cell's features and the content's there: 0 at the content, 1 for what has nothing in common with it. A face that
    a dark painting darkens, or whose contours a bold brush makes bolder, keeps its directions. LPIPS compares features
    so at several layers, too (Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric, equation 1), and weighs channels besides.

    A cell counts by its features' length in the content: where little is, as in a clear sky or before a plain wall, the
    style may paint what it wants. When all cells count alike such places stay photographs; by the square of that length
    less of all else is kept for as much of the style.

    The outermost cells do not count then. They see the zeros around the picture, and how its edge stands out against
    these: a picture that is darker there than the content would get a bright line of a pixel to look the same.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        everywhere: Those at which all cells count alike, the outermost, too. Deep down that is what a place shows: a
            sky stays a sky and no face of the painting lands in it. Further up it would be a photograph of the sky.

    Raises:
        UserError: `everywhere` names what is not among the layers.
    """

    group = "content"
    additive = weighs_cells = balanced = True
    takes_projection = True
    copies = 1.0  # the gradient
    widened = 3.0

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu2_1", "relu3_1", "relu4_1", "relu5_1"],  # noqa: B006 - shows in --help
        weight: float = 1.0,
        everywhere: list[str] = [],  # noqa: B006 - shows in --help
    ) -> None:
        super().__init__(layers, weight)
        if others := [name for name in everywhere if name not in self.layers]:
            known, asked = ", ".join(self.layers), ", ".join(others)
            raise UserError(
                f"{self.name}.everywhere: must be among its layers ({known}), got {asked}; leave it out or add it"
            )
        self.everywhere = frozenset(everywhere)

    def content_reference(self, layer: Layer) -> LengthsMap:
        """The content's features."""
        return LengthsMap(layer)

    def style_reference(self, layer: Layer) -> None:
        """Nothing of a style."""

    def target(self, layer: Layer, content: Lengths, style: Any) -> DirectionsTarget:
        """The content's directions."""
        kind = torch.promote_types(content.features.dtype, torch.float32)
        cells = content.features.shape[-2] * content.features.shape[-1]
        total = None if layer.name in self.everywhere else content.total.to(kind)
        return directions_of(content.features, (content.energy / cells).to(kind), total, layer.projection)

    def measure(self, layer: Layer, features: Tensor, window: Window, target: DirectionsTarget) -> Tensor:
        """Half the squared distances of directions over the number of cells, (1, C, rows, columns) -> a scalar."""
        there = target.part(window.rows, window.columns)
        counts = there.counts if window.weights is None else there.counts * window.weights
        total = turning(features, there, counts, layer.projection)
        height, width = window.height, window.width
        return total / (height * width if layer.name in self.everywhere else _inner(height) * _inner(width))


def _inner(length: int) -> int:
    """How many rows or columns of a map count: not its first and last, if it has others."""
    return length - 2 if length > 2 else length


def _without_edge(counts: Tensor) -> Tensor:
    """Counts (1, 1, h, w) with 0 for the outermost cells."""
    down, across = (slice(1, -1) if length > 2 else slice(None) for length in counts.shape[2:])
    inner = torch.zeros_like(counts)
    inner[..., down, across] = counts[..., down, across]
    return inner


def directions_of(
    features: Tensor, mean: Tensor, total: Tensor | None, projection: Projection | None
) -> DirectionsTarget:
    """What `turning` compares with.

    Args:
        features: (1, c, h, w) of a content, of any floating type. They are overwritten, so that there is no second map.
        mean: Of squared lengths of the content's cells, a scalar in float32 or wider.
        total: Sum of their lengths, likewise; None: all cells count alike.
        projection: None: the features are VGG-19's own.
    """
    moments = multiplier(features, projection, None)
    soft = softness(mean)
    squares, counts = (mean.new_empty(1, 1, *features.shape[2:]) for _ in range(2))
    for rows in strips(features):
        cells, turned = _cells(features[..., rows, :], moments)
        found = _dot(cells, turned).clamp(min=0)
        shape = squares[..., rows, :].shape
        counts[..., rows, :] = found.sqrt().view(shape)
        squares[..., rows, :] = (found / (found + soft)).view(shape)
        features[..., rows, :] = _map(turned * (found + soft).rsqrt(), features[..., rows, :])
    if total is None:
        return DirectionsTarget(features, squares, torch.ones_like(counts), soft)
    counts = _without_edge(counts) * (counts.numel() / total).where(total > 0, 0)
    return DirectionsTarget(features, squares, counts, soft)


def turning(features: Tensor, target: DirectionsTarget, counts: Tensor, projection: Projection | None) -> Tensor:
    """Half the squared distances of cells' directions, summed: 1 - cos each, for cells with any activation.

    Half of ‖u - t‖² is taken as (uᵀu + tᵀt) / 2 - uᵀt, so that cells are multiplied with WᵀW once and no difference
    of maps is taken. It is computed in strips and summed in two steps, as `cells_energy` is.

    Args:
        features: (1, c, h, w), of any floating type; they are widened to float32.
        target: From `directions_of`, of the same shape.
        counts: (1, 1, h, w), how often each cell counts.
        projection: None: the features are VGG-19's own.

    Returns:
        A scalar in float32 or wider.
    """
    moments = multiplier(features, projection, features.dtype)
    result: Tensor = _Turning.apply(features, target.products, target.squares, target.soft, counts, moments)
    return result


class _Turning(torch.autograd.Function):
    """`turning`; the gradient is stored in place of what automatic differentiation would keep, four times as much."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        target: Tensor,
        squares: Tensor,
        soft: Tensor,
        counts: Tensor,
        moments: Tensor | None,
    ) -> Tensor:
        kind = features.dtype if features.dtype != torch.float16 else torch.float32  # whose range is needed
        gradient = torch.empty_like(features, dtype=kind) if ctx.needs_input_grad[0] else None
        total: Tensor | None = None
        for rows in strips(features):
            cells, products = _cells(features[..., rows, :], moments)
            there, _ = _cells(target[..., rows, :], None)
            count, square = (values[..., rows, :].reshape(-1, 1) for values in (counts, squares))
            inverse = (_dot(cells, products).clamp(min=0) + soft).rsqrt()  # of the length of a cell
            cosine = _dot(cells, there) * inverse
            rest = soft * inverse.square()  # what is missing from uᵀu to 1
            here = (((1 - rest + square) / 2 - cosine) * count).view(-1, features.shape[-1]).sum(0)
            total = here if total is None else total + here
            if gradient is not None:
                # Of a cell f of length L: ((uᵀt + rest) WᵀW f / L - WᵀW t) / L
                found = products * ((cosine + rest) * inverse.square() * count)
                gradient[..., rows, :] = _map(found.addcmul_(there, inverse * count, value=-1), target[..., rows, :])
        ctx.save_for_backward(gradient)
        assert total is not None
        return total.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return ctx.saved_tensors[0] * upstream, None, None, None, None, None


def _cells(features: Tensor, moments: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cells (n, c) of (1, c, rows, w) features, and WᵀW times each, both in float32 or wider."""
    cells = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    wide = at_least_float32(cells)
    return wide, wide if moments is None else torch.mm(cells.to(moments.dtype), moments).to(wide.dtype)


def _map(cells: Tensor, like: Tensor) -> Tensor:
    """Cells (n, c) as a map of the shape (1, c, rows, w) of another one."""
    return cells.view(1, *like.shape[2:], -1).permute(0, 3, 1, 2)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products of cells (n, c), as a column (n, 1)."""
    return (one * other).sum(1, keepdim=True)
