"""The interface between the objective and its terms.

A term that is a `StatisticTerm` (a sum over cells, then a distance) or a `CellTerm` (a sum over cells) can be evaluated
tile by tile, exactly; any other term wants whole feature maps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.losses.projection import Widening


class StyleFeatures(NamedTuple):
    """Features of one style image at a layer.

    Attributes:
        features: (1, C, h, w).
        share: Of it in the blend; shares sum to 1.
        weights: (1, 1, h, w), how much each cell counts; None: all alike.
    """

    features: Tensor
    share: float
    weights: Tensor | None = None


class Window(NamedTuple):
    """Some cells of a layer's feature map.

    Attributes:
        rows: Rows of these cells.
        columns: Columns of these cells.
        height: Rows of the whole map.
        width: Columns of the whole map.
    """

    rows: slice
    columns: slice
    height: int
    width: int

    @classmethod
    def whole(cls, features: Tensor) -> Window:
        """All cells of (1, C, h, w) features."""
        height, width = features.shape[-2:]
        return cls(slice(0, height), slice(0, width), height, width)

    @property
    def is_whole(self) -> bool:
        """Whether these are all cells."""
        return (self.rows, self.columns) == (slice(0, self.height), slice(0, self.width))


class Term(nn.Module):
    """One part of the objective: targets taken once a stage, a value at each evaluation.

    A subclass names its group, takes targets in `prepare` (of a layer) and computes unweighted values in `value` (of a
    layer) or `image_values` (of the picture itself). It needs no registration: naming its ``class_path`` in
    ``model.terms`` is enough.

    Args:
        layers: Names of the layers the term looks at, as a list (each with weight 1) or as a mapping to weights.
        weight: Factor on the whole term, at least 0.

    Attributes:
        group: Which total the term counts in (column ``<group>_loss`` of the metrics); ``model.strength`` scales the
            group ``style``.
        least_side: Cells that a layer's feature map has along each side, at least.
        needs_whole: What the term does that wants whole feature maps, as the end of a sentence, where its class alone
            would let it work in tiles; else empty.
        name: Prefix of the term's own columns in the metrics.
        quadratic: Whether the term takes narrow features, whose `widenings` it heeds; others get them at full width.
        widenings: Layer -> what inner products need, for narrow features; set before `prepare`.
        region: Index of the part of the picture that the term is about; None: all of it.
        masks: Layer -> weights of the picture's cells, (1, 1, h, w), none for all alike; set before `prepare`.
        area: Share of the picture that the masks leave, a factor on the term.
    """

    group: ClassVar[str] = "other"
    quadratic: ClassVar[bool] = False
    least_side: int = 1
    needs_whole: str = ""

    def __init__(self, layers: Mapping[str, float] | Sequence[str], weight: float = 1.0) -> None:
        super().__init__()
        self.name = type(self).__name__.lower()
        self.layers = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        self.weight = weight
        self.widenings: dict[str, Widening] = {}
        self.region: int | None = None
        self.masks: dict[str, Tensor] = {}
        self.area = 1.0
        check_weight(f"{self.name}.weight", weight)
        for layer, value in self.layers.items():
            check_weight(f"{self.name}.layers.{layer}", value)

    def prepare(self, layer: str, content: Tensor, styles: Sequence[StyleFeatures]) -> None:
        """Take targets from the features of content and styles at one of the term's layers, under no gradient.

        Layers come one by one, so that only one layer's features are in memory; keep a copy of what is to stay.

        Args:
            layer: Its name.
            content: Features of the content image at this stage's size, (1, C, h, w).
            styles: Features of each style image at its own size.
        """

    def value(self, layer: str, features: Tensor) -> Tensor:
        """Compute the term at one of its layers.

        Layers come one by one, in order of depth, as the network reaches them, so that the backward pass makes each
        gradient when it is needed and not before.

        Args:
            layer: Its name.
            features: (1, C, h, w), bfloat16 under that precision: sums belong into float32.

        Returns:
            A scalar, without the weights of term and layer.
        """
        raise NotImplementedError(f"{type(self).__name__} has layers but no value()")

    def image_values(self, image: Tensor) -> dict[str, Tensor]:
        """Compute what the term takes from the picture itself; nothing, unless a subclass says so.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1] but not clamped.

        Returns:
            A scalar for each column that is not a layer, without the weight.
        """
        return {}

    def columns(self) -> list[str]:
        """Names of the values: layers, then those of `image_values`."""
        return list(self.layers)


class StatisticTerm(Term):
    """A term that looks at a layer through sums over its cells.

    A subclass says what is summed and how far a mean over cells is from the target; it never sees where cells are.

    Attributes:
        keeps_wide: Whether the pass back finds features in float32, where those of the network are narrower.
        copies: How often the features of a layer are in memory at once, in their own type, beside those of the network.
    """

    keeps_wide: ClassVar[bool] = False
    copies: ClassVar[float] = 0.0

    def statistic(self, layer: str, features: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum over cells; the sum of two parts' statistics is that of both.

        Args:
            layer: Its name.
            features: (1, C, h, w).
            weights: (1, 1, h, w), how often each cell counts; once, if None.
        """
        raise NotImplementedError

    def set_target(self, layer: str, content: Tensor, styles: Sequence[tuple[Tensor, float]]) -> None:
        """Take the target from means over cells: of the content, and of each style with its share."""
        raise NotImplementedError

    def distance(self, layer: str, mean: Tensor) -> Tensor:
        """The term's value, a scalar, from the mean over the image's cells."""
        raise NotImplementedError

    def distances(self, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values at several layers, from the means over the image's cells there.

        One by one, unless a subclass has work that is better done side by side.
        """
        return {layer: self.distance(layer, mean) for layer, mean in means.items()}

    def prepare(self, layer: str, content: Tensor, styles: Sequence[StyleFeatures]) -> None:
        """Take the target from whole feature maps; see the base class."""
        means = [(self._mean(layer, style.features, style.weights), style.share) for style in styles]
        self.set_target(layer, self.mean(layer, content), means)

    def value(self, layer: str, features: Tensor) -> Tensor:
        """Distance of the mean from its target; see the base class."""
        return self.distance(layer, self.mean(layer, features))

    def mean(self, layer: str, features: Tensor) -> Tensor:
        """Mean of the statistic over the image's cells, as masks weigh them."""
        return self._mean(layer, features, self.masks.get(layer))

    def _mean(self, layer: str, features: Tensor, weights: Tensor | None) -> Tensor:
        if weights is None:
            return self.statistic(layer, features) / (features.shape[-2] * features.shape[-1])
        return self.statistic(layer, features, weights) / weights.sum()


class StyleStatistic(StatisticTerm):
    """A statistic of the style's, at the layers that Gatys et al. took unless told otherwise.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.

    Attributes:
        needs_spread: Whether one cell alone says nothing.
    """

    group = "style"
    quadratic = True
    needs_spread: ClassVar[bool] = False

    def __init__(
        self,
        layers: dict[str, float] | list[str] = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"],  # noqa: B006
        weight: float = 1.0,
    ) -> None:
        super().__init__(layers, weight)
        self._targets: dict[str, Any] = {}
        self._scales: dict[str, Tensor] = {}


class CellTerm(Term):
    """A term that is a sum over cells, each compared with what was kept of the content's cell there."""

    def begin(self, layer: str) -> None:
        """Forget what was kept of a layer: another content is to come."""
        raise NotImplementedError

    def keep(self, layer: str, features: Tensor, window: Window) -> None:
        """Take the content's features in a window as targets; windows come without overlaps, in any order.

        Args:
            layer: Its name.
            features: (1, C, rows, columns).
            window: Where they lie.
        """
        raise NotImplementedError

    def additive(self, layer: str) -> list[Tensor]:
        """What was summed over the windows kept; processes that share them add it up in place."""
        return []

    def part(self, layer: str, features: Tensor, window: Window) -> Tensor:
        """What a window's cells add to the term's value, a scalar, once all targets were taken."""
        raise NotImplementedError

    def prepare(self, layer: str, content: Tensor, styles: Sequence[StyleFeatures]) -> None:
        """Keep the whole content; see the base class."""
        self.begin(layer)
        self.keep(layer, content, Window.whole(content))

    def value(self, layer: str, features: Tensor) -> Tensor:
        """All cells' parts; see the base class."""
        return self.part(layer, features, Window.whole(features))


def wide(features: Tensor) -> Tensor:
    """Features in float32, or float64 if they are: the type that sums belong into."""
    return features if features.dtype == torch.float64 else features.float()


# Where content and style share a statistic (the same picture, say) there is nothing to balance by; the floor keeps the
# quotient finite. It is a squared relative distance of one percent.
_BALANCE_FLOOR = 1e-4


def balance(at_content: Tensor, size: Tensor) -> Tensor:
    """What to divide a squared distance by so that it is 1 at the content image.

    Args:
        at_content: The distance of the content's statistic from the target, a scalar.
        size: The target's own squared size.
    """
    return torch.maximum(at_content, _BALANCE_FLOOR * size).clamp(min=torch.finfo(size.dtype).tiny)


def check_weight(argument: str, value: float) -> None:
    """Refuse weights that would turn a term around or poison the loss.

    Raises:
        UserError: If the value is negative, NaN or infinite.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{argument}: must be finite and at least 0, got {value}; use 0 to switch a part off")
