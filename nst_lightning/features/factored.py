"""A convolution of low rank: a narrow 3x3 filter bank, and a matrix that brings its results to full width.

What a trained layer returns before its rectifier lies close to a subspace of a quarter of its channels, although what
the rectifier makes of it does not. So ``W ≈ E V`` with V (r, C, 3, 3) and E (K, r), with E applied to a strip in the
cache, cost a quarter of W, and the rectifier sees all K channels (Zhang, Zou, He and Sun, *Accelerating Very Deep
Convolutional Networks for Classification and Detection*, 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.features.convolution import FilterBank
from nst_lightning.features.strips import Sink, Source


class FactoredFilter:
    """A frozen filter bank of low rank.

    Args:
        narrow: The narrow filters, (r, C, 3, 3).
        expansion: (K, r).
    """

    adds_bias = False

    def __init__(self, narrow: FilterBank, expansion: Tensor) -> None:
        self.channels = narrow.channels
        self._narrow = narrow
        self._expansion = expansion.detach().contiguous()
        self._no_bias = expansion.new_zeros(expansion.shape[1])

    def correlate(self, source: Source, sink: Sink, bias: Tensor) -> None:
        """``conv2d(source, weight, padding=1)`` into the sink, which adds the bias."""
        self._narrow.correlate(source, _Expanded(sink, self._expansion.T), self._no_bias)

    def back(self, source: Source, sink: Sink) -> None:
        """The gradient with respect to the input of `correlate`, from the gradient with respect to its result."""
        self._narrow.back(_Reduced(source, self._expansion), sink)


class _Expanded:
    """What takes narrow tiles for a sink of full width."""

    def __init__(self, sink: Sink, matrix: Tensor) -> None:
        self._sink, self._matrix = sink, matrix
        self.result = sink.result

    def write(self, top: int, tiles: Tensor) -> None:
        """Widen the tiles; see `Sink`."""
        wide = torch.mm(tiles.reshape(-1, tiles.shape[-1]), self._matrix)
        self._sink.write(top, wide.view(*tiles.shape[:-1], -1))


class _Reduced:
    """What hands the rows of a wide source out narrow."""

    def __init__(self, source: Source, matrix: Tensor) -> None:
        self._source, self._matrix = source, matrix
        self.shape = source.shape[0], source.shape[1], matrix.shape[1]

    def read(self, first: int, into: Tensor) -> None:
        """Narrow the rows; see `Source`."""
        wide = into.new_empty(into.shape[0], into.shape[1], len(self._matrix))
        self._source.read(first, wide)
        into.copy_(torch.mm(wide.view(-1, wide.shape[-1]), self._matrix).view(into.shape))
