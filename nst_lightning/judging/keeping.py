"""What judges keep of VGG-16's layers, tile by tile, so that no layer of a whole picture is ever held."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from nst_lightning.judging.backbones import stride_of
from nst_lightning.judging.lpips import VGG_LAYERS, squared_distances
from nst_lightning.judging.style import LAYERS, sample_step
from nst_lightning.losses.grid import Tile
from nst_lightning.losses.reductions import gram_sum


class Kept:
    """Of one picture and the layers that judges of style look at.

    Args:
        picture: (1, 3, H, W).
        judges: Which ask: ``gram``, ``sliced`` or others, for which nothing is kept.
    """

    def __init__(self, picture: Tensor, judges: Collection[str]) -> None:
        self._size, self._judges = picture.shape[-2:], judges
        self.grams: dict[str, Tensor] = {}  # by layer, (C, C)
        self._cells: dict[str, list[Tensor]] = {}  # by layer and tile, (C, n)

    def add(self, layer: str, features: Tensor, tile: Tile) -> None:
        """Keep what is asked for of the features that count in a tile, (1, C, h, w)."""
        if layer not in LAYERS:
            return
        stride = stride_of(layer)
        height, width = (length // stride for length in self._size)
        if "gram" in self._judges:
            added = gram_sum(features) / (height * width)
            self.grams[layer] = added + self.grams[layer] if layer in self.grams else added
        if "sliced" in self._judges:
            # The grid is the whole picture's, and goes on from tile to tile.
            step = sample_step(height, width)
            down, along = (-(first // stride) % step for first in (tile.core.top, tile.core.left))
            self._cells.setdefault(layer, []).append(features[0, :, down::step, along::step].flatten(1))

    def sampled(self, layer: str) -> Tensor:
        """Cells of a layer on a regular grid, (C, n)."""
        return torch.cat(self._cells[layer], dim=1)


class Distance:
    """LPIPS with VGG-16, added up.

    Args:
        picture: One of the pictures, (1, 3, H, W).
        channels: Of each layer the weights of its channels, (C,).
    """

    def __init__(self, picture: Tensor, channels: Mapping[str, Tensor]) -> None:
        self._size, self._channels = picture.shape[-2:], channels
        self._sums: list[float] = []

    def add(self, layer: str, one: Tensor, other: Tensor) -> None:
        """Add the distance of features that count in a tile, (1, C, h, w) both."""
        if layer in VGG_LAYERS:
            cells = math.prod(length // stride_of(layer) for length in self._size)
            self._sums.append(float(squared_distances(one, other, self._channels[layer]).sum()) / cells)

    @property
    def value(self) -> float:
        """Of all tiles."""
        return math.fsum(self._sums)
