"""What the objective asks of a feature extractor: named layers, their strides, and a plain dictionary of tensors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from nst_lightning.errors import UserError

Features = dict[str, Tensor]
Walk: TypeAlias = Callable[[Tensor, Collection[str]], Iterator[tuple[str, Tensor, float]]]


class MemoryUse(NamedTuple):
    """Memory of an evaluation with its gradient."""

    filters: int  # bytes whatever the image: those of the convolutions, in all forms that are kept
    kept: float  # bytes a pixel between the pass forward and the pass back
    pixel: float  # bytes a pixel, the most that is there at a time
    part: float  # likewise where only a part of each map is looked at, as in tiles
    values: Mapping[str, float]  # layer -> features a pixel
    itemsize: int  # bytes of one
    # Layer -> bytes a pixel that are there when it has been reached, on accelerators.
    reached: Mapping[str, float] = {}
    # The same on accelerators, if it differs there: with filters of one form, and operations that are not fused.
    accelerated: MemoryUse | None = None


class Extractor(nn.Module):
    """Base class of frozen networks that turn an image into named feature maps.

    A subclass lists its layers in order of depth, with the stride of each, and computes only as deep as the last layer
    asked for. It owns the normalisation of its input: images are RGB in [0, 1] everywhere else.

    Attributes:
        strides: Layer name -> pixels per feature cell, in order of depth.
        origin: One phrase that says where the weights come from.
        family: Name of the set of weights, so that a preset can ask for a certain one.
        unit_activations: Whether runs are to look through a copy of the network that `rescaled` makes.
    """

    strides: ClassVar[Mapping[str, int]] = {}
    origin: str = "no weights"
    family: str = "unknown"
    unit_activations: bool = False

    def use_layers(self, layers: Iterable[str]) -> None:
        """Be told which layers a run will ask for; what no run has asked for need not be in memory.

        Raises:
            UserError: If a layer does not exist.
        """
        self.check_layers(layers, argument="layers")

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Choose the floating type of the network itself; its input stays float32 and its output has this type.

        What a narrower type rounded off before is there again in a wider one.
        """
        raise NotImplementedError

    def forward(self, image: Tensor, layers: Iterable[str]) -> Features:
        """Compute feature maps.

        Args:
            image: (1, 3, H, W), RGB in [0, 1].
            layers: Names to return.

        Returns:
            One (1, C, h, w) tensor a name; h and w are H and W over the layer's stride, rounded down.
        """
        raise NotImplementedError

    def iterate(self, image: Tensor, layers: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield what `forward` returns, layer by layer.

        An extractor that yields each layer as it reaches it (`VGG19` does) lets the objective put what it computes from
        a layer between that layer and the next; automatic differentiation then holds fewer gradients at a time.

        Args:
            image: (1, 3, H, W), RGB in [0, 1].
            layers: Names to yield.
        """
        wanted = list(layers)
        if wanted:
            yield from self(image, wanted).items()

    def rescaled(self, images: Sequence[Tensor], walk: Walk) -> Extractor:
        """A copy of the network whose channels each have a mean activation of 1 over these images.

        Args:
            images: (1, 3, H, W), RGB in [0, 1].
            walk: Yields features of an image in pieces, with the fraction of the layer's cells.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rescaled()")

    def halo(self, layers: Iterable[str]) -> int | None:
        """How far the features of layers are wrong at the edge of a tile that was cut out of an image.

        An extractor that says so can be evaluated tile by tile. Its cells must lie in the tile as in the image if the
        tile starts on a multiple of the deepest layer's stride.

        Returns:
            Pixels from an edge that is not the image's own, or None: the extractor needs whole images.
        """
        return None

    def projection(self, layer: str) -> Tensor | None:
        """The linear map from a layer's features to those that losses are about, if they are not the same.

        Returns:
            (C, c) matrix for features of c channels, or None.
        """
        return None

    def memory(self, layers: Iterable[str], held: Mapping[str, float] | None = None) -> MemoryUse | None:
        """What an evaluation with its gradient takes, or None if that is not known.

        Args:
            layers: Names of those that terms look at.
            held: Layer -> what terms leave there until the pass back, as a multiple of the layer's own map.
        """
        return None

    def check_layers(self, layers: Iterable[str], *, argument: str) -> None:
        """Refuse names that do not exist.

        Raises:
            UserError: With the nearest name and all valid ones.
        """
        for layer in layers:
            if layer not in self.strides:
                near = difflib.get_close_matches(layer, self.strides, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise UserError(
                    f"{argument}: no layer '{layer}' in {type(self).__name__}; {hint}valid: {', '.join(self.strides)}"
                )

    def smallest_side(self, layers: Iterable[str]) -> tuple[int, str]:
        """The shortest side in pixels at which each layer has a cell, and the layer that asks for it."""
        return max((self.strides[layer], layer) for layer in layers)


def channel_means(images: Sequence[Tensor], walk: Walk, layers: Collection[str]) -> dict[str, Tensor]:
    """Mean of each channel of layers over the cells of all images, (C,) a layer, in float32 or wider."""
    means: dict[str, Tensor] = {}
    for image in images:
        for layer, x, fraction in walk(image, layers):
            mean = x.to(torch.promote_types(x.dtype, torch.float32)).mean(dim=(0, 2, 3)) * (fraction / len(images))
            means[layer] = means[layer] + mean if layer in means else mean
    return means


def unit(mean: Tensor) -> Tensor:
    """What to divide channels of these mean activations by; a layer that is silent stays as it is."""
    floor = 0.1 * float(mean.mean())
    return mean.clamp(min=floor) if floor > 0 else torch.ones_like(mean)
