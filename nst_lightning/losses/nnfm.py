"""Style as features that each occur somewhere in the style image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nst_lightning.losses.samples import SampleTerm
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


class NNFM(SampleTerm):
    """Give each cell features that occur in the style: nearest-neighbour feature matching.

    1 - cos of a cell's features and the most similar ones of the style (Zhang et al. 2022, ARF, equation 1), over its
    value at the content. It keeps strokes that averages over the picture blur, and does not ask how often each occurs.
    With several styles each has its own neighbour, and the distances are averaged. Time grows with cells times samples.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        samples: Cells of each style that are looked through at a layer, at most, on a regular grid.
    """

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu3_1", "relu4_1"],  # noqa: B006
        weight: float = 1.0,
        samples: int = 4096,
    ) -> None:
        super().__init__(layers, weight, samples)
        self._targets: dict[str, list[tuple[Tensor, float]]] = {}
        self._soft: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Keep the styles' directions; see the base class."""
        lengths = torch.stack([share * cells.square().sum(1).mean() for cells, share in styles]).sum()
        self._soft[layer] = _SOFT**2 * lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
        self._targets[layer] = [(self._directions(layer, cells), share) for cells, share in styles]
        at_content = self._distances(layer, content).mean()
        self._scales[layer] = balance(at_content, torch.ones_like(at_content))

    def part(self, layer: str, features: Tensor, window: Window) -> Tensor:
        """Mean distance to the nearest neighbour, as far as these cells go; see the base class."""
        distances = self._distances(layer, wide(features)[0].flatten(1).T)
        return distances.sum() / (window.height * window.width * self._scales[layer])

    def _directions(self, layer: str, cells: Tensor) -> Tensor:
        return cells / (cells.square().sum(1, keepdim=True) + self._soft[layer]).sqrt()

    def _distances(self, layer: str, cells: Tensor) -> Tensor:
        """1 - cos of (n, C) cells and their nearest neighbours, averaged over styles: (n,)."""
        directions = self._directions(layer, cells)
        total = directions.new_zeros(len(cells))
        for candidates, share in self._targets[layer]:
            total = total + share * (1 - (directions * candidates[nearest(directions, candidates)]).sum(1))
        return total
