"""Content: the image's features stay close to the content image's, cell by cell."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.losses.projection import Projection, cells_energy
from nst_lightning.losses.reference import Sharing, Window
from nst_lightning.losses.term import Layer, Term

ContentNormalization = Literal["balanced", "released", "paper"]

_LEAST_SQUARE = 1e-4  # mean square of a content that it is divided by: of black there is none


def content_distance(
    features: Tensor,
    target: Tensor,
    normalization: ContentNormalization = "released",
    projection: Projection | None = None,
) -> Tensor:
    """Squared distance of feature maps.

    Args:
        features: (1, C, h, w).
        target: The same shape.
        normalization: ``released``, mean((F - P)²), as in Gatys' PyTorch notebook; ``paper``, ½ Σ (F - P)²
            (Gatys, Ecker and Bethge, CVPR 2016, equation 1); ``balanced``, mean((F - P)²) / mean(P²), which is 1 for
            features of zero and does not depend on the network's scale; mean(P²) counts as at least 1e-4, which is for
            contents that are black.
        projection: Of features with fewer channels.

    Returns:
        A scalar of at least 0, in float32 or wider.
    """
    total = cells_energy(features, projection, features.dtype, target)
    channels = target.shape[1] if projection is None else projection.channels
    values = channels * target.shape[-2] * target.shape[-1]
    return total / _divisor(normalization, values, cells_energy(target, projection))


def _divisor(normalization: ContentNormalization, values: int, energy: Tensor) -> Tensor:
    """What a sum of squared differences is divided by, for targets of so many values and that sum of squares."""
    if normalization == "balanced":
        return energy.clamp(min=_LEAST_SQUARE * values)
    return torch.full_like(energy, 2 if normalization == "paper" else values)


class ContentTarget(NamedTuple):
    """What `Content` compares with."""

    features: Tensor  # (1, C, h, w) of the content
    energy: Tensor  # sum of their squares, after projection, a scalar


class ContentMap:
    """Gathers a content's features in their places; those of a tile in bfloat16, as memory is short then."""

    sharing: Sharing = "own"

    def __init__(self, layer: Layer) -> None:
        self._projection = layer.projection
        self._features: Tensor | None = None
        self._energy: Tensor | None = None

    def add(self, features: Tensor, window: Window) -> None:
        """Copy a window's features."""
        energy = cells_energy(features, self._projection)
        energy = energy.to(widest_dtype(energy.device))  # for sums that do not depend on the order of the windows
        self._energy = energy if self._energy is None else self._energy + energy
        if window.is_whole:
            self._features = features.clone()
            return
        if self._features is None:
            kind = torch.bfloat16 if features.dtype == torch.float32 else features.dtype
            self._features = features.new_empty(1, features.shape[1], window.height, window.width, dtype=kind)
        self._features[..., window.rows, window.columns] = features

    def sums(self) -> list[Tensor]:
        """The energy."""
        return [] if self._energy is None else [self._energy]

    def result(self, cells: float) -> ContentTarget:
        """Features and energy."""
        assert self._features is not None
        assert self._energy is not None
        return ContentTarget(self._features, self._energy)


class Content(Term):
    """Keep the content image's features.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
        normalization: balanced (relative to the content's own features), released (mean) or paper (half the sum).
    """

    group = "content"
    additive = True
    weighs_cells = True
    takes_projection = True
    copies = 1.0  # half of the gradient
    widened = 3.0

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu4_2"],  # noqa: B006 - a list shows as default in --help
        weight: float = 1.0,
        normalization: ContentNormalization = "balanced",
    ) -> None:
        super().__init__(layers, weight)
        self.normalization: ContentNormalization = normalization
        self.balanced = normalization == "balanced"

    def content_reference(self, layer: Layer) -> ContentMap:
        """The content's features."""
        return ContentMap(layer)

    def style_reference(self, layer: Layer) -> None:
        """Nothing of a style."""

    def target(self, layer: Layer, content: ContentTarget, style: Any) -> ContentTarget:
        """The content's features."""
        return content

    def measure(self, layer: Layer, features: Tensor, window: Window, target: ContentTarget) -> Tensor:
        """Squared differences from the content's features, (1, C, rows, columns) -> a scalar."""
        there = target.features[..., window.rows, window.columns]
        total = cells_energy(features, layer.projection, features.dtype, there, window.weights)
        channels = there.shape[1] if layer.projection is None else layer.projection.channels
        values = channels * window.height * window.width
        return total / _divisor(self.normalization, values, target.energy).to(total.dtype)
