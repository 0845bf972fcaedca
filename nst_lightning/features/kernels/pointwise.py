"""A matrix at every cell of a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.hardware.numerics import threads_share_sums


def pointwise(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each cell's channels times a matrix: ``conv2d(x, matrix[:, :, None, None], bias)``.

    A product and no convolution in single precision: the last bits of oneDNN's convolutions of 1x1 depend on the number
    of threads (3.12, AVX2), those of MKL's products can be asked not to (`nst_lightning.process.rounding`). In half
    precision it may be the other way round, for the sums of this or of its gradient (`threads_share_sums`).

    Args:
        x: (B, c, H, W).
        matrix: (C, c).
        bias: (C,).

    Returns:
        (B, C, H, W).
    """
    if any(threads_share_sums(x.device, x.dtype, terms) for terms in matrix.shape):
        return F.conv2d(x, matrix[:, :, None, None], bias)
    if not x.is_contiguous():  # channels may lie innermost
        return F.linear(x.permute(0, 2, 3, 1), matrix, bias).permute(0, 3, 1, 2)
    found = torch.matmul(matrix, x.flatten(2)).view(len(x), -1, *x.shape[2:])
    return found if bias is None else found + bias[:, None, None]
