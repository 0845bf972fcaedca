"""Style as correlations of channels (Gatys, Ecker and Bethge)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from nst_lightning.losses.projection import Projection, pairs_energy
from nst_lightning.losses.reductions import gram_sum
from nst_lightning.losses.reference import Window
from nst_lightning.losses.term import STYLE_LAYERS, Layer, StyleTerm

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
    projection: Projection | None = None,
) -> Tensor:
    """Squared distance of Gram matrices.

    Args:
        gram: (C, C), from `gram_matrix`.
        target: The same shape.
        normalization: ``released``, mean((G - A)²) / C², which is Gatys' PyTorch notebook (style weight 1000) and the
            mean square of matrices divided by cells and channels of common scripts; ``paper``, Σ (G - A)² / (4 C²),
            which is 1/(4 N² M²) Σ (G' - A')² of CVPR 2016, equation 4, for G' = M G when both images have M cells, and
            its extension otherwise; ``balanced``, Σ (G - A)² (the term divides it by its value at the content).
        projection: Of features with fewer channels: the full Gram matrices are never formed.

    Returns:
        A scalar of at least 0.
    """
    total = pairs_energy(gram - target, projection)
    if normalization == "balanced":
        return total
    channels = gram.shape[0] if projection is None else projection.channels
    return total / (4 * channels**2) if normalization == "paper" else total / channels**4


class Gram(StyleTerm):
    """Take on the style's correlations of channels.

    With several styles the targets are the weighted mean of the styles' Gram matrices.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        normalization: balanced (each layer's distance is 1 at the content image), released
            (Gatys' notebook and common scripts) or paper (CVPR 2016).
    """

    takes_projection = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = STYLE_LAYERS,
        weight: float = 1.0,
        normalization: GramNormalization = "balanced",
    ) -> None:
        super().__init__(layers, weight)
        self.normalization: GramNormalization = normalization
        self.balanced = normalization == "balanced"

    def measure(self, layer: Layer, features: Tensor, window: Window, target: Any) -> Tensor:
        """F Fᵀ of the cells, (1, C, rows, columns) -> (C, C)."""
        return gram_sum(features, window.weights)

    def style_target(self, layer: Layer, styles: Sequence[tuple[Tensor, float]]) -> Tensor:
        """The styles' weighted mean Gram matrix, (C, C)."""
        return torch.stack([share * self._matrix(mean) for mean, share in styles]).sum(0)

    def distance(self, layer: Layer, mean: Tensor, target: Tensor) -> Tensor:
        """Squared distance from the style's Gram matrix."""
        return gram_distance(self._matrix(mean), target, self.normalization, layer.projection)

    def _matrix(self, mean: Tensor) -> Tensor:
        """The (C, C) matrix that is compared, from the mean of `measure`; another one in `Covariance`."""
        return mean
