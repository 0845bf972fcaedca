"""Convolution by its definition, strip by strip, so that what comes before and after it happens in the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.features.kernels.fused import convolved
from nst_lightning.features.kernels.strips import Sink, Source, as_map

_STRIP = 1 << 22  # bytes: small strips fit a core's cache, large ones make matrix products large


class DirectFilter:
    """A frozen 3x3 filter bank of a weight (K, C, 3, 3), whose type is that of the arithmetic."""

    def __init__(self, weight: Tensor) -> None:
        innermost = torch.channels_last
        self.channels, self.results = weight.shape[1], weight.shape[0]
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
    strip = max(1, _STRIP // (2 * width * max(weight.shape[:2]) * weight.element_size())) * 2
    if strip >= height or (source.in_memory and sink.in_memory):
        outputs = convolved(as_map(source.rows(0, height)), weight, bias, (1, 1), sink.relu)
        sink.take(outputs.permute(0, 2, 3, 1)[0], rectified=sink.relu)
        return
    for top in range(0, height, strip):
        bottom = min(top + strip, height)
        first, last = max(top - 1, 0), min(bottom + 1, height)  # rows that this strip sees
        rows = as_map(source.rows(first, last - first))
        if first < top and bottom < last:
            outputs = convolved(rows, weight, bias, (0, 1), sink.relu)
        else:  # padding above or below, and a row too much on the other side
            outputs = convolved(rows, weight, bias, (1, 1), sink.relu)[:, :, top - first :][:, :, : bottom - top]
        sink.write(top, outputs.permute(0, 2, 3, 1)[0], rectified=sink.relu)
