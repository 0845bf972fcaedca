"""Style as the Gaussian that has the mean and covariance of the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nst_lightning.hardware import side_by_side
from nst_lightning.losses.moments import Moments, moments_of
from nst_lightning.losses.statistics import moments_sum
from nst_lightning.losses.term import StyleStatistic, balance

# Of sums of float32 and of float64 products, in units of the largest eigenvalue.
_FLOOR, _FLOOR_OF_DOUBLES = 1e-7, 1e-12


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


def matrix_root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a symmetric matrix (C, C) without negative eigenvalues, under no gradient."""
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # as above
        values, vectors = (x.to(matrix) for x in torch.linalg.eigh(matrix.cpu().double()))
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def cross_covariance(moments: Moments, root: Tensor) -> Tensor:
    """Σ'^½ Σ Σ'^½, (C, C), whose root's trace is what two Gaussians have in common; see `wasserstein_distance`."""
    product = root @ moments.covariance @ root
    return (product + product.T) / 2


def wasserstein_distance(moments: Moments, target: Moments, values: Tensor, floor: float = 1e-12) -> Tensor:
    """Squared Wasserstein-2 distance of two Gaussians (Dowson and Landau 1982, equation 4).

    ‖μ - μ'‖² + tr(Σ + Σ' - 2 (Σ'^½ Σ Σ'^½)^½). The last trace is taken from eigenvalues λ, whose gradient needs no
    differences of eigenvalues, unlike that of a square root. Where Σ is singular the true gradient with respect to Σ is
    infinite; λ / √(λ + ε) in place of √λ keeps it finite and hides what rounding makes of zeros.

    Args:
        moments: Mean (C,) and covariance (C, C), float32 or float64.
        target: The same, of the style.
        values: Eigenvalues of `cross_covariance`.
        floor: ε in units of the largest λ; what λ are known to.

    Returns:
        A scalar, of at least 0 but for rounding.
    """
    epsilon = floor * values.detach().amax().clamp(min=torch.finfo(values.dtype).tiny)
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
    """

    needs_spread = True

    def statistic(self, layer: str, features: Tensor, weights: Tensor | None = None) -> Tensor:
        """F Fᵀ and the sum of F, (c, c + 1); see StatisticTerm."""
        return moments_sum(features, weights)

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Take each style's Gaussian and the root of its covariance; see StatisticTerm."""
        targets = [(self._full(layer, mean), share) for mean, share in styles]
        self._targets[layer] = [(found, matrix_root(found.covariance), share) for found, share in targets]
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
        values = side_by_side(eigenvalues, [cross_covariance(moments[layer], root) for layer, _, root, _ in pairs])
        parts: dict[str, list[Tensor]] = {layer: [] for layer in means}
        for (layer, target, _, share), found in zip(pairs, values, strict=True):
            floor = _FLOOR_OF_DOUBLES if means[layer].dtype == torch.float64 else _FLOOR
            parts[layer].append(share * wasserstein_distance(moments[layer], target, found, floor))
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
