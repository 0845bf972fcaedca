"""Pooling over 2x2 windows; every kind halves height and width and leaves an odd last row or column out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.hardware.accelerator import cached_values, prefers_large_operations

_WINDOWS = ([2, 2], [2, 2], [0, 0], [1, 1], False)  # size, stride, padding, dilation, whether sizes are rounded up
_SMALLEST_SQUARE = 1e-12  # the root has no slope at zero; this is far below any real activation


class _MaxPool(torch.autograd.Function):
    """Max pooling that finds its winners again in the backward pass instead of storing 8 bytes for each.

    The input is stored by the layer before anyway, so memory falls by a sixth of a run's for a percent of its time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.max_pool2d(x, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if prefers_large_operations(x.device):
            # CUDA's kernel writes into a part of a tensor as if it were whole.
            _, winners = F.max_pool2d(x, 2, return_indices=True)
            return torch.ops.aten.max_pool2d_with_indices_backward(gradient, x, *_WINDOWS, winners)  # type: ignore[no-any-return]
        result = torch.empty_like(x)
        result[:, :, 2 * gradient.shape[-2] :] = 0
        rows = gradient.shape[-2]
        strip = max(1, min(rows, cached_values(x.device) // (x.shape[1] * x.shape[-1])))
        for top in range(0, rows, strip):
            some = x[:, :, 2 * top : 2 * (top + strip)]
            _, winners = F.max_pool2d(some, 2, return_indices=True)
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                gradient[:, :, top : top + strip],
                some,
                *_WINDOWS,
                winners,
                grad_input=result[:, :, 2 * top : 2 * (top + strip)],
            )
        return result


def max_pool(x: Tensor) -> Tensor:
    """Largest of four values, as the network was trained: (1, C, h, w) -> (1, C, h // 2, w // 2)."""
    result: Tensor = _MaxPool.apply(x)
    return result


def average_pool(x: Tensor) -> Tensor:
    """Mean of four values, as Gatys et al. advise: (1, C, h, w) -> (1, C, h // 2, w // 2)."""
    return F.avg_pool2d(x, 2)


def l2_pool(x: Tensor) -> Tensor:
    """Root mean square of four values: (1, C, h, w) -> (1, C, h // 2, w // 2)."""
    squares = F.avg_pool2d((x if x.dtype == torch.float64 else x.float()).square(), 2).clamp(min=_SMALLEST_SQUARE)
    return squares.sqrt().to(x.dtype)
