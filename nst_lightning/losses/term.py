"""The interface between the objective and its terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.features import Features


class StyleFeatures(NamedTuple):
    """Features of one style image and its share in the blend; the shares of all styles sum to 1."""

    features: Features
    share: float


class Term(nn.Module):
    """One part of the objective: targets taken once a stage, a value at each evaluation.

    A subclass names its group, computes targets in `prepare` and unweighted values in `values`. It needs no
    registration: naming its ``class_path`` in ``model.terms`` is enough.

    Args:
        layers: Names of the layers the term looks at, as a list (each with weight 1) or as a mapping to weights.
        weight: Factor on the whole term, at least 0.

    Attributes:
        group: Which total the term counts in (column ``<group>_loss`` of the metrics); ``model.strength`` scales the
            group ``style``.
        name: Prefix of the term's own columns in the metrics.
    """

    group: ClassVar[str] = "other"

    def __init__(self, layers: Mapping[str, float] | Sequence[str], weight: float = 1.0) -> None:
        super().__init__()
        self.name = type(self).__name__.lower()
        self.layers = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        self.weight = weight
        check_weight(f"{self.name}.weight", weight)
        for layer, value in self.layers.items():
            check_weight(f"{self.name}.layers.{layer}", value)

    def prepare(self, content: Features, styles: Sequence[StyleFeatures]) -> None:
        """Take targets from the features of content and styles, under no gradient.

        Args:
            content: Features of the content image at this stage's size.
            styles: Features of each style image at its own size.
        """

    def values(self, image: Tensor, features: Features) -> dict[str, Tensor]:
        """Compute the term.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1] but not clamped.
            features: The layers asked for, at least float32 where the term computes in it.

        Returns:
            A scalar for each of the term's own columns (its layers, as a rule), layer weights included, `weight` not.
        """
        raise NotImplementedError

    def columns(self) -> list[str]:
        """Names of the values, in the order of `values`."""
        return list(self.layers)


def check_weight(argument: str, value: float) -> None:
    """Refuse weights that would turn a term around or poison the loss.

    Raises:
        UserError: If the value is negative, NaN or infinite.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{argument}: must be finite and at least 0, got {value}; use 0 to switch a part off")
