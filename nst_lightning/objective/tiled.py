"""Evaluation tile by tile: the same loss and gradient as of the whole image, in memory that does not grow with it.

The measures of terms are sums over cells, so the gradient of a loss reaches each tile through one small tensor:

1. Without gradients, run each tile and add up the measures of the cells of its core.
2. Differentiate the losses with respect to these sums.
3. Run each tile again with gradients, propagate them back from its measures, and add the gradient of the whole crop,
   halo included, to the image's.

Sums over tiles are in double precision, so the order of the tiles does not show, and neither does who works on which:
processes that share the tiles compute the very bits of one that has them all, where both cut the image alike.

It is exact by linearity: each cell is counted in one tile, and a crop holds all pixels that the cells of its core see.
Galerne et al. (*Scaling painting style transfer*, 2024, https://arxiv.org/abs/2212.13459) do the same with a fixed
overlap. Differences are in what stays in memory: a tile for whose activations there is room is run only once, and
processes may share the tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nst_lightning.hardware.numerics import one_thread
from nst_lightning.losses.grid import Tile
from nst_lightning.losses.reference import Sum
from nst_lightning.objective.collective import Collective
from nst_lightning.objective.comparison import Comparison, Measures
from nst_lightning.objective.objective import Key
from nst_lightning.objective.traversal import crop_of, cut


def evaluate_tiled(comparison: Comparison, image: Tensor, gradient: Tensor | None, stored_tiles: int) -> Tensor:
    """Compute the weighted parts tile by tile, and add their gradient to a tensor.

    Args:
        comparison: With targets.
        image: (1, 3, H, W), RGB, nominally in [0, 1].
        gradient: Zeros of the image's shape, if a gradient is wanted; where tiles overlap the order of adding them
            up does not matter if it is in double precision.
        stored_tiles: Number of tiles whose activations stay in memory between the two passes.

    Returns:
        (K,) parts in the order of `Objective.part_keys`.
    """
    tiles, processes = comparison.traversal.own_tiles(image)
    targets = _counted(comparison, image, tiles, processes)
    keys = comparison.objective.layer_keys
    if not keys:  # all terms look at the picture itself
        tiles = []
    means = [key for key in keys if not comparison.is_additive(key)]
    sums: dict[Key, Sum] = {}
    stored: dict[Tile, tuple[Tensor, Measures]] = {}
    for tile in tiles:
        crop = crop_of(image, tile)
        if gradient is not None and len(stored) < stored_tiles:
            measures = comparison.measures(crop.requires_grad_(), tile, keys, targets)
            stored[tile] = crop, measures
        else:  # what is additive comes with the second pass
            with torch.no_grad():
                measures = comparison.measures(crop, tile, keys if gradient is None else means, targets)
        _add(sums, measures)
        del crop, measures
    processes.add([tensor for key in means if key in sums for tensor in sums[key].tensors()])
    losses, upstream = _mean_losses(comparison, {key: sums.pop(key) for key in means if key in sums}, image)
    if gradient is not None:
        for tile in tiles:
            if tile in stored:
                crop, measures = stored.pop(tile)
            else:
                crop = crop_of(image, tile).requires_grad_()
                measures = comparison.measures(crop, tile, keys, targets)
                _add(sums, [pair for pair in measures if comparison.is_additive(pair[0])])
            cut(gradient, tile.crop.slices).add_(_backward(comparison, crop, measures, upstream))
            del crop, measures
        processes.add([gradient])
    processes.add([tensor for total in sums.values() for tensor in total.tensors()])
    losses |= {key: comparison.factor(key) * total.value() for key, total in sums.items()}
    losses |= _image_losses(comparison, image, gradient)
    return torch.stack([losses[key].to(image.dtype) for key in comparison.objective.part_keys])


@torch.no_grad()
def _counted(comparison: Comparison, image: Tensor, tiles: Sequence[Tile], processes: Collective) -> Mapping[Key, Any]:
    """Targets of terms that need counts over the whole image, which takes a pass of its own."""
    keys = [key for key in comparison.objective.layer_keys if comparison.objective.parts[key[0]].term.needs_counts]
    sums: dict[Key, Sum] = {}
    given = comparison.targets.of_layers
    if len(tiles) == 1 and tiles[0].is_whole:  # then counts are taken where they are needed
        return given
    for tile in tiles if keys else []:
        visits = comparison.traversal.visits(crop_of(image, tile), tile, keys, comparison.targets.weights.cells)
        for key, layer, features, window in visits:
            _add(sums, [(key, comparison.objective.parts[key[0]].term.count(layer, features, window, given[key]))])
    processes.add([tensor for total in sums.values() for tensor in total.tensors()])
    counted = {}
    for key, total in sums.items():
        term = comparison.objective.parts[key[0]].term
        counted[key] = term.counted(comparison.traversal.layer(key), given[key], total.value())
    return {**given, **counted}


def _mean_losses(
    comparison: Comparison, sums: Mapping[Key, Sum], image: Tensor
) -> tuple[dict[Key, Tensor], dict[Key, Tensor]]:
    """Weighted losses of the means of measures, and the gradient of each with respect to the sum."""
    leaves = {key: total.value(comparison.cell_count(key, image)).requires_grad_() for key, total in sums.items()}
    if not leaves:
        return {}, {}
    with one_thread(), torch.enable_grad():
        losses = {key: comparison.factor(key) * loss for key, loss in comparison.losses(leaves).items()}
        slopes = torch.autograd.grad([losses[key] for key in leaves], list(leaves.values()))
    upstream = {key: slope / comparison.cell_count(key, image) for key, slope in zip(leaves, slopes, strict=True)}
    return {key: loss.detach() for key, loss in losses.items()}, upstream


def _image_losses(comparison: Comparison, image: Tensor, gradient: Tensor | None) -> dict[Key, Tensor]:
    """Weighted losses of the picture itself; their gradient is added to a tensor, if given."""
    with torch.set_grad_enabled(gradient is not None):
        leaf = image.detach().requires_grad_(gradient is not None)
        losses = {key: comparison.factor(key) * loss for key, loss in comparison.image_losses(leaf).items()}
        if gradient is not None and losses:
            gradient += torch.autograd.grad(torch.stack(list(losses.values())).sum(), leaf)[0]
    return {key: loss.detach() for key, loss in losses.items()}


def _backward(comparison: Comparison, crop: Tensor, measures: Measures, upstream: Mapping[Key, Tensor]) -> Tensor:
    """Gradient of a crop, from those of the losses and the weights of the sums."""
    slopes = [
        upstream[key].to(value) if key in upstream else torch.full_like(value, comparison.factor(key))
        for key, value in measures
    ]
    (gradient,) = torch.autograd.grad([value for _, value in measures], crop, slopes)
    return gradient


def _add(sums: dict[Key, Sum], measures: Measures) -> None:
    for key, value in measures:
        sums.setdefault(key, Sum()).add(value)
