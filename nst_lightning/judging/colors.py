"""How far the colours of a picture are from the style's: histograms of HistoGAN (Afifi, Brubaker and Brown 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.images.resize import resize

_BINS, _REACH, _WIDTH = 64, 3.0, 0.02  # logarithms of ratios of channels from -3 to 3
_SIDE = 256  # px; larger pictures are reduced to 256x256, as in the authors' program
_SMALLEST = 1e-6


def color_distance(one: Tensor, other: Tensor) -> float:
    """Hellinger distance of two pictures' histograms of colour.

    Brightness weighs pixels and is not looked at otherwise: a darker picture of the same colours is as good.

    Args:
        one: (1, 3, H, W), RGB in [0, 1].
        other: (1, 3, h, w).

    Returns:
        0 for equal histograms, 1 for those that have no colour in common.
    """
    ours, theirs = (color_histogram(image) for image in (one, other))
    return float((ours.sqrt() - theirs.sqrt()).square().sum().sqrt()) / 2**0.5


def color_histogram(picture: Tensor) -> Tensor:
    """RGB-uv histogram: of each channel how its logarithm differs from the other two's, weighted by brightness.

    Args:
        picture: (1, 3, H, W), RGB in [0, 1].

    Returns:
        (3, 64, 64), which sums to 1.
    """
    height, width = picture.shape[-2:]
    if max(height, width) > _SIDE:
        picture = resize(picture, (_SIDE, _SIDE), "bilinear")
    pixels = picture[0].flatten(1)
    brightness = (pixels.square().sum(0) + _SMALLEST).sqrt()
    logarithms = (pixels + _SMALLEST).log()
    centres = torch.linspace(-_REACH, _REACH, _BINS).to(pixels)
    # Of a channel the other two, the first along rows and the second along columns.
    pairs = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
    planes = []
    for channel, *others in pairs:
        near = [_nearness(logarithms[channel] - logarithms[other], centres) for other in others]
        planes.append((brightness * near[0]) @ near[1].T)
    histogram = torch.stack(planes)
    return histogram / (histogram.sum() + _SMALLEST)


def _nearness(values: Tensor, centres: Tensor) -> Tensor:
    """How much values (n,) count in bins with these centres (k,): (k, n)."""
    return 1 / (1 + ((values - centres[:, None]) / _WIDTH).square())
