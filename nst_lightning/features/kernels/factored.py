"""A convolution of low rank: a narrow 3x3 filter bank between matrices that bring its channels down and up.

What a trained layer returns before ReLU lies close to a subspace of a quarter of its channels, although what
ReLU makes of it does not; and it depends on few combinations of its inputs. So ``W ≈ E V P`` with P (q, C),
V (r, q, 3, 3) and E (K, r) costs a small part of W, all three work on a strip in the cache, and ReLU sees all
K channels. E and V alone are Zhang, Zou, He and Sun's (*Accelerating Very Deep Convolutional Networks for
Classification and Detection*, 2016), with P it is a Tucker decomposition (Kim et al., *Compression of Deep
Convolutional Neural Networks for Fast and Low Power Mobile Applications*, 2016).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from nst_lightning.features.kernels.convolution import FilterBank
from nst_lightning.features.kernels.fused import mapped, multiplied
from nst_lightning.features.kernels.strips import MapSink, MapSource, Sink, Source, as_map

_STRIP = 1 << 22  # bytes, as in `DirectFilter`


class FactoredFilter:
    """A frozen filter bank of low rank.

    Narrow filters are (r, q, 3, 3), the expansion behind them (K, r), the reduction before (q, C); without it q is C.
    What lies between the factors is narrow enough to be whole in memory; the K and C channels are a strip at a time.
    """

    def __init__(self, narrow: FilterBank, expansion: Tensor, reduction: Tensor | None = None) -> None:
        self.channels = narrow.channels if reduction is None else reduction.shape[1]
        self.results = expansion.shape[0]
        self._narrow = narrow
        self._expansion = expansion.detach().contiguous()
        self._reduction = None if reduction is None else reduction.detach().contiguous()

    def convolve(self, source: Source, sink: Sink, bias: Tensor | None) -> None:
        """``conv2d(source, weight, bias, padding=1)`` into the sink."""
        if self._reduction is not None:
            source = _mapped(source, self._reduction.T)
        height, width, _ = source.shape
        narrow = MapSink(self._expansion, self._narrow.results, height, width)
        self._narrow.convolve(source, narrow, None)
        added = self._expansion.new_zeros(self.results) if bias is None else bias
        for top, count in _strips(height, width * self.results * added.element_size(), whole=sink.in_memory):
            rows = narrow.rows[top : top + count]
            wide = mapped(rows.view(-1, rows.shape[-1]), self._expansion, added, sink.relu).view(count, width, -1)
            if count == height:
                sink.take(wide, rectified=sink.relu)
            else:
                sink.write(top, wide, rectified=sink.relu)

    def input_gradient(self, source: Source, sink: Sink) -> None:
        """The gradient with respect to the input of `convolve`, from the gradient with respect to its result."""
        source = _mapped(source, self._expansion)
        if self._reduction is None:
            self._narrow.input_gradient(source, sink)
            return
        narrow = MapSink(self._expansion, self._narrow.channels, *source.shape[:2])
        self._narrow.input_gradient(source, narrow)
        rows = narrow.rows
        sink.take(multiplied(rows.view(-1, rows.shape[-1]), self._reduction).view(*rows.shape[:2], -1))


def _mapped(source: Source, matrix: Tensor) -> MapSource:
    """A source with each position times a matrix, strip by strip."""
    height, width, channels = source.shape
    strips = list(_strips(height, width * channels * matrix.element_size(), whole=source.in_memory))
    if len(strips) == 1:
        whole = multiplied(source.rows(0, height).view(-1, channels), matrix)
        return MapSource(as_map(whole.view(height, width, -1)))
    result = matrix.new_empty(height, width, matrix.shape[1])
    for top, count in strips:
        values = source.rows(top, count)
        multiplied(values.view(-1, channels), matrix, result[top : top + count].view(-1, matrix.shape[1]))
    return MapSource(as_map(result))


def _strips(height: int, row: int, *, whole: bool) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each strip, even but for the last, for rows of so many bytes."""
    strip = height if whole else max(1, _STRIP // (2 * row)) * 2
    for top in range(0, height, strip):
        yield top, min(strip, height - top)
