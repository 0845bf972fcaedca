"""Style as the distribution of features, seen along fixed directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.losses.histogram import quantiles_at
from nst_lightning.losses.reference import WholeMap, Window, at_least_float32, counting
from nst_lightning.losses.term import STYLE_LAYERS, Layer, Term, balance


def unit_directions(count: int, channels: int, seed: int = 0) -> Tensor:
    """Random directions, the same for a seed on every device: (count, channels), of length 1, float32 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, channels, generator=generator)
    unit: Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return unit


class SlicedTarget(NamedTuple):
    """What `SlicedWasserstein` compares with."""

    directions: Tensor  # (n, C), of length 1
    projections: Tensor  # of the style, (n, cells of the image), ascending
    scale: Tensor  # what to divide by, a scalar


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
    additive = True
    weighs_styles = balanced = True
    needs_whole = "sorts all cells of a layer"

    def __init__(
        self,
        layers: dict[str, float] | list[str] = STYLE_LAYERS,
        weight: float = 1.0,
        projections: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(layers, weight)
        check_at_least(f"{self.name}.projections", projections, 1, "64 is the default")
        self.projections, self.seed = projections, seed

    def content_reference(self, layer: Layer) -> WholeMap:
        """All of a picture's features."""
        return WholeMap()

    style_reference = content_reference

    def style_target(self, layer: Layer, styles: Sequence[tuple[tuple[Tensor, Tensor | None], float]]) -> Any:
        """Directions, and each style's sorted projections on them with its share of the blend."""
        (features, _), _ = styles[0]
        directions = unit_directions(self.projections, features.shape[1], self.seed).to(at_least_float32(features))
        return directions, [(_sorted(directions, _that_count(*style)), share) for style, share in styles]

    def target(self, layer: Layer, content: tuple[Tensor, Tensor | None], style: Any) -> SlicedTarget:
        """The blend of the styles' quantiles at the ranks of the image's cells."""
        directions, styles = style
        features = content[0]
        cells = features.shape[-2] * features.shape[-1]
        ranks = torch.linspace(0, 1, cells, device=features.device, dtype=directions.dtype)
        ranks = ranks.expand(self.projections, -1)
        target = torch.stack([share * quantiles_at(ascending, ranks) for ascending, share in styles]).sum(0)
        at_content = (_sorted(directions, features) - target).square().mean()
        return SlicedTarget(directions, target, balance(at_content, target.square().mean()))

    def measure(self, layer: Layer, features: Tensor, window: Window, target: SlicedTarget) -> Tensor:
        """Mean squared distance over ranks and directions, (1, C, h, w) -> a scalar."""
        distance = (_sorted(target.directions, features) - target.projections).square().mean()
        return distance / target.scale


def _that_count(features: Tensor, weights: Tensor | None) -> Tensor:
    """The cells of a style that count, (1, C, 1, n) or all of (1, C, h, w)."""
    return features if weights is None else features[..., counting(weights)][:, :, None]


def _sorted(directions: Tensor, features: Tensor) -> Tensor:
    """Ascending projections of (1, C, h, w) features: (directions, h w)."""
    projections: Tensor = directions @ at_least_float32(features)[0].flatten(1)
    ascending: Tensor = projections.sort(dim=1).values
    return ascending
