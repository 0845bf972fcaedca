"""The one way through a picture: its tiles, the layers of each, and the parts of the objective that look at them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.features.kernels.pointwise import pointwise
from nst_lightning.images.detail import REACH, detail
from nst_lightning.losses import Layer, Window
from nst_lightning.losses.grid import Tile, make_grid
from nst_lightning.losses.projection import projection_of
from nst_lightning.losses.term import DETAIL, IMAGE, PIXEL_LAYERS
from nst_lightning.objective.collective import Collective, OneProcess
from nst_lightning.objective.objective import Key, Objective, with_pixels

_PIXELS: dict[str, Callable[[Tensor], Tensor]] = {IMAGE: lambda crop: crop, DETAIL: detail}


class Visit(NamedTuple):
    """A part of the objective at a layer of a tile."""

    key: Key
    layer: Layer  # as the part's term is told of it
    features: Tensor  # (1, C, rows, columns) of the tile's core
    window: Window


class Way(NamedTuple):
    """A way through a picture."""

    sharing: set[str]  # for which references, by `Reference.sharing`
    tiles: list[Tile]  # that this process sees
    processes: Collective  # whom it adds sums up with


class Traversal:
    """Visits features of pictures for an objective, whole or tile by tile.

    Args:
        objective: Terms.
        extractor: Network.
        tile: Longest side of a tile's core in pixels; None: whole pictures.
        processes: Those that share the tiles.
    """

    def __init__(
        self, objective: Objective, extractor: Extractor, tile: int | None, processes: Collective | None = None
    ) -> None:
        self._parts = objective.parts
        self._layers = objective.layers
        self._extractor = extractor
        self._processes: Collective = processes or OneProcess()
        self._tile = tile
        self.strides = with_pixels(extractor.strides)
        self.stride = max((self.strides[layer] for layer in self._layers), default=1)
        least = REACH if any(DETAIL in part.term.layers for part in self._parts) else 0
        halo = 0 if tile is None else max(least, extractor.halo(self._layers) or 0)
        self.halo = -(-halo // self.stride) * self.stride
        self._projected_layers: dict[str, Layer] = {}
        self._plain_layers = {name: Layer(name) for name in (*PIXEL_LAYERS, *self._layers)}

    def forget_projections(self) -> None:
        """Ask the network anew for its projections: its weights may have changed."""
        self._projected_layers = {}

    def layer(self, key: Key) -> Layer:
        """The layer, as a part's term is told of it."""
        if key[1] in PIXEL_LAYERS or not self._parts[key[0]].term.takes_projection:
            return self._plain_layers[key[1]]
        if key[1] not in self._projected_layers:
            self._projected_layers[key[1]] = Layer(key[1], projection_of(self._extractor.projection(key[1])))
        return self._projected_layers[key[1]]

    def tiles(self, picture: Tensor, processes: int = 1) -> list[Tile]:
        """The tiles of a (1, 3, H, W) picture, as they are cut for so many processes."""
        height, width = picture.shape[-2:]
        if self._tile is None:
            return [Tile.whole(height, width)]
        return make_grid((height, width), self._tile, self.halo, self.stride, processes)

    def own_tiles(self, picture: Tensor) -> tuple[list[Tile], Collective]:
        """The tiles of an image that this process evaluates, and whom it adds its results up with."""
        return self._dealt(self.tiles(picture, self._processes.size))

    def ways(self, picture: Tensor) -> list[Way]:
        """How references see a picture: in one way, unless several processes work on it.

        It is cut as one process cuts it, for the same bits, but for references that have to lie where this process
        evaluates.
        """
        tiles = self.tiles(picture)
        if self._processes.size == 1:
            return [Way({"own", "dealt", "all"}, tiles, self._processes)]
        own, dealt = Way({"own"}, *self.own_tiles(picture)), Way({"dealt"}, *self._dealt(tiles))
        return [own, dealt, Way({"all"}, tiles, OneProcess())]

    def _dealt(self, tiles: list[Tile]) -> tuple[list[Tile], Collective]:
        if len(tiles) < self._processes.size:  # a small picture: every process does all of it
            return tiles, OneProcess()
        return tiles[self._processes.rank :: self._processes.size], self._processes

    def visits(
        self, crop: Tensor, tile: Tile, keys: Sequence[Key], weights: Mapping[Key, Tensor] | None = None
    ) -> Iterator[Visit]:
        """Visit those parts of the objective, and layers, whose keys are given, in a tile's crop (1, 3, h, w).

        Of each, weights are those of all cells of the layer's map, (1, 1, h, w); none: all alike.
        """
        wanted = {layer for _, layer in keys}
        for name, features, window in self.features(crop, tile, wanted):
            projected: Tensor | None = None
            for key in keys:
                if key[1] != name:
                    continue
                taken = features
                if not self._parts[key[0]].term.takes_projection:
                    projected = self._projected(name, features) if projected is None else projected
                    taken = projected
                here = window if weights is None else window._replace(map_weights=weights.get(key))
                yield Visit(key, self.layer(key), taken, here)

    def features(self, crop: Tensor, tile: Tile, layers: Collection[str]) -> Iterator[tuple[str, Tensor, Window]]:
        """Features of a tile's core, layer by layer from the picture itself on, and where they lie."""
        height, width = crop.shape[-2:]
        wanted = [layer for layer in self.strides if layer in layers and layer not in PIXEL_LAYERS]
        pixels = [(name, made(crop)) for name, made in _PIXELS.items() if name in layers]
        for name, features in itertools.chain(pixels, self._extractor.iterate(crop, wanted)):
            stride = self.strides[name]
            if tuple(features.shape[-2:]) != (height // stride, width // stride):
                expected = f"{width // stride}x{height // stride} cells of layer {name} for {width}x{height} px"
                raise UserError(
                    f"model.extractor: {type(self._extractor).__name__} must return {expected} (stride {stride}, "
                    f"rounded down), got {features.shape[-1]}x{features.shape[-2]}; cut the image to its multiple"
                )
            if tile.is_whole:
                yield name, features, Window.whole(features)
            else:
                yield name, Core.apply(features, tile.inside(stride)), tile.window(stride)

    def _projected(self, name: str, features: Tensor) -> Tensor:
        projection = None if name in PIXEL_LAYERS else self._extractor.projection(name)
        return features if projection is None else pointwise(features, projection.to(features.dtype))

    def walk(self, picture: Tensor, layers: Collection[str]) -> Iterator[tuple[str, Tensor, float]]:
        """Features of all of a picture in pieces, each with its fraction of the layer's cells."""
        for tile in self.tiles(picture):
            for layer, features, window in self.features(crop_of(picture, tile), tile, layers):
                yield layer, features, features[0, 0].numel() / (window.height * window.width)


class Core(torch.autograd.Function):
    """A view of some rows and columns, whose gradient lies in memory as the gradient of the rest of the network does.

    That of indexing has channels outermost, whatever the features have; to add the two up then takes a quarter of the
    time of an evaluation.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, slices: tuple[slice, slice]) -> Tensor:
        """The view."""
        ctx.slices, ctx.shape = slices, features.shape
        return cut(features, slices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """The gradient with zeros around it."""
        rows, columns = ctx.slices
        innermost = torch.channels_last if upstream.stride(1) == 1 else torch.contiguous_format
        gradient = torch.empty(ctx.shape, dtype=upstream.dtype, device=upstream.device, memory_format=innermost)
        for border in (slice(0, rows.start), slice(rows.stop, None)):
            gradient[..., border, :].zero_()
        for border in (slice(0, columns.start), slice(columns.stop, None)):
            gradient[..., rows, border].zero_()
        cut(gradient, ctx.slices).copy_(upstream)
        return gradient, None


def crop_of(image: Tensor, tile: Tile) -> Tensor:
    """A tile's crop, a leaf without a copy."""
    return cut(image.detach(), tile.crop.slices)


def cut(maps: Tensor, slices: tuple[slice, slice]) -> Tensor:
    """A view of some rows and columns."""
    rows, columns = slices
    return maps[..., rows, columns]
