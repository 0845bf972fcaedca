"""Style as means, deviations and covariances of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nst_lightning.losses.gram import Gram
from nst_lightning.losses.reductions import moments_sum
from nst_lightning.losses.reference import Window, at_least_float32
from nst_lightning.losses.term import Layer, StyleTerm

_EPSILON = 1e-5  # under the root of a variance, as in AdaIN: a channel that is constant still has a gradient


class Moments(NamedTuple):
    """First two moments of a layer's channels."""

    mean: Tensor  # (C,)
    covariance: Tensor  # (C, C), over cells, without Bessel's correction


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

    def measure(self, layer: Layer, features: Tensor, window: Window, target: Any) -> Tensor:
        """F Fᵀ and the sum of F over the cells, (1, C, rows, columns) -> (C, C + 1)."""
        return moments_sum(features, window.weights)

    def _matrix(self, mean: Tensor) -> Tensor:
        return moments_of(mean).covariance


class MeanStd(StyleTerm):
    """Take on the style's mean and standard deviation of each channel.

    ‖μ - μ'‖² + ‖σ - σ'‖², the style loss of AdaIN (Huang and Belongie 2017, equation 13, squared), 1 at the content
    image. It says nothing of how channels go together: palette and contrast come, strokes hardly.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
    """

    takes_projection = True
    needs_spread = True
    float32_gradient = True

    def measure(self, layer: Layer, features: Tensor, window: Window, target: Any) -> Tensor:
        """Sums of F and F² of each channel, (1, C, rows, columns) -> (2, C); with a projection `moments_sum`."""
        if layer.projection is not None:
            return moments_sum(features, window.weights)
        values, weights = at_least_float32(features), window.weights
        if weights is None:
            return torch.stack([values.sum((0, 2, 3)), (values * values).sum((0, 2, 3))])
        first = (values * weights).sum((0, 2, 3))
        return torch.stack([first, (values * values * weights).sum((0, 2, 3))])  # keeps no weighted values

    def style_target(self, layer: Layer, styles: Sequence[tuple[Tensor, float]]) -> Tensor:
        """The styles' weighted mean of means and deviations, (2, C)."""
        return torch.stack([share * self._mean_and_deviation(layer, mean) for mean, share in styles]).sum(0)

    def distance(self, layer: Layer, mean: Tensor, target: Tensor) -> Tensor:
        """Squared distance of means and deviations."""
        return (self._mean_and_deviation(layer, mean) - target).square().sum()

    def size(self, layer: Layer, mean: Tensor, target: Tensor) -> Tensor:
        """Sum of squares of means and deviations."""
        return target.square().sum()

    def _mean_and_deviation(self, layer: Layer, mean: Tensor) -> Tensor:
        """(2, C), of VGG-19's channels."""
        if layer.projection is None:
            first, variance = mean[0], mean[1] - mean[0].square()
        else:
            narrow, matrix = moments_of(mean), layer.projection.matrix.to(mean.dtype)
            first, variance = matrix @ narrow.mean, ((matrix @ narrow.covariance) * matrix).sum(1)
        return torch.stack([first, (variance.clamp(min=0) + _EPSILON).sqrt()])
