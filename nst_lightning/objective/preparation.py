"""From pictures to targets: each picture is seen once, layer by layer, by the references of all terms together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nst_lightning.hardware.numerics import one_thread
from nst_lightning.losses import Reference
from nst_lightning.objective.masks import Masks
from nst_lightning.objective.objective import Key, Objective
from nst_lightning.objective.targets import StyleTargets, Targets, Weights, total_of
from nst_lightning.objective.traversal import Traversal, crop_of


class Preparation:
    """Makes targets for an objective, of pictures that a traversal goes through."""

    def __init__(self, objective: Objective, traversal: Traversal) -> None:
        self._objective, self._traversal = objective, traversal

    def style_targets(self, styles: Sequence[tuple[Tensor, float]], masks: Masks) -> StyleTargets:
        """The style's part of targets; see `Evaluator.style_targets`."""
        kept = [self._of_style(index, picture, masks) for index, (picture, _) in enumerate(styles)]
        shares, targets = [share for _, share in styles], {}
        for key in self._objective.layer_keys:
            term, _, region = self._objective.parts[key[0]]
            blend = masks.blend(region, key[1], shares)
            found = [(kept[i][key], share) for i, share in blend if key in kept[i]]
            with one_thread():
                targets[key] = term.style_target(self._traversal.layer(key), found)
        return StyleTargets(targets)

    def _of_style(self, index: int, picture: Tensor, masks: Masks) -> dict[Key, Any]:
        references = {}
        for key in self._objective.layer_keys:
            term, _, region = self._objective.parts[key[0]]
            if region in {None, masks.region_of[index]}:
                references[key] = term.style_reference(self._traversal.layer(key))
        weights = {layer: masks.of_style(index, self._traversal.strides[layer]) for layer in self._objective.layers}
        given = {key: found for key in references if (found := weights[key[1]]) is not None}
        return self._gathered(picture, references, given)

    def targets(self, content: Tensor, style: StyleTargets, weights: Weights) -> Targets:
        """Complete targets with a content, (1, 3, H, W) at the size of the image to come, and weights of its cells."""
        parts, keys = self._objective.parts, self._objective.layer_keys
        references = {key: parts[key[0]].term.content_reference(self._traversal.layer(key)) for key in keys}
        cells = {key: given for key, given in weights.cells.items() if parts[key[0]].term.weighs_cells}
        kept = self._gathered(content, references, cells)
        found = {}
        for key in keys:
            with one_thread():
                found[key] = parts[key[0]].term.target(self._traversal.layer(key), kept.get(key), style.of_layers[key])
        needed = any(part.term.needs_content for part in parts)
        return Targets(found, weights, content if needed else None)

    def _gathered(
        self, picture: Tensor, wanted: Mapping[Key, Reference | None], weights: Mapping[Key, Tensor]
    ) -> dict[Key, Any]:
        """Show a picture to references, where there are any, and say what they kept."""
        references = {key: reference for key, reference in wanted.items() if reference is not None}
        for sharing, tiles, processes in self._traversal.ways(picture):
            some = {key: reference for key, reference in references.items() if reference.sharing in sharing}
            for tile in tiles if some else []:
                for visit in self._traversal.visits(crop_of(picture, tile), tile, list(some), weights):
                    some[visit.key].add(visit.features, visit.window)
            processes.add([tensor for reference in some.values() for tensor in reference.sums()])
        height, width = picture.shape[-2:]
        kept = {}
        for key, reference in references.items():
            stride = self._traversal.strides[key[1]]
            cells = total_of(weights[key]) if key in weights else (height // stride) * (width // stride)
            kept[key] = reference.result(cells)
        return kept
