"""Content: the image's features stay close to the content image's, cell by cell."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.losses.projection import Widening, cells_energy
from nst_lightning.losses.term import CellTerm, Window, wide

ContentNormalization = Literal["balanced", "released", "paper"]


def content_distance(
    features: Tensor,
    target: Tensor,
    normalization: ContentNormalization = "released",
    widening: Widening | None = None,
) -> Tensor:
    """Squared distance of feature maps.

    Args:
        features: (1, C, h, w).
        target: The same shape.
        normalization: ``released``, mean((F - P)²), as in Gatys' PyTorch notebook; ``paper``, ½ Σ (F - P)²
            (Gatys, Ecker and Bethge, CVPR 2016, equation 1); ``balanced``, mean((F - P)²) / mean(P²), which is 1 for
            features of zero and does not depend on the network's scale.
        widening: For narrow features.

    Returns:
        A scalar of at least 0, in float32 or wider.
    """
    total = cells_energy(wide(features) - target, widening, features.dtype)
    channels = target.shape[1] if widening is None else widening.channels
    values = channels * target.shape[-2] * target.shape[-1]
    return total / _divisor(normalization, values, cells_energy(target, widening))


def _divisor(normalization: ContentNormalization, values: int, energy: Tensor) -> Tensor:
    """What a sum of squared differences is divided by, for targets of so many values and that sum of squares."""
    if normalization == "balanced":
        return energy.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.full_like(energy, 2 if normalization == "paper" else values)


class Content(CellTerm):
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

    def begin(self, layer: str) -> None:
        """Forget the targets of the last stage; see the base class."""
        self._targets.pop(layer, None)
        self._energies.pop(layer, None)

    def keep(self, layer: str, features: Tensor, window: Window) -> None:
        """Keep the content's features; those of a part in bfloat16, as memory is short then; see the base class."""
        energy = cells_energy(wide(features), self.widenings.get(layer))
        energy = energy.to(widest_dtype(energy.device.type))  # for sums that do not depend on the order of the parts
        self._energies[layer] = self._energies[layer] + energy if layer in self._energies else energy
        if window.is_whole:
            self._targets[layer] = features.clone()
            return
        if layer not in self._targets:
            kind = torch.bfloat16 if features.dtype == torch.float32 else features.dtype
            self._targets[layer] = features.new_empty(1, features.shape[1], window.height, window.width, dtype=kind)
        self._targets[layer][..., window.rows, window.columns] = features

    def additive(self, layer: str) -> list[Tensor]:
        """The energy; see the base class."""
        return [self._energies[layer]]

    def part(self, layer: str, features: Tensor, window: Window) -> Tensor:
        """Distance from the content's features; see the base class."""
        target = wide(self._targets[layer][..., window.rows, window.columns])
        widening = self.widenings.get(layer)
        difference = wide(features) - target
        if layer in self.masks:
            difference = difference * self.masks[layer][..., window.rows, window.columns].sqrt()
        total = cells_energy(difference, widening, features.dtype)
        channels = target.shape[1] if widening is None else widening.channels
        values = channels * window.height * window.width
        return total / _divisor(self.normalization, values, self._energies[layer]).to(total.dtype)
