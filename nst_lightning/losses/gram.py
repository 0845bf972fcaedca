"""Style as correlations of channels (Gatys, Ecker and Bethge)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from nst_lightning.losses.projection import Widening, pairs_energy
from nst_lightning.losses.reductions import gram_sum
from nst_lightning.losses.term import StyleStatistic, balance

GramNormalization = Literal["balanced", "released", "paper"]


def gram_matrix(features: Tensor) -> Tensor:
    """Mean over cells of the outer product of channels, F Fᵀ / (h w).

    Args:
        features: (1, C, h, w).

    Returns:
        (C, C), float32 or wider.
    """
    return gram_sum(features) / (features.shape[-2] * features.shape[-1])


def gram_distance(
    gram: Tensor,
    target: Tensor,
    normalization: GramNormalization = "released",
    widening: Widening | None = None,
) -> Tensor:
    """Squared distance of Gram matrices.

    Args:
        gram: (C, C), from `gram_matrix`.
        target: The same shape.
        normalization: ``released``, mean((G - A)²) / C², which is Gatys' PyTorch notebook (style weight 1000) and the
            mean square of matrices divided by cells and channels of common scripts; ``paper``, Σ (G - A)² / (4 C²),
            which is 1/(4 N² M²) Σ (G' - A')² of CVPR 2016, equation 4, for G' = M G when both images have M cells, and
            its extension otherwise; ``balanced``, Σ (G - A)² (the term divides it by its value at the content).
        widening: For Gram matrices of narrow features: the result is that of the full ones, which are never formed.

    Returns:
        A scalar of at least 0.
    """
    total = pairs_energy(gram - target, widening)
    if normalization == "balanced":
        return total
    channels = gram.shape[0] if widening is None else widening.channels
    return total / (4 * channels**2) if normalization == "paper" else total / channels**4


class Gram(StyleStatistic):
    """Take on the style's correlations of channels.

    With several styles the targets are the weighted mean of the styles' Gram matrices.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        normalization: balanced (each layer's distance is 1 at the content image), released
            (Gatys' notebook and common scripts) or paper (CVPR 2016).
    """

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"],  # noqa: B006
        weight: float = 1.0,
        normalization: GramNormalization = "balanced",
    ) -> None:
        super().__init__(layers, weight)
        self.normalization: GramNormalization = normalization

    def statistic(self, layer: str, features: Tensor, weights: Tensor | None = None) -> Tensor:
        """F Fᵀ of the cells, (c, c); see the base class."""
        return gram_sum(features, weights)

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Blend the styles' Gram matrices; see the base class."""
        target = torch.stack([share * self._pairs(mean) for mean, share in styles]).sum(0)
        self._targets[layer] = target
        self._scales[layer] = torch.ones_like(target[0, 0])
        if self.normalization == "balanced":
            widening = self.widenings.get(layer)
            at_content = gram_distance(self._pairs(content), target, "balanced", widening)
            self._scales[layer] = balance(at_content, pairs_energy(target, widening))

    def distance(self, layer: str, mean: Tensor) -> Tensor:
        """Distance from the style's Gram matrix; see the base class."""
        distance = gram_distance(self._pairs(mean), self._targets[layer], self.normalization, self.widenings.get(layer))
        return distance / self._scales[layer]

    def _pairs(self, mean: Tensor) -> Tensor:
        """The matrix of pairs of channels (c, c) that is compared, from the statistic's mean over cells."""
        return mean
