"""Style as features that each occur somewhere in the style image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.losses.samples import SampleTerm, counting
from nst_lightning.losses.term import Window, balance, wide

_BLOCK = 1 << 22  # similarities held at a time
_SOFT = 1e-3  # of a typical length: a cell without any activation has no direction, and shall have a small gradient


def nearest(directions: Tensor, candidates: Tensor) -> Tensor:
    """Which candidate has the largest cosine with each direction, under no gradient.

    Args:
        directions: (n, C), of any positive length each.
        candidates: (m, C), of length 1.

    Returns:
        (n,) indices.
    """
    rows = max(1, _BLOCK // len(candidates))
    return torch.cat([(block @ candidates.T).argmax(1) for block in torch.split(directions.detach(), rows)])


def patches_of(features: Tensor, side: int, step: int = 1) -> Tensor:
    """Square patches of cells that lie inside a map, one a row.

    Args:
        features: (1, C, h, w).
        side: Of a patch, in cells.
        step: Distance between patches, in cells.

    Returns:
        (n, C side²), in float32 or wider.
    """
    if side == step == 1:
        return wide(features)[0].flatten(1).T  # without a copy
    return F.unfold(wide(features), side, stride=step)[0].T


class NNFM(SampleTerm):
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
        samples: Cells of each style that are looked through at a layer, at most, on a regular grid.
        patches: Side in cells of the square patches that are compared in place of single cells, odd.
    """

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu3_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 4096,
        patches: int = 1,
    ) -> None:
        super().__init__(layers, weight, samples)
        if patches < 1 or patches % 2 == 0:
            raise UserError(
                f"{self.name}.patches: must be odd and at least 1, got {patches}; 1 compares cells, 3 patches of 3x3"
            )
        self.patches = self.least_side = patches
        if patches > 1:
            self.needs_whole = f"compares patches of {patches}x{patches} cells"
        self._targets: dict[str, list[tuple[Tensor, float]]] = {}
        self._soft: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}

    def gather(self, layer: str, picture: int, features: Tensor, window: Window, weights: Tensor | None = None) -> None:
        """Take the sampled cells of a window, or the sampled patches of a whole map; see the base class."""
        if self.patches == 1:
            super().gather(layer, picture, features, window, weights)
            return
        if weights is not None:
            taken = counting(F.avg_pool2d(weights, self.patches, stride=1), self.samples)
            self._gathered[layer][picture] = [patches_of(features, self.patches)[taken.flatten()]]
            return
        step = max(1, math.ceil(math.sqrt(self._count(window) / self.samples)))
        self._gathered[layer][picture] = [patches_of(features, self.patches, step)]

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Keep the styles' directions; see the base class."""
        lengths = torch.stack([share * cells.square().sum(1).mean() for cells, share in styles]).sum()
        self._soft[layer] = _SOFT**2 * lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
        self._targets[layer] = [(self._directions(layer, cells), share) for cells, share in styles]
        at_content = self._distances(layer, content).mean()
        self._scales[layer] = balance(at_content, torch.ones_like(at_content))

    def part(self, layer: str, features: Tensor, window: Window) -> Tensor:
        """Mean distance to the nearest neighbour, as far as these cells go; see the base class."""
        distances = self._distances(layer, patches_of(features, self.patches))
        return distances.sum() / (self._count(window) * self._scales[layer])

    def _count(self, window: Window) -> int:
        """Patches in the map that a window is of."""
        return (window.height - self.patches + 1) * (window.width - self.patches + 1)

    def _directions(self, layer: str, cells: Tensor) -> Tensor:
        return cells / (cells.square().sum(1, keepdim=True) + self._soft[layer]).sqrt()

    def _distances(self, layer: str, cells: Tensor) -> Tensor:
        """1 - cos of (n, C) cells, or flattened patches, and their nearest neighbours, averaged over styles: (n,)."""
        directions = self._directions(layer, cells)
        total = directions.new_zeros(len(cells))
        for candidates, share in self._targets[layer]:
            total = total + share * (1 - (directions * candidates[nearest(directions, candidates)]).sum(1))
        return total
