"""Convolution by its definition, strip by strip, so that what comes before and after it happens in the cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.features.kernels.strips import Sink, Source

_STRIP = 1 << 22  # bytes: small strips fit a core's cache, large ones make matrix products large


class DirectFilter:
    """A frozen 3x3 filter bank of a weight (K, C, 3, 3), whose type is that of the arithmetic."""

    def __init__(self, weight: Tensor) -> None:
        innermost = torch.channels_last
        self.channels = weight.shape[1]
        self._forward = weight.detach().contiguous(memory_format=innermost)
        self._back = weight.detach().transpose(0, 1).flip(2, 3).contiguous(memory_format=innermost)

    def convolve(self, source: Source, sink: Sink, bias: Tensor | None) -> None:
        """``conv2d(source, weight, bias, padding=1)`` into the sink; the sum is rounded once."""
        _convolve(source, self._forward, sink, bias)

    def input_gradient(self, source: Source, sink: Sink) -> None:
        """The gradient with respect to the input of `convolve`, from the gradient with respect to its result."""
        _convolve(source, self._back, sink)


def _convolve(source: Source, weight: Tensor, sink: Sink, bias: Tensor | None = None) -> None:
    height, width, _ = source.shape
    row = width * max(*weight.shape[:2], source.most_channels, sink.most_channels) * weight.element_size()
    strip = max(1, _STRIP // (2 * row)) * 2
    for top in range(0, height, strip):
        bottom = min(top + strip, height)
        first, last = max(top - 1, 0), min(bottom + 1, height)  # rows that this strip sees
        rows = source.rows(first, last - first).permute(2, 0, 1)[None]
        if first < top and bottom < last:
            outputs = F.conv2d(rows, weight, bias, padding=(0, 1))
        else:  # padding above or below, and a row too much on the other side
            outputs = F.conv2d(rows, weight, bias, padding=1)[:, :, top - first :][:, :, : bottom - top]
        sink.write(top, outputs.permute(0, 2, 3, 1)[0])
