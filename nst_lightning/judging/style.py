"""How much of the way from the content to the style a picture has come, by statistics of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nst_lightning.losses.gram import gram_matrix
from nst_lightning.losses.sliced import unit_directions

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # no term of ours takes any of them
_DIRECTIONS, _CELLS = 64, 1 << 14


def share_closed(left: float, gap: float) -> float:
    """1 less the distance that is left over the one that there was; not a number where there was none."""
    return 1 - left / gap if gap > 0 else math.nan


def gram_closed(result: Tensor, content: Tensor, style: Tensor) -> float:
    """Share of the distance (Frobenius) of content's and style's Gram matrices that the result has closed.

    Args:
        result: Features of a layer, (1, C, h, w).
        content: The same.
        style: (1, C, h', w').

    Returns:
        0 for the content, 1 for the style; below 0 for what is farther away than the content.
    """
    return matrices_closed(*(gram_matrix(features) for features in (result, content, style)))


def matrices_closed(ours: Tensor, start: Tensor, goal: Tensor) -> float:
    """As `gram_closed`, of Gram matrices (C, C) of result, content and style."""
    return share_closed(float((ours - goal).norm()), float((start - goal).norm()))


def sliced_closed(result: Tensor, content: Tensor, style: Tensor) -> float:
    """As `gram_closed`, of the sliced Wasserstein distance of features."""
    return cells_closed(*(_sampled(features) for features in (result, content, style)))


def cells_closed(ours: Tensor, start: Tensor, goal: Tensor) -> float:
    """As `sliced_closed`, of cells of result, content and style, (C, n) each with a number of its own."""
    return share_closed(sliced_wasserstein(ours, goal), sliced_wasserstein(start, goal))


def sliced_wasserstein(one: Tensor, other: Tensor, seed: int = 0) -> float:
    """Mean Wasserstein-1 distance of projections onto random directions (Rabin et al. 2011), the same in each call.

    Args:
        one: Cells of a layer, (C, n).
        other: (C, m).
        seed: Of the directions.
    """
    directions = unit_directions(_DIRECTIONS, one.shape[0], seed).to(one)
    return float(wasserstein(directions @ one, directions @ other).mean())


def wasserstein(one: Tensor, other: Tensor) -> Tensor:
    """Wasserstein-1 distances of rows of numbers, (k, n) and (k, m) -> (k,): areas between distribution functions."""
    one, other = one.sort(dim=1).values, other.sort(dim=1).values
    places = torch.cat([one, other], dim=1).sort(dim=1).values
    below = [_share_below(side, places[:, :-1].contiguous()) for side in (one, other)]
    return ((below[0] - below[1]).abs_() * places.diff(dim=1)).sum(1)


def _share_below(ascending: Tensor, places: Tensor) -> Tensor:
    """Distribution functions of rows (k, n), which ascend, at places (k, m)."""
    return torch.searchsorted(ascending, places, right=True).to(ascending) / ascending.shape[1]


def sample_step(height: int, width: int) -> int:
    """Distance of cells on the grid that a layer of so many rows and columns is sampled on."""
    return max(1, math.ceil(math.sqrt(height * width / _CELLS)))


def _sampled(features: Tensor) -> Tensor:
    """Cells on a regular grid, no more than enough: (1, C, h, w) -> (C, n)."""
    step = sample_step(*features.shape[-2:])
    return features[0, :, ::step, ::step].flatten(1)
