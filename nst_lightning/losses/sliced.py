"""Style as the distribution of features, seen along fixed directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.losses.histogram import quantiles_at
from nst_lightning.losses.samples import counting
from nst_lightning.losses.term import StyleFeatures, Term, balance, wide


def unit_directions(count: int, channels: int, seed: int = 0) -> Tensor:
    """Random directions, the same for a seed on every device: (count, channels), of length 1, float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, channels, generator=generator)
    unit: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return unit


class SlicedWasserstein(Term):
    """Take on the style's distribution of features, by the sliced Wasserstein-2 distance, 1 at the content image.

    Projections of features onto fixed directions are sorted and compared with the style's, rank by rank (Heitz et al.
    2021, A Sliced Wasserstein Loss for Neural Texture Synthesis, equations 2 to 4). It sees the whole distribution and
    not only its moments. Directions stay the same throughout a run, as L-BFGS needs one function. Sorting wants all
    cells at once, so the term does not work in tiles. Several styles are blended by their quantiles.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        projections: Number of directions; more see more, and take more time.
        seed: Of the directions.
    """

    group = "style"

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"],  # noqa: B006
        weight: float = 1.0,
        projections: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(layers, weight)
        if projections < 1:
            raise UserError(f"{self.name}.projections: must be at least 1, got {projections}; 64 is the default")
        self.projections, self.seed = projections, seed
        self._targets: dict[str, tuple[Tensor, Tensor]] = {}
        self._scales: dict[str, Tensor] = {}

    def prepare(self, layer: str, content: Tensor, styles: Sequence[StyleFeatures]) -> None:
        """Sort the styles' projections and resample them to the image's cells; see the base class."""
        directions = unit_directions(self.projections, content.shape[1], self.seed).to(wide(content))
        cells = content.shape[-2] * content.shape[-1]
        ranks = torch.linspace(0, 1, cells, device=content.device, dtype=directions.dtype)
        ranks = ranks.expand(self.projections, -1)
        blend = [style.share * quantiles_at(_sorted(directions, _counted(style)), ranks) for style in styles]
        target = torch.stack(blend).sum(0)
        self._targets[layer] = directions, target
        at_content = (_sorted(directions, content) - target).square().mean()
        self._scales[layer] = balance(at_content, target.square().mean())

    def value(self, layer: str, features: Tensor) -> Tensor:
        """Mean squared distance over ranks and directions; see the base class."""
        directions, target = self._targets[layer]
        distance: Tensor = (_sorted(directions, features) - target).square().mean()
        return distance / self._scales[layer]


def _counted(style: StyleFeatures) -> Tensor:
    """The cells of a style that count, (1, C, 1, n) or all of (1, C, h, w)."""
    if style.weights is None:
        return style.features
    return style.features[..., counting(style.weights)][:, :, None]


def _sorted(directions: Tensor, features: Tensor) -> Tensor:
    """Ascending projections of (1, C, h, w) features: (directions, h w)."""
    projections: Tensor = directions @ wide(features)[0].flatten(1)
    ascending: Tensor = projections.sort(dim=1).values
    return ascending
