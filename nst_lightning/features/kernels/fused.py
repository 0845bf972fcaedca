"""Products and convolutions that add a bias and rectify in passing, where the processor's library has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.hardware.accelerator import fuses_activations


def mapped(cells: Tensor, matrix: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """(n, c) cells times the transpose of a matrix (C, c), a bias (C,) added, and rectified if asked for: (n, C)."""
    if not fuses_activations(cells.device, cells.dtype):
        result = torch.addmm(bias, cells, matrix.T)
        return result.clamp_min_(0) if relu else result
    # The library takes a bias to be contiguous, whatever it is.
    fused: Tensor = torch.ops.mkldnn._linear_pointwise(
        cells, matrix, bias.contiguous(), "relu" if relu else "none", [], ""
    )
    return fused


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], relu: bool) -> Tensor:
    """Convolve (1, C, H, W) with a weight (K, C, 3, 3) and zeros around it, and rectify if asked for."""
    if not relu:
        return F.conv2d(x, weight, bias, padding=padding)
    if not fuses_activations(x.device, x.dtype):
        return F.conv2d(x, weight, bias, padding=padding).clamp_min_(0)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, (1, 1), (1, 1), 1, "relu", [], "")
    return fused
