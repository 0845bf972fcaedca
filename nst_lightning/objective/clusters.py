"""Clusters of feature vectors: k-means, the same each time."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 50  # at most; a few dozen cells in doubt do not matter


def k_means(points: Tensor, count: int) -> Tensor:
    """Centres of clusters by Lloyd's iterations, from the point next to the mean and then always the farthest one.

    Args:
        points: (n, d), in double precision.
        count: How many clusters, from 1 to n.

    Returns:
        (count, d). Where points coincide there may be the same centre twice.
    """
    centres = _farthest(points, count)
    owner = torch.full((len(points),), -1)
    for _ in range(_ROUNDS):
        nearest = squared_distances(points, centres).argmin(1)
        if bool((nearest == owner).all()):
            break
        owner = nearest
        members = torch.nn.functional.one_hot(owner, count).to(points)
        sizes = members.sum(0)[:, None]
        centres = torch.where(sizes > 0, members.T @ points / sizes.clamp(min=1), centres)
    return centres


def _farthest(points: Tensor, count: int) -> Tensor:
    """Points that are far from one another, the first the one next to the mean."""
    chosen = [int(squared_distances(points, points.mean(0, keepdim=True)).argmin())]
    while len(chosen) < count:
        chosen.append(int(squared_distances(points, points[chosen]).amin(1).argmax()))
    return points[chosen]


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Of each of n points to each of k centres: (n, k)."""
    cross = points @ centres.T
    return ((points**2).sum(1, keepdim=True) - 2 * cross + (centres**2).sum(1)).clamp(min=0)


def memberships(points: Tensor, centres: Tensor, softness: float) -> Tensor:
    """How much each point belongs to each cluster: (n, k), rows sum to 1.

    The exponential of the squared distance over `softness` times the mean squared distance to the nearest centre.
    """
    distances = squared_distances(points, centres)
    unit = distances.amin(1).mean().clamp(min=1e-12)
    return torch.softmax(-distances / (softness * unit), dim=1)
