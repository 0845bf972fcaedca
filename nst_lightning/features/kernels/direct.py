"""Convolution by its definition, strip by strip, so that what comes before and after it happens in the cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.features.kernels.fused import convolved
from nst_lightning.features.kernels.strips import Sink, Source, as_map

_STRIP = 1 << 22  # bytes: small strips fit a core's cache, large ones make matrix products large
_FEW_CHANNELS = 4  # of which blocks of 2x2 fit into the 16 that a processor works on at once


class DirectFilter:
    """A frozen 3x3 filter bank of a weight (K, C, 3, 3), whose type is that of the arithmetic."""

    def __init__(self, weight: Tensor) -> None:
        innermost = torch.channels_last
        self.channels, self.results = weight.shape[1], weight.shape[0]
        self._forward = weight.detach().contiguous(memory_format=innermost)
        back = weight.detach().transpose(0, 1).flip(2, 3)
        self._in_blocks = self.channels <= _FEW_CHANNELS
        self._back = (_of_blocks(back) if self._in_blocks else back).contiguous(memory_format=innermost)

    def convolve(self, source: Source, sink: Sink, bias: Tensor | None) -> None:
        """``conv2d(source, weight, bias, padding=1)`` into the sink; the sum is rounded once."""
        _convolve(source, self._forward, sink, bias)

    def input_gradient(self, source: Source, sink: Sink) -> None:
        """The gradient with respect to the input of `convolve`, from the gradient with respect to its result."""
        (_convolve_blocks if self._in_blocks else _convolve)(source, self._back, sink)


def _of_blocks(weight: Tensor) -> Tensor:
    """A weight (K, C, 3, 3) as one that returns blocks of 2x2 pixels, (4 K, C, 4, 4), moved by two pixels at a time."""
    count, channels = weight.shape[:2]
    blocks = weight.new_zeros(2, 2, count, channels, 4, 4)
    for i in (0, 1):
        for j in (0, 1):
            blocks[i, j, :, :, i : i + 3, j : j + 3] = weight
    return blocks.flatten(0, 2)


def _convolve_blocks(source: Source, weight: Tensor, sink: Sink) -> None:
    """The sums of `_convolve` in half the time, where 16 results at once would be a few channels and padding."""
    height, width, channels = source.shape
    strip = max(1, _STRIP // (2 * width * channels * weight.element_size())) * 2
    across = -(-width // 2)
    for top in range(0, height, strip):
        down = -(-(min(top + strip, height) - top) // 2)
        first, last = max(top - 1, 0), min(top + 2 * down + 1, height)  # rows that this strip sees
        rows = weight.new_empty(2 * down + 2, 2 * across, channels)
        rows[: first - top + 1].zero_()
        rows[last - top + 1 :].zero_()
        rows[:, width:].zero_()
        source.read(first, rows[first - top + 1 : last - top + 1, :width])
        blocks = F.conv2d(as_map(rows), weight, padding=(0, 1), stride=2)
        pixels = blocks.permute(0, 2, 3, 1).reshape(down, across, 2, 2, -1).transpose(1, 2)
        sink.write(top, pixels.reshape(2 * down, 2 * across, -1))


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
