"""Statistics of feature maps that are sums over cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.features.kernels.fused import convolved, mapped, multiplied
from nst_lightning.hardware.accelerator import (
    cached_values,
    multiplies_halves,
    prefers_large_operations,
    sums_halves_exactly,
)
from nst_lightning.hardware.numerics import threads_share_sums
from nst_lightning.losses.reference import at_least_float32

_CELLS_OF_A_PRODUCT = 1024
_FEWER_CELLS = 480  # where threads share out longer sums: what is left over is small for most pictures
_FEWEST_CELLS = 128  # of a product: shorter ones take as long
_FEW_PIECES = 4  # whose rounding does not even out
_MANY_CELLS = 9 << 10  # beyond which pieces are so many, or so long, that one of them is like all
_FEW_VALUES = 1 << 14  # of a matrix, so that adding it to another costs less than to ask for it
_CACHED = 1 << 17  # values that a core's own cache holds
_BLOCK = 128  # channels of a block of a symmetric product; in bfloat16, packing parts of rows costs more than it saves


class _Sums(torch.autograd.Function):
    """F Fᵀ, and maybe the sum of F, with a backward pass of one product, where autograd would take several."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, with_sum: bool) -> Tensor:
        ctx.save_for_backward(features)
        ctx.with_sum = with_sum
        channels = features.shape[1]
        exact = features.dtype in {torch.float32, torch.float64}
        if exact and _is_one_matrix(features):
            flat = features.flatten(2)[0]  # (C, h w); a view, whichever dimension lies innermost
            products = _symmetric_product(flat)
            return torch.cat([products, flat.sum(1, keepdim=True)], dim=1) if with_sum else products
        # Pieces that a cache holds: half precision is widened, and a tile's core gathered.
        dtype = features.dtype if exact else torch.float32
        products, total = features.new_zeros(channels, channels, dtype=dtype), features.new_zeros(channels, dtype=dtype)
        halves = not exact and multiplies_halves(features.device)
        for rows in _strips(features, _values_of_halves(features) if halves else None):
            cells = _cells(rows)
            products += _multiply_halves(cells, refine=with_sum) if halves else _multiply(cells)
            if with_sum:
                # On a CPU PyTorch widens all of it first.
                at_once = len(cells) if prefers_large_operations(features.device) else max(1, _CACHED // channels)
                for some in torch.split(cells, at_once):
                    total += some.sum(0, dtype=dtype)
        return torch.cat([products, total[:, None]], dim=1) if with_sum else products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        features: Tensor = ctx.saved_tensors[0]
        _, channels, height, width = features.shape
        # The result goes back into a network of the features' type, so the product gains nothing from a wider one.
        products = upstream[:, :channels]
        both = (products + products.T).to(features.dtype)
        row = upstream[:, -1].to(features.dtype) if ctx.with_sum else None
        if features.is_contiguous():
            if threads_share_sums(features.device, features.dtype, channels):
                return convolved(features, both[:, :, None, None], row, (0, 0), relu=False), None
            flat = features.flatten(2)[0]
            gradient = both @ flat if row is None else torch.addmm(row[:, None], both, flat)
            return gradient.view(features.shape), None
        result = features.new_empty(height, width, channels)
        start = 0
        for rows in [features] if _is_one_matrix(features) else _strips(features):
            stop = start + rows.shape[-2]
            here = result[start:stop].view(-1, channels)
            if row is not None and len(here) == len(result) * width:
                return mapped(_cells(rows), both, row).view(result.shape).permute(2, 0, 1)[None], None
            multiplied(_cells(rows), both, here, row)
            start = stop
        return result.permute(2, 0, 1)[None], None


def _symmetric_product(flat: Tensor) -> Tensor:
    """F Fᵀ of (C, n); on a CPU without most of what lies below the diagonal, which is the same again."""
    channels = len(flat)
    if prefers_large_operations(flat.device) or channels <= _BLOCK:
        return flat @ flat.T
    products = flat.new_empty(channels, channels)
    for start in range(0, channels, _BLOCK):
        torch.mm(flat[start : start + _BLOCK], flat[start:].T, out=products[start : start + _BLOCK, start:])
    return products.triu_() + products.triu(1).T


def _multiply(cells: Tensor) -> Tensor:
    """Fᵀ F of (n, C) cells, widened to float32 first if they are narrower."""
    values = at_least_float32(cells)
    return values.T @ values


def _multiply_halves(cells: Tensor, *, refine: bool) -> Tensor:
    """Fᵀ F of (n, C) bfloat16 cells in float32, by products that return bfloat16.

    Their sums are float32 inside, and rounding the results of many pieces evens out: with 1e-4 to 7e-4 of Fᵀ F it
    changes the image's gradient by a tenth of what computing features in bfloat16 does. What it lost is had by
    computing the difference to the rounded result, which is twice the work, half of float32's time, and its accuracy.
    To `refine` is to do so: covariances are differences, and their roots magnify errors. Where there are many cells,
    the difference to one of them is enough. Pieces also because threads share out a long sum, and the last bits shall
    not depend on their number.
    """
    if sums_halves_exactly(cells.device):
        return torch.mm(cells.T, cells, out_dtype=torch.float32)
    count, channels = cells.shape
    pieces = max(-(-count // _cells_of_a_product(cells)), min(_FEW_PIECES, count // _FEWEST_CELLS), 1)
    long = count // pieces
    while threads_share_sums(cells.device, cells.dtype, long):
        long -= 1
    total = _multiply(cells[pieces * long :])
    if refine and count > _MANY_CELLS:
        return total + _multiply_alike(cells[: pieces * long].view(long, pieces, channels))
    batch = cells[: pieces * long].view(pieces, long, channels)
    rounded = torch.bmm(batch.transpose(1, 2), batch)
    _add_up(rounded, total)
    if refine or pieces < _FEW_PIECES:
        rest = rounded.baddbmm_(batch.transpose(1, 2), batch, beta=-1)
        _add_up(rest, total)
    return total


def _add_up(matrices: Tensor, total: Tensor) -> None:
    """Add bfloat16 matrices (n, C, C) to a float32 one; PyTorch's own sum would first widen all of them."""
    if total.numel() < _FEW_VALUES:
        total += matrices.sum(0, dtype=total.dtype)
        return
    for matrix in matrices:
        total += matrix


def _multiply_alike(cells: Tensor) -> Tensor:
    """Fᵀ F of (long, pieces, C) bfloat16 cells in float32, where each piece is every so manieth cell.

    Such pieces have nearly the same products. So what each has beyond the first one's is small, and so is its rounding:
    a tenth of that of the products themselves, for half the work of computing what they lost.
    """
    _, pieces, channels = cells.shape
    batch = cells.transpose(0, 1).contiguous()
    first = torch.mm(batch[0].T, batch[0])
    beyond = torch.baddbmm(first.expand(pieces, channels, channels), batch.transpose(1, 2), batch, beta=-1)
    total = first.float().mul_(pieces)
    _add_up(beyond, total)
    return total


def _is_one_matrix(features: Tensor) -> bool:
    """Whether cells follow each other at one distance in memory; not so in a part of a map."""
    return features.is_contiguous() or features.is_contiguous(memory_format=torch.channels_last)


def _strips(features: Tensor, values: int | None = None) -> tuple[Tensor, ...]:
    """Rows of (1, C, h, w) features, with so many values at a time, or as many as a cache holds."""
    row = features.shape[1] * features.shape[3]
    rows = (values or cached_values(features.device)) // row
    return torch.split(features, max(1, min(features.shape[2], rows)), dim=2)


def _values_of_halves(features: Tensor) -> int:
    """How much `_multiply_halves` takes at once: nothing is widened, but each piece has a matrix of its own."""
    channels = features.shape[1]
    pieces = max(2 * _FEW_PIECES, cached_values(features.device) // channels**2)
    return pieces * _cells_of_a_product(features) * channels


def _cells_of_a_product(values: Tensor) -> int:
    shared = threads_share_sums(values.device, values.dtype, _CELLS_OF_A_PRODUCT)
    return _FEWER_CELLS if shared else _CELLS_OF_A_PRODUCT


def _cells(features: Tensor) -> Tensor:
    """(1, C, h, w) features as an (h w, C) matrix; without a copy where channels lie innermost in a whole map."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def gram_sum(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Unnormalised Gram matrix F Fᵀ: inner products of channels, summed over cells.

    Args:
        features: (1, C, h, w), any floating type.
        weights: (1, 1, h, w) of at least 0, how often each cell counts; once, if None.

    Returns:
        (C, C), accumulated in float32 (float64 for float64 features); of bfloat16 on a CPU that multiplies it, to 1e-3.
    """
    return _sums(features if weights is None else _weighted(features, weights), with_sum=False)


def moments_sum(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """F Fᵀ beside the sum of F, both over cells.

    Args:
        features: (1, C, h, w).
        weights: (1, 1, h, w), how often each cell counts; once, if None.

    Returns:
        (C, C + 1), float32 or wider; the sum of two parts' is that of both.
    """
    if weights is None:
        return _sums(features, with_sum=True)
    products = _sums(_weighted(features, weights), with_sum=True)[:, :-1]  # refined, as a Gram matrix need not be
    return torch.cat([products, (at_least_float32(features) * weights).sum((0, 2, 3))[:, None]], dim=1)


def _weighted(features: Tensor, weights: Tensor) -> Tensor:
    """Features whose products count as often as the weights say."""
    # Of a root that is rounded itself all products are off by as much; roundings of products average out.
    return (features * weights.sqrt()).to(features.dtype)


def _sums(features: Tensor, *, with_sum: bool) -> Tensor:
    # float16 lacks the range for gradients of a sum over thousands of cells; bfloat16 has float32's.
    result: Tensor = _Sums.apply(features.float() if features.dtype == torch.float16 else features, with_sum)
    return result
