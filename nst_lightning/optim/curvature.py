"""Initial inverse Hessians that are diagonal in spatial frequency, from what pairs of steps and gradients tell.

Were the Hessian diagonal in frequency, ``‖s‖ / ‖y‖`` on a ring of frequencies would be its inverse. How that depends
on frequency hardly depends on the size of the image, but for a factor of its pixels, since the network sees pixels: so
what was measured at one size is a start at another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_LARGEST_LOG_CORRECTION = 7.0  # bound for each ring, against a few unlucky pairs


class Curvature(NamedTuple):
    """An inverse Hessian that is diagonal in spatial frequency, as a factor on the metric."""

    log_frequencies: list[float]  # natural logarithms of frequencies in cycles per pixel, rising
    log_factors: list[
        float
    ]  # logarithm of the factor at each, over the number of the image's pixels; by axis of colour

    def at(self, log_frequencies: Sequence[float], pixels: int, axes: int = 1) -> list[float]:
        """Factors at other frequencies, for an image of so many pixels; beyond the ends as at them.

        They come axis of colour by axis; what is known of one axis alone goes for all, and of all the mean for one.
        """
        known = np.reshape(self.log_factors, (-1, len(self.log_frequencies)))
        if len(known) != axes:
            known = known.mean(0, keepdims=True)
        rows = [np.interp(log_frequencies, self.log_frequencies, row) + math.log(pixels) for row in known]
        return [float(factor) for row in rows * (axes // len(rows)) for factor in np.exp(row)]


def ring_scales(ss: Tensor, yy: Tensor, rings: list[int]) -> Tensor:
    """Inverse curvature of each ring, ‖s‖ / ‖y‖ over the history, smoothed; any common factor is left to γ.

    Takes (rings,) squared lengths of steps and of changes of the gradient, summed over the history, and the number of
    rings of each parameter, within which smoothing stays. Returns (rings,) positive factors, ones where nothing is to
    be measured.
    """
    known = (ss > 0) & (yy > 0)
    logarithm = torch.where(known, (ss.log() - yy.log()) / 2, 0)
    mean = logarithm.sum() / known.sum().clamp(min=1)
    logarithm = torch.where(known, logarithm - mean, 0).clamp(-_LARGEST_LOG_CORRECTION, _LARGEST_LOG_CORRECTION)
    smooth = []
    for piece in torch.split(logarithm, rings):
        padded = torch.cat([piece[:1], piece, piece[-1:]])
        smooth.append((padded[:-2] + 2 * piece + padded[2:]) / 4)
    return torch.cat(smooth).exp()
