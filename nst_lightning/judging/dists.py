"""DISTS (Ding et al. 2020, Image Quality Assessment: Unifying Structure and Texture Similarity)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.images.resize import resize, target_size
from nst_lightning.judging.backbones import Weights, vgg16
from nst_lightning.judging.lpips import VGG_LAYERS

_SIDE = 256  # px of the short side, as in the paper
_STABLE = 1e-6
_SMALLEST_SQUARE = 1e-12


def dists(weights: Weights, channels: Tensor, one: Tensor, other: Tensor) -> float:
    """DISTS of two pictures, which are reduced to a short side of 256 px where they have more.

    Args:
        weights: As `backbone_weights` gives those of VGG-16.
        channels: (2, C), which sums to 1: how much means and correlations of each channel count, the picture's first.
        one: (1, 3, H, W), RGB in [0, 1].
        other: The same shape.

    Returns:
        0 for equal pictures, 1 for pictures that have nothing in common.
    """
    height, width = one.shape[-2:]
    if min(height, width) > _SIDE:
        size = target_size(height, width, _SIDE, "short")
        one, other = (resize(image, size, "bilinear") for image in (one, other))
    maps = zip(_maps(weights, one), _maps(weights, other), strict=True)
    similarities = torch.cat([_similarities(ours, theirs) for ours, theirs in maps], dim=1)
    return float(1 - (channels * similarities).sum())


def _maps(weights: Weights, image: Tensor) -> Iterator[Tensor]:
    """The picture's own channels, then those of the layers: (C, cells) each."""
    yield image[0].flatten(1)
    for layer, x in vgg16(weights, image, _l2_pool):
        if layer in VGG_LAYERS:
            yield x[0].flatten(1)


def _similarities(one: Tensor, other: Tensor) -> Tensor:
    """Similarities of the means of channels, and of their variations, (C, n) -> (2, C)."""
    mean, other_mean = one.mean(1), other.mean(1)
    deviation, other_deviation = one - mean[:, None], other - other_mean[:, None]
    variance, other_variance = deviation.square().mean(1), other_deviation.square().mean(1)
    covariance = (deviation * other_deviation).mean(1)
    means = (2 * mean * other_mean + _STABLE) / (mean.square() + other_mean.square() + _STABLE)
    return torch.stack([means, (2 * covariance + _STABLE) / (variance + other_variance + _STABLE)])


def _l2_pool(x: Tensor) -> Tensor:
    """Root of a weighted mean of squares of 3x3 cells, every second one: unlike the maximum it does not alias."""
    row = x.new_tensor([0.25, 0.5, 0.25])
    kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + _SMALLEST_SQUARE).sqrt()
