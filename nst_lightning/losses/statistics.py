"""Statistics of feature maps that are sums over cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.hardware import cached_values


def cells(features: Tensor) -> Tensor:
    """View (1, C, h, w) features as a (h w, C) matrix; without a copy where channels lie innermost."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


class _GramSum(torch.autograd.Function):
    """XᵀX with a backward pass of one product, where autograd would take two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if x.dtype in {torch.float32, torch.float64}:
            return torch.mm(x.T, x)
        total = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float32)
        for chunk in torch.split(x, max(1, cached_values(x.device.type) // x.shape[1])):
            wide = chunk.float()
            total.addmm_(wide.T, wide)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # The result goes back into a network of x's own type, so the product gains nothing from a wider one.
        product: Tensor = x @ (upstream + upstream.T).to(x.dtype)
        return product


def gram_sum(features: Tensor) -> Tensor:
    """Unnormalised Gram matrix F Fᵀ: inner products of channels, summed over cells.

    Args:
        features: (1, C, h, w), any floating type.

    Returns:
        (C, C), accumulated in float32 (float64 for float64 features).
    """
    x = cells(features)
    # float16 lacks the range for gradients of a sum over thousands of cells; bfloat16 has float32's.
    result: Tensor = _GramSum.apply(x.float() if x.dtype == torch.float16 else x)
    return result
