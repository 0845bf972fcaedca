"""Products and convolutions that add a bias and rectify in passing, where the processor's library has them.

A product whose bits would depend on the number of threads is a convolution of 1x1, whose bits do not; on AMX it takes
up to a tenth longer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.hardware.accelerator import fuses_activations
from nst_lightning.hardware.numerics import threads_share_sums


def multiplied(cells: Tensor, matrix: Tensor, out: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """(n, c) cells times a matrix (c, C), and a bias (C,) added: (n, C), in ``out`` if there is one."""
    if threads_share_sums(cells.device, cells.dtype, cells.shape[1]):
        found = _by_convolution(cells, matrix.T, bias, relu=False)
        return found if out is None else out.copy_(found)
    return torch.mm(cells, matrix, out=out) if bias is None else torch.addmm(bias, cells, matrix, out=out)


def mapped(cells: Tensor, matrix: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """(n, c) cells times the transpose of a matrix (C, c), a bias (C,) added, and rectified if asked for: (n, C)."""
    if not fuses_activations(cells.device, cells.dtype):
        result = torch.addmm(bias, cells, matrix.T)
        return result.clamp_min_(0) if relu else result
    # The library takes a bias to be contiguous, whatever it is.
    bias = bias.contiguous()
    if threads_share_sums(cells.device, cells.dtype, cells.shape[1]):
        return _by_convolution(cells, matrix, bias, relu)
    fused: Tensor = torch.ops.mkldnn._linear_pointwise(cells, matrix, bias, "relu" if relu else "none", [], "")
    return fused


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], relu: bool) -> Tensor:
    """Convolve (1, C, H, W) with a weight (K, C, 3, 3) and zeros around it, and rectify if asked for."""
    if not relu:
        return F.conv2d(x, weight, bias, padding=padding)
    if not fuses_activations(x.device, x.dtype):
        return F.conv2d(x, weight, bias, padding=padding).clamp_min_(0)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, (1, 1), (1, 1), 1, "relu", [], "")
    return fused


def _by_convolution(cells: Tensor, matrix: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """`mapped`, as a convolution of 1x1 of a map that is one row."""
    row = cells[None, None].permute(0, 3, 1, 2)  # in this order all strides say that channels lie innermost
    found = convolved(row, matrix[:, :, None, None], bias, (0, 0), relu)
    return found.permute(0, 2, 3, 1)[0, 0]
