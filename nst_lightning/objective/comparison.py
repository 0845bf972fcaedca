"""What an evaluation computes at given targets: measures of a tile, and losses of what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from nst_lightning.losses import Layer
from nst_lightning.losses.grid import Tile
from nst_lightning.objective.objective import Key, Objective
from nst_lightning.objective.targets import Targets
from nst_lightning.objective.traversal import Traversal

Measures: TypeAlias = list[tuple[Key, Tensor]]


class Comparison(NamedTuple):
    """An image is compared with targets."""

    objective: Objective
    traversal: Traversal
    targets: Targets

    def measures(self, crop: Tensor, tile: Tile, keys: Sequence[Key], counted: Mapping[Key, Any]) -> Measures:
        """What terms measure over the cells of a tile's core."""
        measures: Measures = []
        for key, layer, features, window in self.traversal.visits(crop, tile, keys, self.targets.weights.cells):
            term, target = self.objective.parts[key[0]].term, counted[key]
            if term.needs_counts and tile.is_whole:
                target = term.counted(layer, target, term.count(layer, features.detach(), window, target))
            measures.append((key, term.measure(layer, features, window, target)))
        return measures

    def losses(self, means: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """Losses without weights, from means over cells."""
        of_parts: dict[int, dict[Layer, Tensor]] = {}
        for key, mean in means.items():
            of_parts.setdefault(key[0], {})[self.traversal.layer(key)] = mean
        losses: dict[Key, Tensor] = {}
        for index, found in of_parts.items():
            targets = {layer: self.targets.of_layers[index, layer.name] for layer in found}
            for layer, loss in self.objective.parts[index].term.losses(found, targets).items():
                losses[index, layer.name] = loss
        return losses

    def image_losses(self, image: Tensor) -> dict[Key, Tensor]:
        """Losses of the picture itself, without weights."""
        content, pixels = self.targets.content, self.targets.weights.pixels
        return {
            (index, "image"): part.term.image_loss(image, content, pixels.get(index))
            for index, part in enumerate(self.objective.parts)
            if part.term.sees_image
        }

    def is_additive(self, key: Key) -> bool:
        """Whether a loss is the sum of its measures."""
        return self.objective.parts[key[0]].term.additive

    def factor(self, key: Key) -> float:
        """Weight of a loss."""
        return self.objective.factor(key, self.targets.weights.factors[key[0]])

    def cell_count(self, key: Key, image: Tensor) -> float:
        """Cells of an image at a layer, as often as they count."""
        stride = self.traversal.strides[key[1]]
        cells = (image.shape[-2] // stride) * (image.shape[-1] // stride)
        return self.targets.weights.sums.get(key, cells)
