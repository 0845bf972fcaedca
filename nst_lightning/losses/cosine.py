"""Directions of features, whose inner products are cosines."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.losses.projection import Projection

_SOFT = 1e-3  # of a typical length: a cell without any activation has no direction, and shall have a small gradient


def softness(square: Tensor) -> Tensor:
    """What `directions` adds to squared lengths, a scalar above 0, where their mean is `square`, a scalar."""
    return _SOFT**2 * square.clamp(min=torch.finfo(square.dtype).tiny)


def directions(cells: Tensor, soft: Tensor) -> Tensor:
    """Cells (n, C) over their lengths, which are made a little longer: those of zeros stay zeros."""
    return cells / (cells.square().sum(1, keepdim=True) + soft).sqrt()


def full(cells: Tensor, projection: Projection | None) -> Tensor:
    """Cells (n, c) of a network with fewer channels, turned so that inner products are those of VGG-19's channels."""
    return cells if projection is None else cells @ projection.root.to(cells).T
