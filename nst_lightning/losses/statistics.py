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
        if features.dtype in {torch.float32, torch.float64}:
            flat = features.flatten(2)[0]  # (C, h w); a view, whichever dimension lies innermost
            return flat @ flat.T
        cells = _cells(features)
        if features.device.type == "cuda":  # its matrix units take products of halves exactly and sum them in float32
            return torch.mm(cells.T, cells, out_dtype=torch.float32)
        # Elsewhere half precision is widened first, in pieces that a cache holds.
        total = cells.new_zeros(cells.shape[1], cells.shape[1], dtype=torch.float32)
        for chunk in torch.split(cells, max(1, cached_values(features.device.type) // cells.shape[1])):
            wide = chunk.float()
            total.addmm_(wide.T, wide)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        # The result goes back into a network of the features' type, so the product gains nothing from a wider one.
        both = (upstream + upstream.T).to(features.dtype)
        if features.is_contiguous():
            gradient: Tensor = both @ features.flatten(2)[0]
            return gradient.view(features.shape)
        height, width = features.shape[-2:]
        return (_cells(features) @ both).view(1, height, width, -1).permute(0, 3, 1, 2)


def _cells(features: Tensor) -> Tensor:
    """View (1, C, h, w) features as an (h w, C) matrix; without a copy where channels lie innermost."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def gram_sum(features: Tensor) -> Tensor:
    """Unnormalised Gram matrix F Fᵀ: inner products of channels, summed over cells.

    Args:
        features: (1, C, h, w), any floating type.

    Returns:
        (C, C), accumulated in float32 (float64 for float64 features).
    """
    # float16 lacks the range for gradients of a sum over thousands of cells; bfloat16 has float32's.
    result: Tensor = _GramSum.apply(features.float() if features.dtype == torch.float16 else features)
    return result
