"""A frozen 3x3 convolution with the ReLU and the pooling that follow it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.features.kernels.strips import (
    MapSink,
    MapSource,
    Pool,
    PooledSink,
    PooledSource,
    ReluSource,
    Sink,
    Source,
)
from nst_lightning.features.kernels.windows import Codes


class FilterBank(Protocol):
    """A way to convolve with one frozen weight (K, C, 3, 3), strip by strip."""

    channels: int  # C
    results: int  # K

    def convolve(self, source: Source, sink: Sink, bias: Tensor | None) -> None:
        """Convolve with zero padding of 1, and add the bias."""
        ...

    def input_gradient(self, source: Source, sink: Sink) -> None:
        """Turn the gradient with respect to the result into that with respect to the input."""
        ...


class _Convolution(torch.autograd.Function):
    """Neither input nor weight is stored for the backward pass, which needs only the filters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: FilterBank, bias: Tensor, relu: bool, pool: Pool | None) -> Tensor:
        height, width = x.shape[-2:]
        ctx.filters, ctx.pool, ctx.size = filters, pool, (height, width)
        if pool:
            pooled = PooledSink(x, len(bias), height, width, pool)
            filters.convolve(MapSource(x), pooled, bias)
            ctx.save_for_backward(pooled.codes.packed)
            return pooled.result
        sink = MapSink(x, len(bias), height, width, relu)
        filters.convolve(MapSource(x), sink, bias)
        result = sink.result
        ctx.save_for_backward(*[result] * relu)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        source: Source = MapSource(gradient)
        if ctx.pool:
            codes = Codes(ctx.saved_tensors[0], ctx.size[1] // 2)
            source = PooledSource(gradient, codes, ctx.size, ctx.pool)
        elif ctx.saved_tensors:
            source = ReluSource(gradient, ctx.saved_tensors[0])
        sink = MapSink(gradient, ctx.filters.channels, *ctx.size)
        ctx.filters.input_gradient(source, sink)
        return sink.result, None, None, None, None


def frozen_conv2d(x: Tensor, filters: FilterBank, bias: Tensor, relu: bool = False, pool: Pool | None = None) -> Tensor:
    """3x3 convolution of (1, C, H, W) with zero padding of 1 and a frozen filter, and what follows it in a network.

    That may be ReLU, and pooling over windows of 2x2 behind it, which implies it; either may make 0 of NaN. The
    bias is (K,).

    Returns:
        (1, K, H, W), or (1, K, H // 2, W // 2) if pooled; channels innermost.
    """
    result: Tensor = _Convolution.apply(x, filters, bias, relu, pool)
    return result
