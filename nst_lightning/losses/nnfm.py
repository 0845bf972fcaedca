"""Style as features that each occur somewhere in the style image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import UserError, check_at_least
from nst_lightning.losses.cosine import directions, softness
from nst_lightning.losses.reference import Sample, WholeMap, Window, at_least_float32, counting
from nst_lightning.losses.term import Layer, Term, balance

_BLOCK = 1 << 22  # similarities held at a time


def nearest(unit: Tensor, candidates: Tensor) -> Tensor:
    """Which of the candidates (m, C), of length 1, has the largest cosine with each direction (n, C): (n,) indices.

    Directions may have any positive length, and get no gradient.
    """
    rows = max(1, _BLOCK // len(candidates))
    return torch.cat([(block @ candidates.T).argmax(1) for block in torch.split(unit.detach(), rows)])


def patches_of(features: Tensor, side: int, step: int = 1) -> Tensor:
    """Square patches of a side in cells that lie inside a map (1, C, h, w), so many cells apart, one a row.

    They are (n, C side²), in float32 or wider.
    """
    if side == step == 1:
        return at_least_float32(features)[0].flatten(1).T  # without a copy
    return F.unfold(at_least_float32(features), side, stride=step)[0].T


class NNFM(Term):
    """Give each cell features that occur in the style: nearest-neighbour feature matching.

    1 - cos of a cell's features and the most similar ones of the style (Zhang et al. 2022, ARF, equation 1), over its
    value at the content. It keeps strokes that averages over the picture blur, and does not ask how often each occurs.
    With several styles each has its own neighbour, and the distances are averaged. Time grows with cells times samples.

    Patches of 3x3 cells, which Li and Wand 2016 (Combining Markov Random Fields and Convolutional Neural Networks for
    Image Synthesis, equations 2 and 3) compare, keep how neighbours go together. They take 9 times the time and the
    memory, and do not work in tiles.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Cells of each style that are looked through at a layer, about, on a regular grid.
        patches: Side in cells of the square patches that are compared in place of single cells, odd.
    """

    group = "style"
    additive = True
    weighs_styles = balanced = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu3_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 4096,
        patches: int = 1,
    ) -> None:
        super().__init__(layers, weight)
        check_at_least(f"{self.name}.samples", samples, 1)
        if patches < 1 or patches % 2 == 0:
            raise UserError(
                f"{self.name}.patches: must be odd and at least 1, got {patches}; 1 compares cells, 3 patches of 3x3"
            )
        self.samples = samples
        self.patches = self.least_side = patches
        if patches > 1:
            self.needs_whole = f"compares patches of {patches}x{patches} cells"

    def content_reference(self, layer: Layer) -> Sample | WholeMap:
        """A sample of a picture's cells; for patches the whole map."""
        return Sample(self.samples) if self.patches == 1 else WholeMap()

    style_reference = content_reference

    def style_target(self, layer: Layer, styles: Sequence[tuple[Any, float]]) -> NNFMTarget:
        """The styles' directions."""
        sampled = [(self._sampled(found), share) for found, share in styles]
        lengths = torch.stack([share * cells.square().sum(1).mean() for cells, share in sampled]).sum()
        soft = softness(lengths)
        return NNFMTarget([(directions(cells, soft), share) for cells, share in sampled], soft, torch.ones_like(soft))

    def target(self, layer: Layer, content: Any, style: NNFMTarget) -> NNFMTarget:
        """The same, with the distance of the content."""
        at_content = _distances(self._sampled(content), style).mean()
        return style._replace(scale=balance(at_content, torch.ones_like(at_content)))

    def measure(self, layer: Layer, features: Tensor, window: Window, target: NNFMTarget) -> Tensor:
        """Mean distance to the nearest neighbour, as far as these cells go, (1, C, rows, columns) -> a scalar."""
        distances = _distances(patches_of(features, self.patches), target)
        return distances.sum() / (self._count(window.height, window.width) * target.scale)

    def _sampled(self, found: Any) -> Tensor:
        """Cells (n, C) or patches (n, C side²), from what a reference kept."""
        if isinstance(found, Tensor):
            return found
        features, weights = found
        if weights is not None:
            chosen = counting(F.avg_pool2d(weights, self.patches, stride=1), self.samples)
            return patches_of(features, self.patches)[chosen.flatten()]
        step = max(1, math.ceil(math.sqrt(self._count(*features.shape[-2:]) / self.samples)))
        return patches_of(features, self.patches, step)

    def _count(self, height: int, width: int) -> int:
        """Patches in a map."""
        return (height - self.patches + 1) * (width - self.patches + 1)


class NNFMTarget(NamedTuple):
    """What `NNFM` compares with."""

    styles: list[tuple[Tensor, float]]  # (n, C) of each style, of about length 1, and its share of the blend
    soft: Tensor  # added to squared lengths, a scalar
    scale: Tensor  # what to divide by, a scalar


def _distances(cells: Tensor, target: NNFMTarget) -> Tensor:
    """1 - cos of (n, C) cells, or flattened patches, and their nearest neighbours, averaged over styles: (n,)."""
    unit = directions(cells, target.soft)
    total = unit.new_zeros(len(cells))
    for candidates, share in target.styles:
        total = total + share * (1 - (unit * candidates[nearest(unit, candidates)]).sum(1))
    return total
