"""Content as the likeness of its cells to each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError, check_at_least
from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.losses.blocks import BlockMeans, BlockReference, Blocks
from nst_lightning.losses.cosine import directions, full, softness
from nst_lightning.losses.projection import Projection
from nst_lightning.losses.reference import Window
from nst_lightning.losses.term import Layer, Matrices, Term

_NO_DISTANCE = 1e-3  # added to mean distances, which are 2 at the most: cells that are all alike have small gradients
_ROUND = 0.01  # differences below count by their squares: at the content the gradient is 0 and not rounding's sign
_MOST_STRUCTURE = 8
_AT_ONCE = 1 << 18  # values
_NEIGHBOURS = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if (down, across) != (0, 0)]
_LEAST_SCALE = 0.01  # of the mean distance: a content that is the same everywhere has no differences to balance by


def relative_distances(cells: Tensor, weights: Tensor, soft: Tensor, projection: Projection | None = None) -> Tensor:
    """Cosine distances of cells, those from each cell over their mean: (n, C) cells -> (n, n), about 1 on average.

    Args:
        cells: Features, in float32 or wider.
        weights: (n,), how much each counts in a mean, with the sum 1.
        soft: Added to squared lengths, a scalar.
        projection: Of features with fewer channels.
    """
    unit = directions(full(cells, projection), soft)
    distances = 1 - unit @ unit.T
    means = (weights[:, None] * distances).sum(0)
    return distances / (means + _NO_DISTANCE)


def mean_difference(values: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute difference of two values that are drawn at random (Gini's), a scalar.

    Args:
        values: (n,).
        weights: (n,), probabilities.
    """
    ascending, order = values.sort()
    chance, kind = weights[order], widest_dtype(values.device)
    del order
    total = below = torch.zeros((), dtype=kind, device=values.device)
    # There are as many values as pairs of cells: all at once in double precision they would take more than a network.
    for some, of_some in zip(torch.split(ascending, _AT_ONCE), torch.split(chance, _AT_ONCE), strict=True):
        likely = of_some.to(kind)
        up_to = below + likely.cumsum(0)
        total = total + (2 * likely * some.to(kind) * (2 * up_to - likely - 1)).sum()
        below = up_to[-1]
    return total.to(values)


def local_contrast(distances: Tensor, blocks: Blocks) -> Tensor:
    """How much blocks differ from those beside them: their mean distance to the up to eight neighbours that count.

    Args:
        distances: Of all blocks, (n, n).
        blocks: The n blocks.

    Returns:
        (n,), 0 for a block without neighbours.
    """
    grid = torch.arange(blocks.down * blocks.across, device=distances.device).view(blocks.down, blocks.across)
    total, count = torch.zeros_like(blocks.weights), torch.zeros_like(blocks.weights)
    for down, across in _NEIGHBOURS:
        some = grid[max(0, -down) : blocks.down - max(0, down), max(0, -across) : blocks.across - max(0, across)]
        if some.numel():
            here, there = some.flatten(), (some + down * blocks.across + across).flatten()
            total[here] += distances[here, there] * blocks.weights[there]
            count[here] += blocks.weights[there]
    return total / count.clamp(min=torch.finfo(count.dtype).tiny)


class _Huber(torch.autograd.Function):
    """Huber's loss of each difference, those above 0 times a factor.

    PyTorch's own rounds the last values of what each thread has otherwise than the rest, and keeps both matrices.
    """

    @staticmethod
    def forward(ctx: Any, differences: Tensor, above: float) -> Tensor:
        slopes = (differences / _ROUND).clamp_(-1, 1)
        losses = (differences - slopes * (_ROUND / 2)) * slopes
        if above < 1:
            factors = torch.where(differences > 0, above, 1.0)
            losses, slopes = losses * factors, slopes * factors
        ctx.save_for_backward(slopes)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return upstream * slopes, None


class SimilarityTarget(NamedTuple):
    """What `SelfSimilarity` compares with."""

    distances: Tensor  # of the content's blocks, (n, n)
    blocks: Blocks
    shares: Tensor  # how much each block counts in the mean of pairs, (n,), with the sum 1
    total: float  # of the weights of all cells
    soft: Tensor  # added to squared lengths, a scalar
    scale: Tensor  # what to divide by, a scalar


class SelfSimilarity(Term):
    """Keep how the content's cells resemble each other, and not what they look like.

    The mean over cells i and j of ``|D(i, j) - D'(i, j)|``, where D are the cosine distances of features, those from
    each cell over their mean, and D' those of the content (Kolkin, Salavon and Shakhnarovich 2019, Style Transfer by
    Relaxed Optimal Transport and Self-Similarity, section 2.3, times the number of cells). What is one thing in the
    content stays one thing and apart from others, in whatever colours and strokes. Divided by what two pictures without
    any relation come to, the mean difference of two of the content's distances drawn at random, so that 1 means that
    nothing of it is left. Differences below 0.01 are squared (Huber's loss), for a smooth minimum.

    Compared are means over equal blocks of cells, as many as there are samples. Single cells at fixed places in their
    stead, a few of many, become unlike those around them: the picture gets spots and a hatching, and less of the style.
    Time grows with the square of the number of blocks.

    A plain sky is alike all over, and held to that it has no room for a painting's swirls but a regular ripple. With
    `structure` blocks count by how much they differ from those beside them, so that such a sky is the style's and a
    face is the content's; and with a small `apart` what is alike in the content may become different.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Blocks that are compared at a layer, at most.
        apart: How much it counts that blocks differ more than in the content, from 0 to 1, beside that they differ
            less; 1 is the paper's term.
        structure: A block counts by this power of its `local_contrast`; with 0, the paper's term, all count alike.
    """

    group = "content"
    weighs_cells = balanced = True
    takes_projection = True
    needs_spread = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu3_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 1024,
        apart: float = 1.0,
        structure: float = 0.0,
    ) -> None:
        super().__init__(layers, weight)
        check_at_least(f"{self.name}.samples", samples, 2)
        if not 0 <= apart <= 1:
            raise UserError(f"{self.name}.apart: must be from 0 to 1, got {apart}; 0.1 leaves plain areas free")
        if not 0 <= structure <= _MOST_STRUCTURE:
            raise UserError(
                f"{self.name}.structure: must be from 0 to {_MOST_STRUCTURE}, got {structure}; 2 leaves skies free"
            )
        self.samples, self.apart, self.structure = samples, apart, structure

    def content_reference(self, layer: Layer) -> BlockReference:
        """Blocks of the content."""
        return BlockReference(self.samples)

    def style_reference(self, layer: Layer) -> None:
        """Nothing of a style."""

    def target(self, layer: Layer, content: BlockMeans, style: Any) -> SimilarityTarget:
        """The content's distances."""
        cells, blocks, total = content
        weights = blocks.weights
        lengths = full(cells, layer.projection).square().sum(1)
        soft = softness((weights * lengths).sum())
        distances = relative_distances(cells, weights, soft, layer.projection)
        unrelated = mean_difference(distances.flatten(), torch.outer(weights, weights).flatten())
        shares = self._shares(distances, blocks)
        return SimilarityTarget(distances, blocks, shares, total, soft, unrelated.clamp(min=_LEAST_SCALE))

    def _shares(self, distances: Tensor, blocks: Blocks) -> Tensor:
        """How much each block counts; as they are weighed, where no block differs from another."""
        if not self.structure:
            return blocks.weights
        contrast = local_contrast(distances, blocks)
        shares = blocks.weights * (contrast / contrast.max().clamp(min=_NO_DISTANCE)).pow(self.structure)
        total = shares.sum()
        return shares / total if total > 0 else blocks.weights

    def matrices(self, cells: int) -> Matrices:
        """Of samples by samples, in float32."""
        one = 4 * min(self.samples, cells) ** 2
        return Matrices(target=one, left=2 * one, passing=4 * one)

    def measure(self, layer: Layer, features: Tensor, window: Window, target: SimilarityTarget) -> Tensor:
        """Sums over blocks of the cells in a window, (1, C, rows, columns) -> (n, C)."""
        return target.blocks.sums(features, window)

    def loss(self, layer: Layer, mean: Tensor, target: SimilarityTarget) -> Tensor:
        """Mean difference of relative distances."""
        weights, means = target.blocks.weights, target.blocks.means(mean * target.total)
        found = relative_distances(means, weights, target.soft, layer.projection)
        differences: Tensor = _Huber.apply(found - target.distances, self.apart)
        return ((differences * target.shares[:, None]).sum(0) * target.shares).sum() / target.scale
