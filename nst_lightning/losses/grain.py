"""Grain: no more of it anywhere than the style has in places as smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.losses.blocks import BlockMeans, BlockReference, Blocks
from nst_lightning.losses.reference import Window
from nst_lightning.losses.term import DETAIL, Layer, Term

_ROUNDING = 3 * (1 / 255) ** 2 / 12  # power of rounding three channels to 8 bits: below it nothing is rough


class StyleGrain(NamedTuple):
    """How much grain places of one style have."""

    powers: Tensor  # (m,), ascending
    places: Tensor  # (m,), ascending, the share of the picture that is smoother, from 0 to 1
    share: float  # of the blend


class GrainTarget(NamedTuple):
    """What `Grain` compares with."""

    roots: Tensor  # (n,), the amplitude that each block of the picture may have
    scale: Tensor  # mean of their squares, a scalar
    blocks: Blocks
    total: float  # sum of the weights of all pixels


class GrainReference(BlockReference):
    """Takes the power of a picture's detail in blocks.

    Args:
        side: Of a block, about, in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__(1)
        self._side = side

    def add(self, features: Tensor, window: Window) -> None:
        """Add what lies in a window."""
        self._most = math.ceil(window.height / self._side) * math.ceil(window.width / self._side)
        super().add(power(features), window)


def power(details: Tensor) -> Tensor:
    """Squares of details (1, C, rows, columns), summed over channels: (1, 1, rows, columns)."""
    return details.square().sum(1, keepdim=True)


class Grain(Term):
    """Allow no more fine grain anywhere than the style has in places as smooth.

    Optimisation leaves a hatching of two to four pixels, the more the longer it goes on, in which a network finds the
    statistics it is asked for: through pooling by maxima a pattern of the finest period looks like any other, and with
    the largest networks, too. Another network sees the hatching and less of the style. So this term looks at the pixels
    themselves, at what a small blur takes from them (`nst_lightning.images.detail`), in blocks. The content's blocks
    are put in order from smooth to rough, and so are the style's; a block may have as much power of detail as that of
    the style at the same place in the order. Skies and walls get the grain of the style's smooth parts, and what is
    rough in the content may be as rough as the style is. Above that the difference of amplitudes counts, squared, over
    the mean power that is allowed; below, nothing does, so that no detail is asked for.

    Args:
        weight: Factor on the term.
        side: Of a block, about, in pixels.
    """

    group = "style"
    weighs_cells = weighs_styles = balanced = True
    copies = 1.0  # what the backward pass needs of the detail

    def __init__(self, weight: float = 1.0, side: int = 16) -> None:
        super().__init__([DETAIL], weight)
        check_at_least(f"{self.name}.side", side, 1)
        self.side = side

    def content_reference(self, layer: Layer) -> GrainReference:
        """The power of detail in blocks."""
        return GrainReference(self.side)

    style_reference = content_reference

    def style_target(self, layer: Layer, styles: Sequence[tuple[BlockMeans, float]]) -> list[StyleGrain]:
        """The styles' blocks in order."""
        found = []
        for (means, blocks, _), share in styles:
            counting = blocks.counting()
            powers, order = means[counting, 0].sort(stable=True)
            found.append(StyleGrain(powers, _places(powers, blocks.weights[counting][order]), share))
        return found

    def target(self, layer: Layer, content: BlockMeans, style: list[StyleGrain]) -> GrainTarget:
        """What the content's blocks may have."""
        means, blocks, total = content
        around = _around(means[:, 0], blocks)
        order = around.argsort(stable=True)
        places = torch.empty_like(around)
        places[order] = _places(around[order], blocks.weights[order])
        allowed = torch.stack([one.share * _interpolated(places, one.places, one.powers) for one in style]).sum(0)
        allowed = allowed + _ROUNDING
        return GrainTarget(allowed.sqrt(), (allowed * blocks.weights).sum(), blocks, total)

    def measure(self, layer: Layer, features: Tensor, window: Window, target: GrainTarget) -> Tensor:
        """Power of detail, summed over blocks: (1, 3, rows, columns) -> (n, 1)."""
        return target.blocks.sums(power(features), window)

    def loss(self, layer: Layer, mean: Tensor, target: GrainTarget) -> Tensor:
        """Squared excess of amplitudes over what is allowed."""
        found = target.blocks.means(mean * target.total)[:, 0]
        excess = ((found + _ROUNDING).sqrt() - target.roots).clamp(min=0)
        return (excess.square() * target.blocks.weights).sum() / target.scale


def _around(powers: Tensor, blocks: Blocks) -> Tensor:
    """Means over 3x3 blocks, (n,): one that has little of what is measured by chance is not smooth."""
    grid = (blocks.down, blocks.across)
    counts = F.avg_pool2d(blocks.counts.view(1, 1, *grid), 3, 1, 1)
    sums = F.avg_pool2d((powers * blocks.counts).view(1, 1, *grid), 3, 1, 1)
    return (sums / counts.clamp(min=torch.finfo(counts.dtype).tiny)).flatten()


def _places(ascending: Tensor, masses: Tensor) -> Tensor:
    """The share of a picture that is smoother than each of its blocks, and half of what is as smooth: (n,) -> (n,).

    Powers within two percent, and all that rounding may have made, are alike: a white background has one place and not
    an order, and the last bits of a sum decide nothing.
    """
    steps = (32 * (ascending.clamp(min=_ROUNDING) / _ROUNDING).log2()).round()
    kind = F.pad((steps.diff() != 0).cumsum(0), (1, 0)).cpu()
    of_kind = torch.zeros(int(kind[-1]) + 1, dtype=torch.float64).index_add_(0, kind, masses.cpu().double())
    places = (of_kind.cumsum(0) - of_kind / 2) / of_kind.sum()
    return places[kind].to(ascending)


def _interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Linear between values (m,) at places (m,), ascending, and constant beyond: (n,) -> (n,)."""
    last = len(places) - 1
    right = torch.searchsorted(places, at).clamp(max=last)
    left = (right - 1).clamp(min=0)
    step = (places[right] - places[left]).clamp(min=torch.finfo(places.dtype).tiny)
    share = ((at - places[left]) / step).clamp(0, 1)
    return torch.lerp(values[left], values[right], share)
