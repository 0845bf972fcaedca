"""Style as the distribution of each channel's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.hardware.accelerator import cached_values
from nst_lightning.losses.samples import CountTerm
from nst_lightning.losses.term import Window, balance, wide

_BINS = 256  # of the image's counts; the remapping is linear within each
_QUANTILES = 1024  # that stand for a style's distribution


def quantiles_at(sorted_values: Tensor, probabilities: Tensor) -> Tensor:
    """Quantiles of samples, linear between them.

    Args:
        sorted_values: (C, n), ascending.
        probabilities: (C, m) in [0, 1].

    Returns:
        (C, m).
    """
    last = sorted_values.shape[1] - 1
    position = probabilities.clamp(0, 1) * last
    below = position.floor().clamp(max=max(0, last - 1)).long()
    above = (below + 1).clamp(max=last)
    return torch.lerp(sorted_values.gather(1, below), sorted_values.gather(1, above), position - below)


class _Bins(NamedTuple):
    """Equal bins of each channel: where they begin, and how many there are to a unit, (C, 1) each."""

    start: Tensor
    density: Tensor

    @classmethod
    def spanning(cls, cells: Sequence[Tensor]) -> _Bins:
        """Bins from the smallest to the largest of (n, C) cells."""
        low = torch.stack([c.amin(0) for c in cells]).amin(0)[:, None]
        high = torch.stack([c.amax(0) for c in cells]).amax(0)[:, None]
        width = high - low
        return cls(low, torch.where(width > 0, _BINS / width, torch.zeros_like(width)))

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Bin and position in it, in [0, 1], of (C, n) values; those outside lie at the ends."""
        position = ((values - self.start) * self.density).clamp(0, _BINS)
        index = position.floor().clamp(max=_BINS - 1)
        return index.long(), position - index


def bin_counts(values: Tensor, bins: _Bins) -> Tensor:
    """How many of each channel's values fall into each bin: (C, n) -> (C, bins), of the values' type."""
    index, _ = bins.place(values)
    channels = len(values)
    index += _BINS * torch.arange(channels, device=values.device)[:, None]
    return torch.bincount(index.flatten(), minlength=channels * _BINS).view(channels, _BINS).to(values.dtype)


class Histogram(CountTerm):
    """Take on the style's histogram of each channel.

    ‖F - R(F)‖², over its value at the content, where R moves each value of a channel to the style's value of the same
    rank (Risser, Wilmot and Barnes 2017, Stable and Controllable Neural Texture Synthesis, section 4.2). R comes from
    counts over all of the picture and is a constant to the gradient. Made to stand beside a statistic of how channels
    go together. Several styles are blended by their quantiles. A picture that is sampled (`samples`) is so for the
    target only.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Cells of content and style that are looked at for ranges and targets, at most, on a regular grid.
    """

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu1_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 65536,
    ) -> None:
        super().__init__(layers, weight, samples)
        self._bins: dict[str, _Bins] = {}
        self._targets: dict[str, Tensor] = {}  # quantiles (C, Q), ascending
        self._maps: dict[str, Tensor] = {}  # of the edges of bins (C, B + 1)
        self._scales: dict[str, Tensor] = {}

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Blend the styles' quantiles; see the base class."""
        self._bins[layer] = _Bins.spanning([content, *(cells for cells, _ in styles)])
        count = min(_QUANTILES, max(len(cells) for cells, _ in styles))
        levels = torch.linspace(0, 1, count, device=content.device, dtype=content.dtype)
        levels = levels.expand(content.shape[1], -1)
        blend = [share * quantiles_at(cells.T.sort(1).values, levels) for cells, share in styles]
        self._targets[layer] = torch.stack(blend).sum(0)
        self.settle(layer, bin_counts(content.T, self._bins[layer]))
        distance = (content.T - self.remapped(layer, content.T)).square().mean()
        self._scales[layer] = balance(distance, self._targets[layer].square().mean())

    def count(self, layer: str, features: Tensor) -> Tensor:
        """Counts in (C, bins); see the base class."""
        channels, cells = features.shape[1], features.shape[-2] * features.shape[-1]
        rows = max(1, cached_values(features.device.type) * features.shape[-2] // (channels * cells))
        strips = torch.split(wide(features)[0], rows, dim=1)
        return torch.stack([bin_counts(strip.flatten(1), self._bins[layer]) for strip in strips]).sum(0)

    def settle(self, layer: str, counts: Tensor) -> None:
        """Make the remapping; see the base class."""
        ranks = torch.cat([torch.zeros_like(counts[:, :1]), counts.cumsum(1)], dim=1)
        self._maps[layer] = quantiles_at(self._targets[layer], ranks / ranks[:, -1:].clamp(min=1))

    def remapped(self, layer: str, values: Tensor) -> Tensor:
        """The style's values of the same rank, for (C, n) values, under no gradient."""
        index, position = self._bins[layer].place(values.detach())
        edges = self._maps[layer]
        return torch.lerp(edges.gather(1, index), edges.gather(1, index + 1), position)

    def part(self, layer: str, features: Tensor, window: Window) -> Tensor:
        """Mean squared distance to the remapped values, as far as these cells go; see the base class."""
        values = wide(features)[0].flatten(1)
        total = (values - self.remapped(layer, values)).square().sum()
        return total / (len(values) * window.height * window.width * self._scales[layer])
