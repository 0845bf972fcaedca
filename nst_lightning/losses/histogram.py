"""Style as the distribution of each channel's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.hardware.accelerator import cached_values, prefers_large_operations
from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.losses.reference import Sample, WeighedSample, Window, at_least_float32
from nst_lightning.losses.term import Layer, Term, balance

_BINS = 256  # of the image's counts; the remapping is linear within each half
_QUANTILES = 1024  # that stand for a style's distribution


def quantiles_at(sorted_values: Tensor, probabilities: Tensor) -> Tensor:
    """Quantiles (C, m) of samples (C, n), ascending, at probabilities (C, m) in [0, 1]; linear between samples."""
    last = sorted_values.shape[1] - 1
    position = probabilities.clamp(0, 1) * last
    below = position.floor().clamp(max=max(0, last - 1)).long()
    above = (below + 1).clamp(max=last)
    return torch.lerp(sorted_values.gather(1, below), sorted_values.gather(1, above), position - below)


def quantiles_of_ranks(sorted_values: Tensor, ranks: Tensor) -> Tensor:
    """Quantiles (C, m) of samples (C, n) at ranks (C, m) in [0, 1], where the kth of n samples has (k - ½)/n.

    So values have the ranks that their share of all gives them, and equal ones the middle of theirs (Hazen 1914).
    """
    count = sorted_values.shape[1]
    return quantiles_at(sorted_values, (ranks * count - 0.5) / max(1, count - 1))


class _Bins(NamedTuple):
    """Equal bins of each channel: where they begin, and how many there are to a unit, (C, 1) each."""

    start: Tensor
    density: Tensor

    @classmethod
    def spanning(cls, least: Tensor, greatest: Tensor) -> _Bins:
        """Bins of which the first and the last have the least and the greatest value of each channel, (C,), amidst.

        So does each bin one of the 256 levels of a picture that has black and white, and what many pixels share, such
        as the white of a sky, is no edge.
        """
        low, high = least[:, None], greatest[:, None]
        width = high - low
        density = torch.where(width > 0, (_BINS - 1) / width, torch.ones_like(width))
        return cls(low - 0.5 / density, density)

    def place(self, values: Tensor, parts: int = 1) -> tuple[Tensor, Tensor]:
        """Bin and position in it, in [0, 1], of (C, n) values, or of such a part; those outside lie amidst the ends."""
        position = ((values - self.start) * self.density).clamp(0.5, _BINS - 0.5) * parts
        index = position.floor().clamp(max=parts * _BINS - 1)
        return index.long(), position - index


def bin_counts(values: Tensor, bins: _Bins, weights: Tensor | None = None) -> Tensor:
    """How many of each channel's values fall into each bin: (C, n), weights (n,) -> (C, bins), of the values' type."""
    index, _ = bins.place(values)
    channels = len(values)
    index += _BINS * torch.arange(channels, device=values.device)[:, None]
    if weights is not None:  # which add up to the same, to within a rounding, in tiles and whole
        weights = weights.to(widest_dtype(values.device)).expand(channels, -1).flatten()
    if not prefers_large_operations(values.device):
        counts = torch.bincount(index.flatten(), weights, minlength=channels * _BINS)
        return counts.view(channels, _BINS).to(values.dtype)
    # `bincount` asks the device for the greatest index, and waits. Sums of ones are exact, in any order: up to 2**24 in
    # float32, where there is nothing wider.
    one = values.new_ones((), dtype=widest_dtype(values.device))
    summed = one.expand(index.numel()) if weights is None else weights
    counts = summed.new_zeros(channels * _BINS).scatter_add_(0, index.flatten(), summed)
    return counts.view(channels, _BINS).to(values.dtype)


class StyleQuantiles(NamedTuple):
    """The style's distribution of each channel."""

    quantiles: Tensor  # (C, Q), ascending, of ranks in equal steps: the kth of Q is that of (k - ½)/Q
    least: Tensor  # (C,), of all styles
    greatest: Tensor  # (C,), of all styles


class HistogramTarget(NamedTuple):
    """What `Histogram` compares with."""

    bins: _Bins  # of the image's counts
    quantiles: Tensor  # of the style, (C, Q)
    scale: Tensor  # what to divide by, a scalar
    knots: Tensor | None = None  # the style's values at edges and middles of bins, (C, 2 bins + 1), for one evaluation
    total: Tensor | None = None  # the sum of the weights of all cells, a scalar, likewise


class Histogram(Term):
    """Take on the style's histogram of each channel.

    ‖F - R(F)‖², over its value at the content, where R moves each value of a channel to the style's value of the same
    rank (Risser, Wilmot and Barnes 2017, Stable and Controllable Neural Texture Synthesis, section 4.2). R comes from
    counts over all of the picture and is a constant to the gradient. Made to stand beside a statistic of how channels
    go together; at the layer ``image`` the channels are red, green and blue. Several styles are blended by their
    quantiles. Pictures are sampled (`samples`) for the target only.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Cells of content and style that are looked at for ranges and targets, at most, on a regular grid.
    """

    group = "style"
    additive = True
    needs_counts = True
    copies = 1.0  # the distance of each value
    weighs_cells = weighs_styles = balanced = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu1_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 65536,
    ) -> None:
        super().__init__(layers, weight)
        check_at_least(f"{self.name}.samples", samples, 1)
        self.samples = samples

    def content_reference(self, layer: Layer) -> WeighedSample:
        """A sample of the content's cells, and how often each counts."""
        return WeighedSample(self.samples)

    def style_reference(self, layer: Layer) -> Sample:
        """A sample of a style's cells."""
        return Sample(self.samples)

    def style_target(self, layer: Layer, styles: Sequence[tuple[Tensor, float]]) -> StyleQuantiles:
        """Blend the styles' quantiles."""
        count = min(_QUANTILES, max(len(cells) for cells, _ in styles))
        first = styles[0][0]
        ranks = (torch.arange(count, device=first.device, dtype=first.dtype) + 0.5) / count
        ranks = ranks.expand(first.shape[1], -1)
        blend = [share * quantiles_of_ranks(cells.T.sort(1).values, ranks) for cells, share in styles]
        least = torch.stack([cells.amin(0) for cells, _ in styles]).amin(0)
        greatest = torch.stack([cells.amax(0) for cells, _ in styles]).amax(0)
        return StyleQuantiles(torch.stack(blend).sum(0), least, greatest)

    def target(self, layer: Layer, content: tuple[Tensor, Tensor | None], style: StyleQuantiles) -> HistogramTarget:
        """Bins that span content and styles, and the distance of the content."""
        cells, weights = content
        least, greatest = torch.minimum(cells.amin(0), style.least), torch.maximum(cells.amax(0), style.greatest)
        target = HistogramTarget(_Bins.spanning(least, greatest), style.quantiles, torch.ones_like(least[0]))
        target = self.counted(layer, target, bin_counts(cells.T, target.bins, weights))
        squares = (cells.T - remapped(target, cells.T)).square()
        distance = squares.mean() if weights is None else (squares.mean(0) @ weights.to(squares)) / weights.sum()
        scale = balance(distance, style.quantiles.square().mean())
        return target._replace(scale=scale, knots=None, total=None)

    def count(self, layer: Layer, features: Tensor, window: Window, target: HistogramTarget) -> Tensor:
        """Counts of (1, C, h, w) features in (C, bins)."""
        channels, cells = features.shape[1], features.shape[-2] * features.shape[-1]
        rows = max(1, cached_values(features.device) * features.shape[-2] // (channels * cells))
        strips = torch.split(at_least_float32(features)[0], rows, dim=1)
        weights: list[Tensor | None] = [None] * len(strips)
        if window.weights is not None:
            weights = [part.flatten() for part in torch.split(window.weights[0, 0], rows)]
        pairs = zip(strips, weights, strict=True)
        return torch.stack([bin_counts(strip.flatten(1), target.bins, part) for strip, part in pairs]).sum(0)

    def counted(self, layer: Layer, target: HistogramTarget, counts: Tensor) -> HistogramTarget:
        """The style's values at the edges of the bins, and amidst them, by rank."""
        ranks = torch.cat([torch.zeros_like(counts[:, :1]), counts.cumsum(1)], dim=1)
        ranks = ranks / ranks[:, -1:].clamp(min=torch.finfo(ranks.dtype).tiny)
        middles = (ranks[:, :-1] + ranks[:, 1:]) / 2  # of all values of a bin, if they are equal
        ranks = torch.cat([torch.stack([ranks[:, :-1], middles], dim=2).flatten(1), ranks[:, -1:]], dim=1)
        return target._replace(knots=quantiles_of_ranks(target.quantiles, ranks), total=counts[0].sum())

    def measure(self, layer: Layer, features: Tensor, window: Window, target: HistogramTarget) -> Tensor:
        """Mean squared distance to the remapped values, as far as these cells go, (1, C, rows, columns) -> a scalar."""
        values = at_least_float32(features)[0].flatten(1)
        squares = (values - remapped(target, values)).square()
        cells: Tensor | int = window.height * window.width
        if window.weights is not None:
            assert target.total is not None
            squares, cells = squares * window.weights.flatten().to(squares.dtype), target.total
        return squares.sum() / (len(values) * cells * target.scale)


def remapped(target: HistogramTarget, values: Tensor) -> Tensor:
    """The style's values of the same rank, for (C, n) values, under no gradient."""
    assert target.knots is not None
    index, position = target.bins.place(values.detach(), parts=2)
    return torch.lerp(target.knots.gather(1, index), target.knots.gather(1, index + 1), position)
