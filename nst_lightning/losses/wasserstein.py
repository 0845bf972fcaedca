"""Style as the Gaussian that has the mean and covariance of the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.hardware.numerics import one_thread, side_by_side
from nst_lightning.losses.moments import Moments, moments_of
from nst_lightning.losses.reductions import moments_sum
from nst_lightning.losses.term import StyleStatistic, balance


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
    """A style's covariance by its principal axes, those without variance left out.

    Attributes:
        scaled: (k, C), an axis a row, times the style's deviation along it, the largest first: Σ' = scaledᵀ scaled.
        correlated: How many of the first axes count with all their correlations.
    """

    scaled: Tensor
    correlated: int


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
    """Σ'^½ Σ Σ'^½ in the style's principal axes; its root's trace is what two Gaussians have in common.

    Args:
        covariance: Σ, (C, C).
        axes: Of Σ'.

    Returns:
        The matrix of the correlated axes, (r, r), and its diagonal for the others, (k - r,).
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


class Wasserstein(StyleStatistic):
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

    needs_spread = True
    copies = 1.6  # measured on a CPU

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"],  # noqa: B006
        weight: float = 1.0,
        correlated: float = 1.0,
    ) -> None:
        super().__init__(layers, weight)
        if not 0 < correlated <= 1:
            raise UserError(f"{self.name}.correlated: must be above 0 and at most 1, got {correlated}; 1 is exact")
        self.correlated = correlated

    def statistic(self, layer: str, features: Tensor, weights: Tensor | None = None) -> Tensor:
        """F Fᵀ and the sum of F, (c, c + 1); see StatisticTerm."""
        return moments_sum(features, weights)

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Take each style's Gaussian and its principal axes; see StatisticTerm."""
        targets = [(self._full(layer, mean), share) for mean, share in styles]
        with one_thread():
            self._targets[layer] = [(t, principal_axes(t.covariance, self.correlated), share) for t, share in targets]
        size = torch.stack([s * (t.covariance.trace() + t.mean.square().sum()) for t, s in targets]).sum()
        self._scales[layer] = balance(self._unscaled({layer: content})[layer], size)

    def distance(self, layer: str, mean: Tensor) -> Tensor:
        """Distance from the styles' Gaussians; see StatisticTerm."""
        return self.distances({layer: mean})[layer]

    def distances(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same, with eigenvalues of all layers side by side; see StatisticTerm."""
        unscaled = self._unscaled(means)
        return {layer: (unscaled[layer] / self._scales[layer]).to(mean) for layer, mean in means.items()}

    def _unscaled(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        moments = {layer: self._full(layer, mean) for layer, mean in means.items()}
        pairs = [(layer, *target) for layer in means for target in self._targets[layer]]
        common = [common_variances(moments[layer].covariance, axes) for layer, _, axes, _ in pairs]
        values = side_by_side(eigenvalues, [matrix for matrix, _ in common])
        parts: dict[str, list[Tensor]] = {layer: [] for layer in means}
        for (layer, target, _, share), found, (_, others) in zip(pairs, values, common, strict=True):
            distance = wasserstein_distance(moments[layer], target, torch.cat([found, others]))
            parts[layer].append(share * distance)
        return {layer: torch.stack(of_styles).sum() for layer, of_styles in parts.items()}

    def _full(self, layer: str, mean: Tensor) -> Moments:
        """Moments in coordinates in which distances are those of the full channels; on the CPU if they come from MPS.

        That has no eigenvalues.
        """
        found = moments_of(mean.cpu() if mean.device.type == "mps" else mean)
        widening = self.widenings.get(layer)
        if widening is None:
            return found
        root = widening.root.to(found.mean)
        return Moments(root @ found.mean, root @ found.covariance @ root.T)
