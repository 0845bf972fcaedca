"""Statistics of feature maps that are sums over cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cells(features: Tensor) -> Tensor:
    """View (1, C, h, w) features as a (h w, C) matrix; without a copy where channels lie innermost."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


class _GramSum(torch.autograd.Function):
    """XᵀX with a backward pass of one product, where autograd would take two (the upstream matrix is made symmetric)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        return wide.T @ wide

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # The result goes back into a network of x's own type, so the product gains nothing from a wider one.
        return x @ (upstream + upstream.T).to(x.dtype)


def gram_sum(features: Tensor) -> Tensor:
    """Unnormalised Gram matrix F Fᵀ: inner products of channels, summed over cells.

    Args:
        features: (1, C, h, w), any floating type.

    Returns:
        (C, C), accumulated in float32 (float64 for float64 features).
    """
    x = cells(features)
    if x.dtype in {torch.bfloat16, torch.float16} and x.requires_grad:
        # Half-precision gradients overflow or vanish at some loss scales; bfloat16 has float32's range and does not.
        return _GramSum.apply(x) if x.dtype == torch.bfloat16 else _GramSum.apply(x.float())
    return _GramSum.apply(x)
