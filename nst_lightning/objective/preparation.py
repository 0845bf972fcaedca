"""From pictures to targets: each picture is seen once, layer by layer, by the references of all terms together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nst_lightning.hardware.numerics import one_thread
from nst_lightning.losses import Reference
from nst_lightning.losses.grid import Tile
from nst_lightning.objective.masks import Masks
from nst_lightning.objective.objective import Key, Objective
from nst_lightning.objective.targets import StyleTargets, Targets, Weights, total_of
from nst_lightning.objective.traversal import Traversal, crop_of


def _turned(picture: Tensor, quarters: int, mirrored: bool) -> Tensor:
    """A picture turned by quarters, after it was mirrored if that is asked for."""
    return torch.rot90(picture.flip(-1) if mirrored else picture, quarters, (-2, -1)).contiguous()


# Beside the picture as it is.
_TURNS = [
    partial(_turned, quarters=quarters, mirrored=mirrored)
    for mirrored in (False, True)
    for quarters in range(4)
    if mirrored or quarters
]


class View(NamedTuple):
    """A picture as references see it."""

    picture: Tensor  # (1, 3, h, w)
    references: Mapping[Key, Reference | None]
    weights: Mapping[Key, Tensor]  # of cells; none: all alike


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
            if masks.is_in(index, region):
                references[key] = term.style_reference(self._traversal.layer(key))
        regions = {key: self._objective.parts[key[0]].region for key in references}
        places = {(region, key[1]) for key, region in regions.items()}
        weights = {at: masks.of_style(index, at[0], self._traversal.strides[at[1]]) for at in places}
        given = {key: found for key in references if (found := weights[regions[key], key[1]]) is not None}
        turned = {key: given_to for key, given_to in references.items() if self._objective.parts[key[0]].term.turns}
        views = [View(picture, references, given)]
        views += [
            View(turn(picture), turned, {key: turn(mask) for key, mask in given.items()}) for turn in _TURNS if turned
        ]
        return self._gathered(views)

    def targets(self, content: Tensor, style: StyleTargets, weights: Weights, start: Tensor) -> Targets:
        """Complete targets with a content, weights of cells, and the image that optimisation starts from.

        Both pictures are (1, 3, H, W), of the size of the images to come.
        """
        parts, keys = self._objective.parts, self._objective.layer_keys
        references = {key: parts[key[0]].term.content_reference(self._traversal.layer(key)) for key in keys}
        kept = self._gathered([View(content, references, weights.cells)])
        found = {}
        for key in keys:
            with one_thread():
                found[key] = parts[key[0]].term.target(self._traversal.layer(key), kept.get(key), style.of_layers[key])
        begun = {key: parts[key[0]].term.start_reference(self._traversal.layer(key)) for key in keys}
        begun = {key: reference for key, reference in begun.items() if parts[key[0]].term.needs_start}
        for key, at_start in self._gathered([View(start, begun, weights.cells)]).items():
            found[key] = parts[key[0]].term.start_target(self._traversal.layer(key), at_start, found[key])
        needed = any(part.term.needs_content for part in parts)
        return Targets(found, weights, content if needed else None)

    def _gathered(self, views: Sequence[View]) -> dict[Key, Any]:
        """Show views of a picture to references, where there are any, and say what they kept.

        The first view has all references; the others may have fewer, and have as many tiles.
        """
        references = {key: reference for key, reference in views[0].references.items() if reference is not None}
        ways = [self._traversal.ways(view.picture) for view in views]
        for way in zip(*ways, strict=True):
            some = {key: reference for key, reference in references.items() if reference.sharing in way[0].sharing}
            for view, (_, tiles, _) in zip(views, way, strict=True):
                self._show(view, tiles, {key: reference for key, reference in some.items() if key in view.references})
            way[0].processes.add([tensor for reference in some.values() for tensor in reference.sums()])
        return {
            key: reference.result(sum(self._cells(key, view) for view in views if key in view.references))
            for key, reference in references.items()
        }

    def _show(self, view: View, tiles: Sequence[Tile], references: Mapping[Key, Reference]) -> None:
        for tile in tiles if references else []:
            for visit in self._traversal.visits(crop_of(view.picture, tile), tile, list(references), view.weights):
                references[visit.key].add(visit.features, visit.window)

    def _cells(self, key: Key, view: View) -> float:
        """Cells of a view at a layer, as often as they count."""
        if key in view.weights:
            return total_of(view.weights[key])
        stride, (height, width) = self._traversal.strides[key[1]], view.picture.shape[-2:]
        return (height // stride) * (width // stride)
