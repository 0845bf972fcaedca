"""A convolution of low rank: a narrow 3x3 filter bank between matrices that bring its channels down and up.

What a trained layer returns before ReLU lies close to a subspace of a quarter of its channels, although what
ReLU makes of it does not; and it depends on few combinations of its inputs. So ``W ≈ E V P`` with P (q, C),
V (r, q, 3, 3) and E (K, r) costs a small part of W, all three work on a strip in the cache, and ReLU sees all
K channels. E and V alone are Zhang, Zou, He and Sun's (*Accelerating Very Deep Convolutional Networks for
Classification and Detection*, 2016), with P it is a Tucker decomposition (Kim et al., *Compression of Deep
Convolutional Neural Networks for Fast and Low Power Mobile Applications*, 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.features.kernels.convolution import FilterBank
from nst_lightning.features.kernels.strips import Sink, Source


class FactoredFilter:
    """A frozen filter bank of low rank.

    Narrow filters are (r, q, 3, 3), the expansion behind them (K, r), the reduction before (q, C); without it q is C.
    """

    def __init__(self, narrow: FilterBank, expansion: Tensor, reduction: Tensor | None = None) -> None:
        self.channels = narrow.channels if reduction is None else reduction.shape[1]
        self._narrow = narrow
        self._expansion = expansion.detach().contiguous()
        self._reduction = None if reduction is None else reduction.detach().contiguous()

    def convolve(self, source: Source, sink: Sink, bias: Tensor | None) -> None:
        """``conv2d(source, weight, bias, padding=1)`` into the sink."""
        if self._reduction is not None:
            source = _MappedSource(source, self._reduction.T)
        self._narrow.convolve(source, _MappedSink(sink, self._expansion.T, bias), None)

    def input_gradient(self, source: Source, sink: Sink) -> None:
        """The gradient with respect to the input of `convolve`, from the gradient with respect to its result."""
        if self._reduction is not None:
            sink = _MappedSink(sink, self._reduction)
        self._narrow.input_gradient(_MappedSource(source, self._expansion), sink)


class _MappedSource(Source):
    """Rows of a source, each position times a matrix."""

    def __init__(self, source: Source, matrix: Tensor) -> None:
        self._source, self._matrix = source, matrix
        self.shape = source.shape[0], source.shape[1], matrix.shape[1]

    @property
    def most_channels(self) -> int:
        return self._source.most_channels

    def rows(self, first: int, count: int) -> Tensor:
        values = self._source.rows(first, count)
        return torch.mm(values.view(-1, values.shape[-1]), self._matrix).view(count, values.shape[1], -1)


class _MappedSink:
    """Rows for a sink, each position times a matrix, and a bias added."""

    def __init__(self, sink: Sink, matrix: Tensor, bias: Tensor | None = None) -> None:
        self._sink, self._matrix, self._bias = sink, matrix, bias
        self.result, self.most_channels = sink.result, sink.most_channels

    def write(self, top: int, rows: Tensor) -> None:
        flat = rows.reshape(-1, rows.shape[-1])
        mapped = torch.mm(flat, self._matrix) if self._bias is None else torch.addmm(self._bias, flat, self._matrix)
        self._sink.write(top, mapped.view(*rows.shape[:2], -1))
