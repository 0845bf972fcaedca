"""Regions in colours, over the picture that they are of."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor

from nst_lightning.images.resize import resize
from nst_lightning.objective.regions import MOST

_GOLDEN = 0.618  # of a turn from one hue to the next: neighbours are far apart, and none comes twice
_TINT = 0.6
_COLOURS = torch.tensor([colorsys.hsv_to_rgb(0.02 + k * _GOLDEN, 0.75, 0.95) for k in range(MOST)])


def tinted(picture: Tensor, regions: Tensor) -> Tensor:
    """Lay the colours of regions over a picture.

    Args:
        picture: (1, 3, H, W), RGB in [0, 1].
        regions: How much each place belongs to each, (1, N, h, w) in [0, 1], N at most 8; where all are 0 it is black.

    Returns:
        As `picture`.
    """
    weights = resize(regions, (picture.shape[-2], picture.shape[-1]), "bilinear").clamp(0, 1)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    colours = torch.einsum("bkhw,kc->bchw", weights, _COLOURS[: regions.shape[1]].to(weights))
    return (1 - _TINT) * picture + _TINT * colours
