"""LPIPS (Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric), version 0.1."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.judging.backbones import Weights, alexnet

VGG_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_EPSILON = 1e-10


def layer_distance(one: Tensor, other: Tensor, channels: Tensor) -> float:
    """What a layer adds to LPIPS: the weighted squared distance of cells that have length 1, averaged over cells.

    Args:
        one: (1, C, h, w).
        other: The same shape.
        channels: (C,), weights of at least 0.
    """
    return float(squared_distances(one, other, channels).mean())


def squared_distances(one: Tensor, other: Tensor, channels: Tensor) -> Tensor:
    """As `layer_distance`, of each cell: (1, h, w)."""
    squares = _unit(one).sub_(_unit(other)).square_()
    return torch.einsum("nchw,c->nhw", squares, channels)


def lpips_alexnet(weights: Weights, one: Tensor, other: Tensor) -> float:
    """LPIPS with AlexNet.

    Args:
        weights: As `backbone_weights` gives them.
        one: (1, 3, H, W), RGB in [0, 1], sides of at least 31 px.
        other: The same shape.

    Returns:
        0 for equal pictures, about 1 for pictures that have nothing in common.
    """
    total = 0.0
    for index, ((_, ours), (_, theirs)) in enumerate(zip(alexnet(weights, one), alexnet(weights, other), strict=True)):
        total += layer_distance(ours, theirs, weights[f"lin{index}"])
    return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt_() + _EPSILON)
