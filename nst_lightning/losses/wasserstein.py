"""Style as the Gaussian that has the mean and covariance of the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.hardware.numerics import has_eigenvalues, one_thread, side_by_side
from nst_lightning.losses.moments import Moments, moments_of
from nst_lightning.losses.reductions import moments_sum
from nst_lightning.losses.reference import Window
from nst_lightning.losses.term import STYLE_LAYERS, Layer, StyleTerm, balance


def _rounding(values: Tensor) -> float:
    """What eigenvalues of sums of products are known to, in units of the largest."""
    return 1e-12 if values.dtype == torch.float64 else 1e-7


def eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues (C,) of a symmetric matrix (C, C), ascending; NaN if it holds NaN.

    In single precision LAPACK now and then gives up on a matrix of low rank, which a small picture's covariance is; in
    double precision it does not. It also gives up on NaN, which is for the optimiser to notice, not the end of a run.
    """
    try:
        values: Tensor = torch.linalg.eigvalsh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if not bool(matrix.isfinite().all()):
            return matrix.diagonal() * torch.nan
        values = torch.linalg.eigvalsh(matrix.cpu().double()).to(matrix)
    return values


class PrincipalAxes(NamedTuple):
    """A style's covariance by its principal axes, those without variance left out."""

    scaled: Tensor  # (k, C), an axis a row, times the style's deviation along it, largest first: Σ' = scaledᵀ scaled
    correlated: int  # how many of the first axes count with all their correlations


def principal_axes(covariance: Tensor, share: float = 1.0) -> PrincipalAxes:
    """Take a covariance (C, C) apart, under no gradient.

    Args:
        covariance: Symmetric, without negative eigenvalues but for rounding; of fewer cells than channels it is
            singular, and what is left out there saves a good part of `eigenvalues`.
        share: Of the variance that the axes must hold which count with all their correlations.
    """
    try:
        values, vectors = torch.linalg.eigh(covariance)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # as above
        values, vectors = (x.to(covariance) for x in torch.linalg.eigh(covariance.cpu().double()))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = max(1, int((values > values[0] * _rounding(values)).sum()))
    held = values[:kept].cumsum(0)
    correlated = kept if share >= 1 else min(kept, int((held < share * held[-1]).sum()) + 1)
    return PrincipalAxes((vectors * values.sqrt()).T[:kept].contiguous(), correlated)


def common_variances(covariance: Tensor, axes: PrincipalAxes) -> tuple[Tensor, Tensor]:
    """Σ'^½ Σ Σ'^½ in the style's principal axes, those of Σ'; its root's trace is what two Gaussians have in common.

    With Σ (C, C), it is the matrix of the correlated axes, (r, r), and its diagonal for the others, (k - r,).
    """
    scaled, r = axes
    half = scaled @ covariance
    matrix = half[:r] @ scaled[:r].T
    return (matrix + matrix.T) / 2, (half[r:] * scaled[r:]).sum(1)


def wasserstein_distance(moments: Moments, target: Moments, values: Tensor) -> Tensor:
    """Squared Wasserstein-2 distance of two Gaussians (Dowson and Landau 1982, equation 4).

    ‖μ - μ'‖² + tr(Σ + Σ' - 2 (Σ'^½ Σ Σ'^½)^½). The last trace is taken from eigenvalues λ, whose gradient needs no
    differences of eigenvalues, unlike that of a square root. Where Σ is singular the true gradient with respect to Σ is
    infinite; λ / √(λ + ε) in place of √λ keeps it finite and hides what rounding makes of zeros.

    Args:
        moments: Mean (C,) and covariance (C, C), float32 or float64.
        target: The same, of the style.
        values: Eigenvalues of Σ'^½ Σ Σ'^½, those that are zero for any Σ left out; see `common_variances`.

    Returns:
        A scalar, of at least 0 but for rounding.
    """
    epsilon = _rounding(values) * values.detach().amax().clamp(min=torch.finfo(values.dtype).tiny)
    cross = (values / (values.clamp(min=0) + epsilon).sqrt()).sum()
    shift = (moments.mean - target.mean).square().sum()
    distance: Tensor = shift + moments.covariance.trace() + target.covariance.trace() - 2 * cross
    return distance


class StyleGaussian(NamedTuple):
    """What `Wasserstein` compares with: a style, its covariance's axes, and its share of the blend."""

    moments: Moments
    axes: PrincipalAxes
    share: float


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
    copies = 1.6  # measured on a CPU

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

    def measure(self, layer: Layer, features: Tensor, window: Window, target: Any) -> Tensor:
        """F Fᵀ and the sum of F over the cells, (1, C, rows, columns) -> (C, C + 1)."""
        return moments_sum(features, window.weights)

    def style_target(self, layer: Layer, styles: Sequence[tuple[Tensor, float]]) -> list[StyleGaussian]:
        """Each style's Gaussian and its principal axes."""
        found = [(self._moments(layer, mean), share) for mean, share in styles]
        with one_thread():
            return [StyleGaussian(m, principal_axes(m.covariance, self.correlated), share) for m, share in found]

    def target(self, layer: Layer, content: Tensor, style: list[StyleGaussian]) -> tuple[list[StyleGaussian], Tensor]:
        """The style's Gaussians, and the distance of the content's."""
        size = torch.stack([g.share * (g.moments.covariance.trace() + g.moments.mean.square().sum()) for g in style])
        return style, balance(self._distances({layer: content}, {layer: style})[layer], size.sum())

    def loss(self, layer: Layer, mean: Tensor, target: tuple[list[StyleGaussian], Tensor]) -> Tensor:
        """Distance from the styles' Gaussians over that of the content's."""
        return self.losses({layer: mean}, {layer: target})[layer]

    def losses(
        self, means: Mapping[Layer, Tensor], targets: Mapping[Layer, tuple[list[StyleGaussian], Tensor]]
    ) -> dict[Layer, Tensor]:
        """`loss` at several layers, whose eigenvalues are computed side by side."""
        distances = self._distances(means, {layer: style for layer, (style, _) in targets.items()})
        return {layer: (distances[layer] / targets[layer][1]).to(mean) for layer, mean in means.items()}

    def _distances(
        self, means: Mapping[Layer, Tensor], styles: Mapping[Layer, list[StyleGaussian]]
    ) -> dict[Layer, Tensor]:
        moments = {layer: self._moments(layer, mean) for layer, mean in means.items()}
        pairs = [(layer, gaussian) for layer in means for gaussian in styles[layer]]
        common = [common_variances(moments[layer].covariance, gaussian.axes) for layer, gaussian in pairs]
        values = side_by_side(eigenvalues, [matrix for matrix, _ in common])
        parts: dict[Layer, list[Tensor]] = {layer: [] for layer in means}
        for (layer, gaussian), found, (_, others) in zip(pairs, values, common, strict=True):
            distance = wasserstein_distance(moments[layer], gaussian.moments, torch.cat([found, others]))
            parts[layer].append(gaussian.share * distance)
        return {layer: torch.stack(of_styles).sum() for layer, of_styles in parts.items()}

    def _moments(self, layer: Layer, mean: Tensor) -> Moments:
        """Moments whose distances are those of VGG-19's channels; on the CPU where the device has no eigenvalues."""
        found = moments_of(mean if has_eigenvalues(mean.device) else mean.cpu())
        if layer.projection is None:
            return found
        root = layer.projection.root.to(found.mean)
        return Moments(root @ found.mean, root @ found.covariance @ root.T)
