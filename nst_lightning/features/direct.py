"""Convolution by its definition, strip by strip, so that what follows it happens in the cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.features.strips import TILE, Sink, Source, read_strips, tiles_of

_STRIP = 1 << 19  # values of a strip


class DirectFilter:
    """A frozen 3x3 filter bank.

    Args:
        weight: (K, C, 3, 3); its type is that of the arithmetic.
    """

    adds_bias = True

    def __init__(self, weight: Tensor) -> None:
        innermost = torch.channels_last
        self.channels = weight.shape[1]
        self._forward = weight.detach().contiguous(memory_format=innermost)
        self._back = weight.detach().transpose(0, 1).flip(2, 3).contiguous(memory_format=innermost)

    def correlate(self, source: Source, sink: Sink, bias: Tensor) -> None:
        """``conv2d(source, weight, bias, padding=1)`` into the sink; the sum is rounded once."""
        _correlate(source, self._forward, sink, bias)

    def back(self, source: Source, sink: Sink) -> None:
        """The gradient with respect to the input of `correlate`, from the gradient with respect to its result."""
        _correlate(source, self._back, sink)


def _correlate(source: Source, weight: Tensor, sink: Sink, bias: Tensor | None = None) -> None:
    down, across = tiles_of(source)
    rows = max(1, min(down, _STRIP // (TILE * TILE * across * max(weight.shape[:2]))))
    for top, strip, padded in read_strips(source, rows, weight):
        outputs = F.conv2d(padded[None].permute(0, 3, 1, 2), weight, bias)
        tiles = outputs.permute(0, 2, 3, 1).reshape(strip, TILE, across, TILE, -1)
        sink.write(TILE * top, tiles.permute(1, 3, 0, 2, 4))
