"""Statistics of feature maps that are sums over cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.hardware import cached_values


class _GramSum(torch.autograd.Function):
    """F Fᵀ with a backward pass of one product, where autograd would take two."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        exact = features.dtype in {torch.float32, torch.float64}
        if exact and _is_one_matrix(features):
            flat = features.flatten(2)[0]  # (C, h w); a view, whichever dimension lies innermost
            return flat @ flat.T
        if not exact and features.device.type == "cuda":
            # Its matrix units take products of halves exactly and sum them in float32.
            cells = _cells(features)
            return torch.mm(cells.T, cells, out_dtype=torch.float32)
        # Elsewhere half precision is widened first, and a tile's core gathered, in pieces that a cache holds.
        channels = features.shape[1]
        total = features.new_zeros(channels, channels, dtype=features.dtype if exact else torch.float32)
        for rows in _strips(features):
            wide = _cells(rows).to(total.dtype)
            total.addmm_(wide.T, wide)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        features: Tensor = ctx.saved_tensors[0]
        # The result goes back into a network of the features' type, so the product gains nothing from a wider one.
        both = (upstream + upstream.T).to(features.dtype)
        if features.is_contiguous():
            gradient = both @ features.flatten(2)[0]
            return gradient.view(features.shape)
        _, channels, height, width = features.shape
        if _is_one_matrix(features):
            gradient = _cells(features) @ both
            return gradient.view(1, height, width, channels).permute(0, 3, 1, 2)
        result = features.new_empty(height, width, channels)
        start = 0
        for rows in _strips(features):
            stop = start + rows.shape[-2]
            torch.mm(_cells(rows), both, out=result[start:stop].view(-1, channels))
            start = stop
        return result.permute(2, 0, 1)[None]


def _is_one_matrix(features: Tensor) -> bool:
    """Whether cells follow each other at one distance in memory; not so in a part of a map."""
    return features.is_contiguous() or features.is_contiguous(memory_format=torch.channels_last)


def _strips(features: Tensor) -> tuple[Tensor, ...]:
    """Rows of (1, C, h, w) features, as many at a time as a cache holds."""
    row = features.shape[1] * features.shape[3]
    return torch.split(features, max(1, min(features.shape[2], cached_values(features.device.type) // row)), dim=2)


def _cells(features: Tensor) -> Tensor:
    """(1, C, h, w) features as an (h w, C) matrix; without a copy where channels lie innermost in a whole map."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def gram_sum(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Unnormalised Gram matrix F Fᵀ: inner products of channels, summed over cells.

    Args:
        features: (1, C, h, w), any floating type.
        weights: (1, 1, h, w) of at least 0, how often each cell counts; once, if None.

    Returns:
        (C, C), accumulated in float32 (float64 for float64 features).
    """
    if weights is not None:
        features = features * weights.sqrt().to(features.dtype)
    # float16 lacks the range for gradients of a sum over thousands of cells; bfloat16 has float32's.
    result: Tensor = _GramSum.apply(features.float() if features.dtype == torch.float16 else features)
    return result
