"""Style as means, deviations and covariances of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.losses.gram import Gram
from nst_lightning.losses.reductions import moments_sum
from nst_lightning.losses.term import StyleStatistic, balance, wide

_EPSILON = 1e-5  # under the root of a variance, as in AdaIN: a channel that is constant still has a gradient


class Moments(NamedTuple):
    """First two moments of a layer's channels.

    Attributes:
        mean: (C,).
        covariance: (C, C), over cells, without Bessel's correction.
    """

    mean: Tensor
    covariance: Tensor


def moments_of(mean: Tensor) -> Moments:
    """Mean and covariance from `moments_sum` divided by the number of cells, (C, C + 1)."""
    second, first = mean[:, :-1], mean[:, -1]
    return Moments(first, second - torch.outer(first, first))


class Covariance(Gram):
    """Take on the style's covariances of channels: Gram matrices of features less their mean.

    Unlike Gram matrices they do not hold the mean, so overall brightness and palette are left to the content (Li et al.
    2017, Demystifying Neural Style Transfer, compares the two).

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        normalization: As of `Gram`.
    """

    needs_spread = True

    def statistic(self, layer: str, features: Tensor, weights: Tensor | None = None) -> Tensor:
        """F Fᵀ and the sum of F, (c, c + 1); see StatisticTerm."""
        return moments_sum(features, weights)

    def _pairs(self, mean: Tensor) -> Tensor:
        return moments_of(mean).covariance


class MeanStd(StyleStatistic):
    """Take on the style's mean and standard deviation of each channel.

    ‖μ - μ'‖² + ‖σ - σ'‖², the style loss of AdaIN (Huang and Belongie 2017, equation 13, squared), 1 at the content
    image. It says nothing of how channels go together: palette and contrast come, strokes hardly.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
    """

    needs_spread = True
    keeps_wide = True

    def statistic(self, layer: str, features: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sums of F and F² of each channel, (2, C); of narrow features `moments_sum`; see StatisticTerm."""
        if layer in self.widenings:
            return moments_sum(features, weights)
        values = wide(features)
        if weights is None:
            return torch.stack([values.sum((0, 2, 3)), (values * values).sum((0, 2, 3))])
        first = (values * weights).sum((0, 2, 3))
        return torch.stack([first, (values * values * weights).sum((0, 2, 3))])  # keeps no weighted values

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Blend the styles' means and deviations; see StatisticTerm."""
        target = torch.stack([share * self._mean_and_deviation(layer, mean) for mean, share in styles]).sum(0)
        self._targets[layer] = target
        at_content = (self._mean_and_deviation(layer, content) - target).square().sum()
        self._scales[layer] = balance(at_content, target.square().sum())

    def distance(self, layer: str, mean: Tensor) -> Tensor:
        """Squared distance of means and deviations; see StatisticTerm."""
        difference: Tensor = self._mean_and_deviation(layer, mean) - self._targets[layer]
        return difference.square().sum() / self._scales[layer]

    def _mean_and_deviation(self, layer: str, mean: Tensor) -> Tensor:
        """(2, C), of the full channels."""
        widening = self.widenings.get(layer)
        if widening is None:
            first, variance = mean[0], mean[1] - mean[0].square()
        else:
            narrow, matrix = moments_of(mean), widening.matrix.to(mean.dtype)
            first, variance = matrix @ narrow.mean, ((matrix @ narrow.covariance) * matrix).sum(1)
        return torch.stack([first, (variance.clamp(min=0) + _EPSILON).sqrt()])
