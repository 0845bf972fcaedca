"""Content: the image's features stay close to the content image's, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nst_lightning.losses.statistics import gram_sum
from nst_lightning.losses.term import StyleFeatures, Term, Widening

ContentNormalization = Literal["balanced", "released", "paper"]


def content_distance(
    features: Tensor,
    target: Tensor,
    normalization: ContentNormalization = "released",
    widening: Widening | None = None,
    energy: Tensor | None = None,
) -> Tensor:
    """Squared distance of feature maps.

    Args:
        features: (1, C, h, w).
        target: The same shape.
        normalization: ``released``, mean((F - P)²), as in Gatys' PyTorch notebook; ``paper``, ½ Σ (F - P)²
            (Gatys, Ecker and Bethge, CVPR 2016, equation 1); ``balanced``, mean((F - P)²) / mean(P²), which is 1 for
            features of zero and does not depend on the network's scale.
        widening: For narrow features.
        energy: ``content_energy(target, widening)``, for balanced, if it is known already.

    Returns:
        A scalar of at least 0, in float32 or wider.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    total = content_energy(wide - target, widening)
    if normalization == "paper":
        return total / 2
    if normalization == "released":
        channels = target.shape[1] if widening is None else widening.channels
        return total / (channels * target.shape[-2] * target.shape[-1])
    energy = content_energy(target, widening) if energy is None else energy
    return total / energy.clamp(min=torch.finfo(target.dtype).tiny)


def content_energy(features: Tensor, widening: Widening | None = None) -> Tensor:
    """Sum of squares of (1, C, h, w) features; of narrow ones after widening, tr(WᵀW F Fᵀ)."""
    if widening is None:
        return features.square().sum()
    root = widening.root.to(features.dtype)
    return (root @ gram_sum(features) @ root.T).trace()


class Content(Term):
    """Keep the content image's features.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        normalization: balanced (relative to the content's own features), released (mean) or paper (half the sum).
    """

    group = "content"
    quadratic = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu4_2"],  # noqa: B006 - a list shows as default in --help
        weight: float = 1.0,
        normalization: ContentNormalization = "balanced",
    ) -> None:
        super().__init__(layers, weight)
        self.normalization: ContentNormalization = normalization
        self._targets: dict[str, Tensor] = {}
        self._energies: dict[str, Tensor] = {}

    def prepare(self, layer: str, content: Tensor, styles: Sequence[StyleFeatures]) -> None:
        """Keep the content's features, in their own type to halve memory under bfloat16; see the base class."""
        self._targets[layer] = content.clone()
        wide = content if content.dtype == torch.float64 else content.float()
        self._energies[layer] = content_energy(wide, self.widenings.get(layer))

    def value(self, layer: str, features: Tensor) -> Tensor:
        """Distance from the content's features; see the base class."""
        target = self._targets[layer]
        target = target if target.dtype == torch.float64 else target.float()
        widening = self.widenings.get(layer)
        return content_distance(features, target, self.normalization, widening, self._energies.get(layer))
