"""Convolution by Winograd's algorithm F(4x4, 3x3): 36 products where the definition takes 144.

A tile of 4x4 outputs of a 3x3 correlation is ``Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`` for a 6x6 tile d of the input and the
filter g (Lavin and Gray, *Fast algorithms for convolutional neural networks*, 2016). Summed over the input's channels
the elementwise product becomes 36 matrix products, which is where a CPU's bfloat16 units are at their best. Vectors are
computed for whole tiles: with the two dimensions of B, A and G in one (Kronecker products of 36x36 and 16x36), both
transforms of the data are matrix products as well.

Two choices make bfloat16 accurate. The polynomials are evaluated at 0, ±2/3, ±4/3 and infinity instead of at the
customary 0, ±1, ±2 (as Barabasz et al., *Error analysis and improving the accuracy of Winograd convolution*, 2020,
advise), and the rows of the transforms are scaled such that bfloat16 holds their entries almost exactly; the filter,
transformed in double precision, has the inverse factors. The relative error of one layer is then 0.006, where the
direct algorithm's is 0.002 and the customary points' 0.015.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.features.kernels.strips import Sink, Source

_FILTER, _TILE = 3, 4
_INPUT = _TILE + _FILTER - 1
_POINTS = (0.0, 2 / 3, -2 / 3, 4 / 3, -4 / 3)  # points of evaluation; another is infinity
# Transformed values at a time: in half precision, whose products first rearrange the whole filter, many; else as many
# as a core's cache holds, but at least so many tiles that reading the filter does not cost more than the products.
_STRIP, _STRIP_IN_CACHE, _LEAST_TILES = 1 << 22, 1 << 20, 64


class _Transforms(NamedTuple):
    """Matrices in float64: input (36, 36), filter (36, 9), output (16, 36)."""

    input: Tensor
    filter: Tensor
    output: Tensor


@cache
def _transforms() -> _Transforms:
    points = torch.tensor(_POINTS, dtype=torch.float64)

    def powers(count: int) -> Tensor:  # (6, count): 1, p, p² ..., and the highest power at infinity
        infinity = torch.eye(count, dtype=torch.float64)[-1:]
        return torch.cat([points[:, None] ** torch.arange(count), infinity])

    one_dimensional = torch.linalg.inv(powers(_INPUT)).T, powers(_FILTER), powers(_TILE).T
    b, g, a = (torch.kron(matrix, matrix) for matrix in one_dimensional)
    of_input, of_output = _scales_for_bfloat16(b), _scales_for_bfloat16(a.T)
    return _Transforms(b * of_input[:, None], g / (of_input * of_output)[:, None], a * of_output)


def _scales_for_bfloat16(rows: Tensor) -> Tensor:
    """For each row the factor from 1 to 2 with which bfloat16 rounds it least."""
    factors = 1 + torch.arange(1024, dtype=torch.float64) / 1024
    scaled = rows[:, None] * factors[:, None]
    error = (scaled.bfloat16() - scaled).norm(dim=2) / scaled.norm(dim=2)
    return factors[error.argmin(1)]


class WinogradFilter:
    """A frozen 3x3 filter bank of a weight (K, C, 3, 3), whose type is that of the arithmetic, transformed once."""

    def __init__(self, weight: Tensor) -> None:
        transforms = _transforms()
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        flat = weight.detach().to(exact).permute(2, 3, 1, 0).reshape(9, -1)
        self.channels, self.results = weight.shape[1], weight.shape[0]
        self.filter = weight.new_empty(36, weight.shape[1], weight.shape[0])
        for matrix, row in zip(self.filter, transforms.filter.to(flat), strict=True):  # one at a time, to save memory
            matrix.view(-1).copy_(row @ flat)
        self._input = transforms.input.to(weight)
        self._output = transforms.output.to(weight)

    def convolve(self, source: Source, sink: Sink, bias: Tensor | None) -> None:
        """``conv2d(source, weight, bias, padding=1)`` into the sink."""
        _convolve(source, (self._input, self.filter, self._output), sink, bias)

    def input_gradient(self, source: Source, sink: Sink) -> None:
        """The gradient with respect to the input of `convolve`, from the gradient with respect to its result.

        It is the convolution with the filter turned around. Turning input and output tiles around instead leaves the
        transformed filter as it is, with rows and columns exchanged.
        """
        _convolve(source, (self._input.flip(1), self.filter.transpose(1, 2), self._output.flip(0)), sink)


def _convolve(source: Source, matrices: tuple[Tensor, Tensor, Tensor], sink: Sink, bias: Tensor | None = None) -> None:
    """Convolve strip by strip; nothing between source and sink is as large as a feature map."""
    of_input, filters, of_output = matrices
    height, width, channels = source.shape
    down, across = -(-height // _TILE), -(-width // _TILE)  # the last tiles maybe beyond the border
    values = 36 * max(filters.shape[1:])  # number of values of a transformed tile
    at_a_time = _STRIP if filters.dtype.itemsize == 2 else max(_STRIP_IN_CACHE, _LEAST_TILES * values)
    strips = -(-down * across * values // at_a_time)
    rows = -(-down // min(strips, down))
    one, other = (filters.new_empty(rows * across * values) for _ in range(2))
    for top, strip, padded in _padded_strips(source, rows, filters):
        to_row, to_column, _ = padded.stride()
        inputs, results = strip * across * channels, strip * across * filters.shape[2]
        windows = padded.as_strided(
            (_INPUT, _INPUT, strip, across, channels), (to_row, to_column, _TILE * to_row, _TILE * to_column, 1)
        )
        tiles, transformed = one[: 36 * inputs].view(36, -1), other[: 36 * inputs].view(36, -1)
        tiles.view(windows.shape).copy_(windows)
        torch.mm(of_input, tiles, out=transformed)
        products, outputs = one[: 36 * results].view(36, -1), other[: 16 * results].view(16, -1)
        torch.bmm(transformed.view(36, -1, channels), filters, out=products.view(36, strip * across, -1))
        torch.mm(of_output, products, out=outputs)
        placed = outputs.view(_TILE, _TILE, strip, across, -1).permute(2, 0, 3, 1, 4)
        result = one[: 16 * results].view(placed.shape)
        if bias is None:
            result.copy_(placed)
        else:
            torch.add(placed, bias, out=result)
        sink.write(_TILE * top, result.view(_TILE * strip, _TILE * across, -1))


def _padded_strips(source: Source, rows: int, like: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Read a map with a border of one pixel, zero beyond the map, so many rows of tiles at a time.

    Yields:
        The first row of tiles, how many there are, and (4 n + 2, 4 across + 2, C) values, overwritten by the next.
    """
    height, width, channels = source.shape
    down, across = -(-height // _TILE), -(-width // _TILE)
    padded = like.new_zeros(_TILE * rows + 2, _TILE * across + 2, channels)  # its outer columns stay zero
    for top in range(0, down, rows):
        strip = min(rows, down - top)
        first, last = _TILE * top - 1, min(_TILE * (top + strip) + 1, height)  # rows that these tiles see
        above = max(0, -first)
        seen = last - first - above
        padded[:above].zero_()
        source.read(first + above, padded[above : above + seen, 1 : width + 1])
        padded[above + seen :].zero_()
        yield top, strip, padded[: _TILE * strip + 2]
