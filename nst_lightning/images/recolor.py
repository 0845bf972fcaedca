"""Colours of one picture for another: by luma, or by the mean and covariance of colours."""

from __future__ import annotations

import torch
from torch import Tensor

# Rec. ITU-R BT.601-7, section 2.5.1: the luma of JPEG's and Pillow's YCbCr.
_LUMA = (0.299, 0.587, 0.114)
_SMALLEST_VARIANCE = 1e-6  # a quarter of an 8-bit step, squared: a grey picture's chroma has no direction to stretch


def luma(picture: Tensor) -> Tensor:
    """Y' of gamma-encoded RGB: (1, 3, H, W) in [0, 1] -> (1, 1, H, W) in [0, 1]."""
    weights = picture.new_tensor(_LUMA).view(1, 3, 1, 1)
    return (picture * weights).sum(1, keepdim=True)


def with_luma(picture: Tensor, wanted: Tensor) -> Tensor:
    """Give a picture another luma and leave its chroma as it is.

    The same number added to R, G and B changes Y' and neither Cb nor Cr, nor I and Q (Gatys et al. 2016, Preserving
    Color in Neural Artistic Style Transfer, transfers luminance so). Luma stops where a channel would leave [0, 1];
    clamping channels one by one would change the colour.

    Args:
        picture: (1, 3, H, W), RGB in [0, 1].
        wanted: (1, 1, H, W).

    Returns:
        (1, 3, H, W), RGB in [0, 1].
    """
    change = wanted - luma(picture)
    change = change.clamp(min=-picture.amin(1, keepdim=True), max=1 - picture.amax(1, keepdim=True))
    return (picture + change).clamp(0, 1)  # but for rounding


def match_luma(picture: Tensor, reference: Tensor) -> Tensor:
    """Bring the mean and deviation of luma to those of another picture (Gatys et al. 2016, as above).

    Args:
        picture: (1, 1, h, w).
        reference: (1, 1, H, W).

    Returns:
        (1, 1, h, w), clamped to [0, 1].
    """
    floor = _SMALLEST_VARIANCE**0.5
    scale = reference.std(unbiased=False) / picture.std(unbiased=False).clamp(min=floor)
    return (scale * (picture - picture.mean()) + reference.mean()).clamp(0, 1)


def match_colors(picture: Tensor, reference: Tensor) -> Tensor:
    """Bring mean and covariance of colours to those of another picture, moving colours as little as can be.

    The optimal transport between Gaussians (Pitié and Kokaram 2007, The Linear Monge-Kantorovitch Linear Colour
    Mapping), on gamma-encoded values, whose steps are about equal to the eye; in linear light a few highlights would
    make up the covariance.

    Args:
        picture: (1, 3, h, w), RGB in [0, 1].
        reference: (1, 3, H, W), the same.

    Returns:
        (1, 3, h, w), clamped to [0, 1].
    """
    mean, covariance = _moments(picture)
    wanted, target = _moments(reference)
    root, inverse = _root(covariance), _root(covariance, -0.5)
    transport = (inverse @ _root(root @ target @ root) @ inverse).to(picture)
    moved = torch.einsum("ij,njhw->nihw", transport, picture - mean.to(picture).view(1, 3, 1, 1))
    return (moved + wanted.to(picture).view(1, 3, 1, 1)).clamp(0, 1)


def _moments(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of colours, in float64 on the CPU: three numbers a picture."""
    pixels = picture.detach().cpu().double()[0].flatten(1)
    covariance = torch.cov(pixels, correction=0) + _SMALLEST_VARIANCE * torch.eye(3, dtype=torch.float64)
    return pixels.mean(1), covariance


def _root(matrix: Tensor, power: float = 0.5) -> Tensor:
    """A power of a symmetric positive matrix (3, 3)."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    powered: Tensor = (vectors * values.clamp(min=torch.finfo(values.dtype).tiny) ** power) @ vectors.T
    return powered
