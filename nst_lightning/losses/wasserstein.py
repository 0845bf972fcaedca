"""Style as the Gaussian that has the mean and covariance of the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError
from nst_lightning.hardware.accelerator import prefers_large_operations
from nst_lightning.hardware.numerics import one_thread, side_by_side
from nst_lightning.losses.moments import Moments, moments_of
from nst_lightning.losses.projection import Projection
from nst_lightning.losses.reductions import moments_sum
from nst_lightning.losses.reference import Window
from nst_lightning.losses.roots import SMALLEST, Root, eigenvectors, roots, rounding, smoothed
from nst_lightning.losses.term import STYLE_LAYERS, Layer, Matrices, StyleTerm, balance


class PrincipalAxes(NamedTuple):
    """A style's covariance by its principal axes, those without variance left out."""

    scaled: Tensor  # (k, C), an axis a row, times the style's deviation along it, largest first: Σ' = scaledᵀ scaled
    correlated: int  # how many of the first axes count with all their correlations


def principal_axes(covariance: Tensor, share: float = 1.0) -> PrincipalAxes:
    """Take a covariance (C, C) apart, under no gradient.

    Args:
        covariance: Symmetric, without negative eigenvalues but for rounding; of fewer cells than channels it is
            singular, and what is left out there saves a good part of the work.
        share: Of the variance that the axes must hold which count with all their correlations.
    """
    values, vectors = eigenvectors(covariance)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = max(1, int((values > values[0] * rounding(values.dtype)).sum()))
    held = values[:kept].cumsum(0)
    correlated = kept if share >= 1 else min(kept, int((held < share * held[-1]).sum()) + 1)
    return PrincipalAxes((vectors * values.sqrt()).T[:kept].contiguous(), correlated)


class StyleGaussian(NamedTuple):
    """What `Wasserstein` compares with: a style, in terms of the network's own features, and its share of the blend."""

    mean: Tensor  # (c,)
    size: Tensor  # tr Σ' + ‖μ'‖² of VGG-19's channels, a scalar
    trace: Tensor  # tr Σ' alone
    axes: PrincipalAxes  # of VGG-19's channels, as combinations of the network's own, (k, c)
    share: float


def gaussian_of(mean: Tensor, projection: Projection | None, correlated: float, share: float) -> StyleGaussian:
    """The Gaussian of a style from the mean of its `moments_sum`, (c, c + 1), under no gradient."""
    own = moments_of(mean)
    root = None if projection is None else projection.root.to(mean)
    full = own if root is None else Moments(root @ own.mean, root @ own.covariance @ root.T)
    axes = principal_axes(full.covariance, correlated)
    trace = full.covariance.trace()
    scaled = axes.scaled if root is None else axes.scaled @ root
    return StyleGaussian(own.mean, trace + full.mean.square().sum(), trace, axes._replace(scaled=scaled), share)


# Part of a mean's square that counts as a variance where what rounding hides is reckoned; a gradient of one colour is
# then that of its mean to 2 %, and pictures of more than one colour do not notice.
_OF_MEAN = 1e-3
# For estimates: how many of a layer's axes hold 0.99 of a style's variance, of pictures at 256 to 512 px.
_AXES = 0.6


class Problem(NamedTuple):
    """Moments of an image and the Gaussian of a style."""

    moments: Moments
    gaussian: StyleGaussian
    metric: Tensor | None  # WᵀW of the projection to VGG-19's channels, (c, c); None for the identity


class Common(NamedTuple):
    """Σ'^½ Σ Σ'^½ in the style's principal axes, those of Σ'; its root's trace is what two Gaussians have in common."""

    matrix: Tensor  # of the correlated axes, (r, r)
    others: Tensor  # its diagonal for the others, (k - r,)
    epsilon: Tensor  # what rounding leaves of a variance of zero, a scalar


def common_variances(problem: Problem) -> Common:
    """What a problem's distance takes the root of."""
    scaled, r = problem.gaussian.axes
    half = scaled @ problem.moments.covariance
    matrix, others = half[:r] @ scaled[:r].T, (half[r:] * scaled[r:]).sum(1)
    matrix = (matrix + matrix.T) / 2
    size = (matrix.square().sum() + others.square().sum()).sqrt()
    # A picture of one colour has no variance, and a slope without bounds would multiply what rounding leaves of f - μ.
    least = _OF_MEAN * problem.gaussian.trace * problem.moments.mean.square().sum()
    return Common(matrix, others, rounding(size.dtype) * torch.maximum(size, least).clamp(min=SMALLEST))


def wasserstein_distance(problem: Problem, common: Common, root: Root) -> tuple[Tensor, Tensor]:
    """Squared Wasserstein-2 distance of two Gaussians (Dowson and Landau 1982, equation 4), with its gradient.

    ‖μ - μ'‖² + tr(Σ + Σ' - 2 (Σ'^½ Σ Σ'^½)^½). With the rows B of the axes, Σ' = Bᵀ B, the gradient with respect to Σ
    is 1 - Bᵀ f' B, f' being twice the root's slope; where Σ is singular it would be infinite but for `roots`.

    Args:
        problem: Image and style.
        common: From `common_variances`.
        root: Of its matrix.

    Returns:
        A scalar, of at least 0 but for rounding, and the gradient with respect to the mean of `moments_sum`,
        (c, c + 1).
    """
    (mean, covariance), gaussian, metric = problem
    scaled, r = gaussian.axes
    values, slopes = smoothed(common.others, common.epsilon)
    away = mean - gaussian.mean
    along = away if metric is None else metric @ away
    spread = covariance.trace() if metric is None else (metric * covariance).sum()
    cross = root.trace + values.sum()
    distance = (away * along).sum() + spread + gaussian.trace - 2 * cross
    weighed = torch.cat([root.slope @ scaled[:r], slopes[:, None] * scaled[r:]])
    gradient = torch.addmm(metric, scaled.T, weighed, alpha=-2) if metric is not None else scaled.T @ (-2 * weighed)
    if metric is None:
        gradient.diagonal().add_(1)
    # Σ is the mean of f fᵀ less μ μᵀ.
    of_mean = 2 * along - gradient @ mean - mean @ gradient
    return distance, torch.cat([gradient, of_mean[:, None]], dim=1)


def distances(problems: Sequence[Callable[[], Problem]], device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Distances and gradients of several problems, under no gradient.

    On a CPU they are solved side by side, a thread each, as their matrices are too small to be shared; elsewhere all
    roots are taken at once.
    """
    if not prefers_large_operations(device):
        return side_by_side(_solved, problems[::-1])[::-1]  # the deepest layers, whose matrices are largest, first
    made = [make() for make in problems]
    common = [common_variances(problem) for problem in made]
    found = roots([each.matrix for each in common], [each.epsilon for each in common])
    return [wasserstein_distance(*each) for each in zip(made, common, found, strict=True)]


def _solved(make: Callable[[], Problem]) -> tuple[Tensor, Tensor]:
    problem = make()
    common = common_variances(problem)
    return wasserstein_distance(problem, common, *roots([common.matrix], [common.epsilon]))


class _Distances(torch.autograd.Function):
    """Distances (n,) whose gradients are there already: they need what the distances need."""

    @staticmethod
    def forward(ctx: Any, targets: Sequence[tuple[StyleGaussian, Projection | None]], *means: Tensor) -> Tensor:
        problems = [partial(_problem, mean, *target) for mean, target in zip(means, targets, strict=True)]
        found = distances(problems, means[0].device)
        ctx.save_for_backward(*[gradient for _, gradient in found])
        return torch.stack([distance for distance, _ in found])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *[one * gradient for one, gradient in zip(upstream, ctx.saved_tensors, strict=True)])


def _problem(mean: Tensor, gaussian: StyleGaussian, projection: Projection | None) -> Problem:
    metric = None if projection is None else projection.moments.to(mean.dtype)
    return Problem(moments_of(mean), gaussian, metric)


class Wasserstein(StyleTerm):
    """Take on the style's Gaussian, by the squared Wasserstein-2 distance, which is 1 at the content image.

    After Mroueh 2019 (Wasserstein Style Transfer), as a loss. It weighs a channel by how far it has to go and not by
    the square of its energy, so weak channels count more than with Gram matrices. With several styles the distances are
    averaged.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        correlated: Share of a style's variance, above 0, whose principal axes count with all their correlations. At 1
            all do, and the distance is exact. The weak axes that hold the rest count each by itself: the distance is
            that of the image's covariance without their correlations, a lower bound. With 0.99 the eigenvalues cost a
            quarter.
    """

    takes_projection = True
    needs_spread = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = STYLE_LAYERS,
        weight: float = 1.0,
        correlated: float = 1.0,
    ) -> None:
        super().__init__(layers, weight)
        if not 0 < correlated <= 1:
            raise UserError(f"{self.name}.correlated: must be above 0 and at most 1, got {correlated}; 1 is exact")
        self.correlated = correlated

    def workspace(self, channels: Sequence[int], size: tuple[int, int]) -> Matrices:
        """Seven matrices at each layer, and six in double precision of the most axes that have correlations."""
        one, axes = 4 * sum(count**2 for count in channels), _AXES * max(channels, default=0)
        return Matrices(2 * one, 2 * one, 3 * one + int(6 * 8 * len(channels) * axes**2))

    def measure(self, layer: Layer, features: Tensor, window: Window, target: Any) -> Tensor:
        """F Fᵀ and the sum of F over the cells, (1, C, rows, columns) -> (C, C + 1)."""
        return moments_sum(features, window.weights)

    def style_target(self, layer: Layer, styles: Sequence[tuple[Tensor, float]]) -> list[StyleGaussian]:
        """Each style's Gaussian and its principal axes."""
        with one_thread():
            return [gaussian_of(mean, layer.projection, self.correlated, share) for mean, share in styles]

    def target(self, layer: Layer, content: Tensor, style: list[StyleGaussian]) -> tuple[list[StyleGaussian], Tensor]:
        """The style's Gaussians, and the distance of the content's."""
        size = torch.stack([gaussian.share * gaussian.size for gaussian in style])
        return style, balance(self._distances({layer: content}, {layer: style})[layer], size.sum())

    def loss(self, layer: Layer, mean: Tensor, target: tuple[list[StyleGaussian], Tensor]) -> Tensor:
        """Distance from the styles' Gaussians over that of the content's."""
        return self.losses({layer: mean}, {layer: target})[layer]

    def losses(
        self, means: Mapping[Layer, Tensor], targets: Mapping[Layer, tuple[list[StyleGaussian], Tensor]]
    ) -> dict[Layer, Tensor]:
        """`loss` at several layers, which are compared side by side."""
        found = self._distances(means, {layer: style for layer, (style, _) in targets.items()})
        return {layer: found[layer] / targets[layer][1] for layer in means}

    def _distances(
        self, means: Mapping[Layer, Tensor], styles: Mapping[Layer, list[StyleGaussian]]
    ) -> dict[Layer, Tensor]:
        pairs = [(layer, gaussian) for layer in means for gaussian in styles[layer]]
        targets = [(gaussian, layer.projection) for layer, gaussian in pairs]
        found = _Distances.apply(targets, *[means[layer] for layer, _ in pairs])
        parts: dict[Layer, list[Tensor]] = {layer: [] for layer in means}
        for (layer, gaussian), distance in zip(pairs, found.unbind(), strict=True):
            parts[layer].append(gaussian.share * distance)
        return {layer: torch.stack(of_styles).sum() for layer, of_styles in parts.items()}
