"""The contract between the objective and its terms.

A term is configuration: what it compares, at which layers, with which weight. Nothing of a run is written to it (a
network inside a term goes to the model's device), so one object may serve several models and threads. What a run
compares with are *targets*, values that the term's methods make of features and get back:

1. Of each style picture, and of the content, a `Reference` keeps what the term needs: by default the mean over cells
   of what `Term.measure` returns.
2. `Term.style_target` makes the style's part of a target, which depends on nothing else and may be kept for other
   content pictures; `Term.target` adds what depends on the content, and `Term.start_target` what depends on the picture
   that a stage starts from.
3. `Term.measure` looks at the image's features, at a window of them at a time. Results for windows add up.
4. `Term.loss` turns the mean of the measure over all cells into the loss at a layer.

This is all that is needed to evaluate a term in tiles, on several processes and in regions of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.losses.projection import Projection
from nst_lightning.losses.reference import Mean, Reference, Window

IMAGE = "image"  # name of the layer that is the picture itself, and of the column of `Term.image_loss`
DETAIL = "detail"  # name of the layer that is its finest detail: what a small blur takes away
PIXEL_LAYERS = (IMAGE, DETAIL)  # of one pixel a cell, which no network makes
STYLE_LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]


class Layer(NamedTuple):
    """A layer of the network, as a term is told of it.

    Attributes:
        name: Its name.
        projection: The linear map from its features to VGG-19's where those of the network have fewer channels; None
            where features are VGG-19's own, or the term gets them projected.
    """

    name: str
    projection: Projection | None = None


class Matrices(NamedTuple):
    """For estimates of memory: bytes at a layer of what compares cells with each other, which features say nothing of.

    Attributes:
        target: There as long as a stage lasts.
        left: There from `Term.loss` to the pass back, at all layers at once.
        passing: There besides, while the loss or its gradient is computed, at one layer at a time.
    """

    target: int = 0
    left: int = 0
    passing: int = 0


class Term(nn.Module):
    """One part of the objective.

    A subclass that looks at layers overrides `measure`, and `loss` unless its loss is the sum of its measures; one that
    looks at the picture itself overrides `image_loss`. It needs no registration: naming its ``class_path`` in
    ``model.terms`` is enough.

    Args:
        layers: Names of the layers that the term looks at, as a list (each with weight 1) or as a mapping to weights;
            ``image`` is the picture itself, RGB with one pixel a cell, and ``detail`` its finest detail
            (`nst_lightning.images.detail`).
        weight: Factor on the whole term, at least 0.

    Attributes:
        group: Which total the term counts in (column ``<group>_loss`` of the metrics); ``model.strength`` scales the
            group ``style``.
        additive: Whether the loss at a layer is the sum of `measure` over all windows, without `loss`; of an
            `image_loss`, whether it is a sum over pixels by their weights, not divided by the sum of these.
        needs_counts: Whether `measure` needs counts over the whole image first; see `count`.
        sees_image: Whether there is an `image_loss`, whose column is called ``image``.
        needs_content: Whether `image_loss` needs the content picture, which then stays in memory.
        needs_start: Whether targets depend on the picture that a stage starts from; see `start_reference`.
        weighs_cells: Whether `measure` heeds a window's weights, so that the term can have regions.
        weighs_styles: Whether it heeds a mask of a style picture.
        needs_spread: Whether it needs two cells at least, as a variance does.
        takes_projection: Whether the term takes features of fewer channels together with a projection; others get them
            projected, which costs time and memory.
        needs_whole: Why `measure` must see all of a feature map at once, as the end of a sentence; empty: it need not.
        least_side: Cells that a layer's feature map has along each side, at least.
        copies: For estimates of memory: how much `measure` leaves for the pass back beside the layer's features, as a
            multiple of them; of one with `needs_content` how many pictures `image_loss` has beside image and content.
        widened: Likewise, on accelerators, where `measure` works on all of a map at once: float32 copies of it that
            come and go meanwhile.
        float32_gradient: Likewise: whether the backward pass finds features in float32 where the network's are not.
        balanced: Whether the loss is relative, 1 being a size of its own (for style: the loss at the content picture).
        turns: Whether `style_reference` is shown each style turned by 90, 180 and 270 degrees and mirrored, too.
        name: Prefix of the term's columns in the metrics.
    """

    group: ClassVar[str] = "other"
    additive: ClassVar[bool] = False
    needs_counts: ClassVar[bool] = False
    sees_image: ClassVar[bool] = False
    needs_content: ClassVar[bool] = False
    needs_start: ClassVar[bool] = False
    weighs_cells: ClassVar[bool] = False
    weighs_styles: ClassVar[bool] = False
    needs_spread: ClassVar[bool] = False
    takes_projection: ClassVar[bool] = False
    float32_gradient: ClassVar[bool] = False
    copies: ClassVar[float] = 0.0
    widened: ClassVar[float] = 0.0
    needs_whole: str = ""
    least_side: int = 1
    balanced: bool = False
    turns: bool = False

    def __init__(self, layers: Mapping[str, float] | Sequence[str], weight: float = 1.0) -> None:
        super().__init__()
        self.name = type(self).__name__.lower()
        self.layers = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        self.weight = weight
        check_weight(f"{self.name}.weight", weight)
        for layer, value in self.layers.items():
            check_weight(f"{self.name}.layers.{layer}", value)

    @property
    def columns(self) -> list[str]:
        """Names of the term's losses: its layers, and ``image`` if it looks at the picture itself."""
        return [*self.layers, *([IMAGE] if self.sees_image else [])]

    def content_reference(self, layer: Layer) -> Reference | None:
        """What is kept of the content at a layer: an empty `Reference`, or None for nothing."""
        return Mean(self, layer)

    def style_reference(self, layer: Layer) -> Reference | None:
        """What is kept of each style at a layer: an empty `Reference`, or None for nothing."""
        return Mean(self, layer)

    def start_reference(self, layer: Layer) -> Reference | None:
        """What is kept at a layer of the picture that a stage starts from: an empty `Reference`, or None for nothing.

        Only terms that say `needs_start` are asked. A run that goes on in the middle of a stage shows the same picture.
        """
        return None

    def style_target(self, layer: Layer, styles: Sequence[tuple[Any, float]]) -> Any:
        """Make the style's part of a target; under no gradient.

        Args:
            layer: The layer.
            styles: What the reference kept of each style, and its share of the blend; shares sum to 1.

        Returns:
            Any value; by default the weighted sum of the means.
        """
        return torch.stack([share * mean for mean, share in styles]).sum(0) if styles else None

    def target(self, layer: Layer, content: Any, style: Any) -> Any:
        """Complete a target with what depends on the content; under no gradient.

        Args:
            layer: The layer.
            content: What the reference kept of the content.
            style: From `style_target`.

        Returns:
            Any value; by default `style`.
        """
        return style

    def start_target(self, layer: Layer, start: Any, target: Any) -> Any:
        """Complete a target with what depends on the picture that a stage starts from; under no gradient.

        Args:
            layer: The layer.
            start: What the reference kept of it.
            target: From `target`.

        Returns:
            Any value; by default `target`.
        """
        return target

    def count(self, layer: Layer, features: Tensor, window: Window, target: Any) -> Tensor:
        """Count the image's cells by their values, under no gradient; the counts of two windows add up.

        Args:
            layer: The layer.
            features: (1, C, rows, columns) of a window.
            window: Where these cells lie, and how much each counts.
            target: From `target`.

        Returns:
            A tensor of any shape, such as (C, bins).
        """
        raise NotImplementedError(f"{type(self).__name__} counts, but has no count()")

    def counted(self, layer: Layer, target: Any, counts: Tensor) -> Any:
        """The target for one evaluation, from the counts over the whole image."""
        raise NotImplementedError(f"{type(self).__name__} counts, but has no counted()")

    def measure(self, layer: Layer, features: Tensor, window: Window, target: Any) -> Tensor:
        """Measure some cells of a feature map; the measures of two windows add up to that of both.

        Args:
            layer: The layer.
            features: (1, C, rows, columns) of the window; bfloat16 under that precision: sums belong into float32.
            window: Where these cells lie, and how much each counts.
            target: From `target`; None while references are made.

        Returns:
            A tensor of any shape; a scalar, if the term is `additive`.
        """
        raise NotImplementedError(f"{type(self).__name__} has layers but no measure()")

    def loss(self, layer: Layer, mean: Tensor, target: Any) -> Tensor:
        """The loss at a layer.

        Args:
            layer: The layer.
            mean: The sum of `measure` over all windows, divided by the sum of the weights of all cells (by their number
                without weights), in the shape that `measure` returns.
            target: From `target`.

        Returns:
            A scalar, without the weights of term and layer.
        """
        raise NotImplementedError(f"{type(self).__name__} is not additive and has no loss()")

    def losses(self, means: Mapping[Layer, Tensor], targets: Mapping[Layer, Any]) -> dict[Layer, Tensor]:
        """`loss` at several layers; one by one, unless a subclass has work that is better done side by side."""
        return {layer: self.loss(layer, mean, targets[layer]) for layer, mean in means.items()}

    def matrices(self, cells: int) -> Matrices:
        """For estimates of memory: what is there beside features, at a layer with so many cells; by default nothing."""
        return Matrices()

    def workspace(self, channels: Sequence[int], size: tuple[int, int]) -> Matrices:
        """For estimates of memory: statistics of all layers together, on accelerators, and strips of the picture.

        By default those of terms that are not additive take five matrices of channels by channels at each layer.

        Args:
            channels: Of each layer; none of the picture's own.
            size: Height and width of the picture.
        """
        one = 0 if self.additive else 4 * sum(count**2 for count in channels)
        return Matrices(target=one, left=2 * one, passing=2 * one)

    def image_loss(self, image: Tensor, content: Tensor | None, weights: Tensor | None) -> Tensor:
        """The loss of the picture itself, a scalar without weights.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1] but not clamped.
            content: The content picture, of the same shape, if the term `needs_content`.
            weights: (1, 1, H, W), how much each pixel counts; None: all alike.
        """
        raise NotImplementedError(f"{type(self).__name__} sees the image, but has no image_loss()")


class StyleTerm(Term):
    """A style loss of means over cells, divided by its value at the content picture.

    A subclass overrides `measure` and `distance`; it then works in tiles and on several processes, and in regions if
    `measure` multiplies by the window's weights.

    Args:
        layers: Layers, as a list or with a weight each.
        weight: Factor on the term.
    """

    group = "style"
    weighs_cells = weighs_styles = True
    balanced = True

    def __init__(
        self,
        layers: dict[str, float] | list[str] = STYLE_LAYERS,
        weight: float = 1.0,
    ) -> None:
        super().__init__(layers, weight)

    def distance(self, layer: Layer, mean: Tensor, target: Any) -> Tensor:
        """How far a mean of `measure` is from the style's part of a target, a scalar of at least 0."""
        raise NotImplementedError(f"{type(self).__name__} has no distance()")

    def size(self, layer: Layer, mean: Tensor, target: Any) -> Tensor:
        """The size of the style's part of a target in the unit of `distance`: its distance from a mean of zero."""
        return self.distance(layer, torch.zeros_like(mean), target)

    def target(self, layer: Layer, content: Any, style: Any) -> Any:
        """The style's part, and what to divide by so that the loss is 1 at the content picture."""
        if not self.balanced:
            return style, torch.ones_like(content.flatten()[0])
        return style, balance(self.distance(layer, content, style), self.size(layer, content, style))

    def loss(self, layer: Layer, mean: Tensor, target: Any) -> Tensor:
        """The distance over that of the content picture."""
        style, scale = target
        loss: Tensor = self.distance(layer, mean, style) / scale
        return loss


# Where content and style have the same statistic (they may be the same picture) there is nothing to balance by; the
# floor keeps the quotient finite. It is a squared relative distance of one percent.
_BALANCE_FLOOR = 1e-4


def balance(at_content: Tensor, size: Tensor) -> Tensor:
    """What to divide a squared distance by so that it is 1 at the content picture, a scalar above 0.

    It is the distance of the content from the target, or a small part of the target's own squared size if that is more.
    """
    return torch.maximum(at_content, _BALANCE_FLOOR * size).clamp(min=torch.finfo(size.dtype).tiny)


def check_weight(argument: str, value: float) -> None:
    """Refuse weights that would turn a term around or poison the loss.

    Raises:
        UserError: If the value is negative, NaN or infinite.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{argument}: must be finite and at least 0, got {value}; use 0 to switch a part off")
