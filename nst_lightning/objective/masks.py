"""Where in the picture each style counts, which part of it does and at which layers, and where the content counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.losses.term import PIXEL_LAYERS

_EMPTY = 0.01  # a mask that is nowhere above this has no cell


class Mask(NamedTuple):
    """Weights of pixels."""

    pixels: Tensor  # (1, 1, H, W) in [0, 1]; edges may be soft
    argument: str  # where it comes from, for messages
    asked: bool = True  # a picture's own transparency and its faces were not drawn, and who cannot heed them may go on

    def to(self, like: Tensor) -> Mask:
        """On the device and of the type of a tensor."""
        return self._replace(pixels=self.pixels.to(like))

    def cells(self, stride: int) -> Tensor:
        """Reduce to a layer's grid by area: (1, 1, H // stride, W // stride)."""
        return F.avg_pool2d(self.pixels, stride) if stride > 1 else self.pixels

    def check(self, layers: dict[str, int]) -> None:
        """Refuse a mask that leaves nothing of a layer; layers are given with their pixels a cell.

        Raises:
            UserError: With the mask and the layer.
        """
        height, width = self.pixels.shape[-2:]
        for layer, stride in layers.items():
            cells = self.cells(stride) if min(height, width) >= stride else self.pixels[..., :0]
            if not cells.numel() or float(cells.max()) < _EMPTY:
                raise UserError(
                    f"{self.argument}: must leave a cell of layer {layer} at {width}x{height} px, got an empty mask "
                    "there; make it larger, or leave the layer out"
                )


class Masks(NamedTuple):
    """Where everything counts in a stage."""

    regions: Sequence[Mask]  # of the picture, each with styles of its own; none: the styles are blended everywhere
    region_of: Sequence[int | None]  # for each style the index of its region, or None if it counts in all there are
    styles: Sequence[Mask | None]  # for each style where it counts, at its size, or None for all of it
    layers: Sequence[Collection[str] | None]  # for each style the layers that it counts at, or None for all
    content: Mask | None  # where the content counts, or None for everywhere
    floor: float = 0.0  # what of the content's weight is left where it counts least, in [0, 1]
    # What is seen of the picture, as it has the content's transparency, or None for all of it: regions and content lie
    # within it.
    visible: Mask | None = None
    # For each style and region what of the style counts there, where regions were found by their likeness to it; none:
    # the same in all regions.
    matched: Sequence[Sequence[Mask]] = ()

    @classmethod
    def none(cls, styles: int) -> Masks:
        """No masks, for so many styles."""
        return cls([], [None] * styles, [None] * styles, [None] * styles, None)

    def to(self, like: Tensor) -> Masks:
        """On the device and of the type of a tensor."""

        def moved(mask: Mask | None) -> Mask | None:
            return None if mask is None else mask.to(like)

        regions, styles = [mask.to(like) for mask in self.regions], [moved(mask) for mask in self.styles]
        matched = [[mask.to(like) for mask in masks] for masks in self.matched]
        content, visible = moved(self.content), moved(self.visible)
        return self._replace(regions=regions, styles=styles, content=content, visible=visible, matched=matched)

    def of_content(self) -> Mask | None:
        """How much the content counts, with what is left of it everywhere; None for all alike."""
        if self.content is None:
            return None
        seen = 1.0 if self.visible is None else self.visible.pixels
        return self.content._replace(pixels=self.floor * seen + (1 - self.floor) * self.content.pixels)

    def blend(self, region: int | None, layer: str, shares: Sequence[float]) -> list[tuple[int, float]]:
        """Index and share of each style that counts in a region (None: the whole picture) at a layer.

        Of the shares of all styles, those that count are divided by their sum.
        """
        chosen = [i for i, share in enumerate(shares) if share > 0 and self._counts(i, region, layer)]
        total = sum(shares[i] for i in chosen)
        return [(i, shares[i] / total) for i in chosen]

    def _counts(self, index: int, region: int | None, layer: str) -> bool:
        layers = self.layers[index]
        return self.is_in(index, region) and (layers is None or layer in layers or self._is_left(layer))

    def _is_left(self, layer: str) -> bool:
        """Whether this is of the picture's pixels, and no style says that it is its own: then it is every style's."""
        return layer in PIXEL_LAYERS and not any(layer in (named or ()) for named in self.layers)

    def is_in(self, index: int, region: int | None) -> bool:
        """Whether a style counts in a region (None: the whole picture)."""
        return region is None or self.region_of[index] in {None, region}

    def of_style(self, index: int, region: int | None, stride: int) -> Tensor | None:
        """Weights of a style's cells in a region, or None for all alike."""
        masks = [self.styles[index]]
        if self.matched and region is not None:
            masks.append(self.matched[index][region])
        pixels = [mask.pixels for mask in masks if mask is not None]
        if not pixels:
            return None
        product = pixels[0] if len(pixels) == 1 else pixels[0] * pixels[1]
        return F.avg_pool2d(product, stride) if stride > 1 else product
