"""Evaluation of the objective: the loss of an image with its gradient, whole or tile by tile.

Tile by tile it is the same loss and the same gradient, in memory that does not grow with the image. The measures of
terms are sums over cells, so the gradient of a loss reaches each tile through one small tensor:

1. Without gradients, run each tile and add up the measures of the cells of its core.
2. Differentiate the losses with respect to these sums.
3. Run each tile again with gradients, propagate them back from its measures, and add the gradient of the whole crop,
   halo included, to the image's.

Sums over tiles are in double precision, so the order of the tiles does not show, and neither does who works on which:
processes that share the tiles compute the very bits of one that has them all, where both cut the image alike.

It is exact by linearity: each cell is counted in one tile, and a crop holds all pixels that the cells of its core see.
Galerne et al. (*Scaling painting style transfer*, 2024, https://doi.org/10.1111/cgf.15155) do the same with a fixed
overlap. Differences are in what stays in memory: a tile for whose activations there is room is run only once, and
processes may share the tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.hardware.memory import hand_back_freed_memory
from nst_lightning.hardware.numerics import one_thread, widest_dtype
from nst_lightning.losses import Layer
from nst_lightning.losses.reference import Sum
from nst_lightning.objective.collective import Collective
from nst_lightning.objective.grid import Tile
from nst_lightning.objective.masks import Masks
from nst_lightning.objective.objective import Evaluation, Key, Objective
from nst_lightning.objective.preparation import Preparation
from nst_lightning.objective.targets import StyleTargets, Targets, Weights
from nst_lightning.objective.traversal import Traversal, crop_of, cut

_LARGE = 8  # tiles in an image whose step takes about as much memory as a tile

_Measures: TypeAlias = list[tuple[Key, Tensor]]


class Evaluator:
    """An objective, seen through a network, whole or tile by tile.

    Args:
        objective: Terms and weights.
        extractor: The frozen network.
        tile: Longest side of a tile's core in pixels; None: the whole image at once.
        stored_tiles: Number of tiles (of this process) whose activations stay in memory between the two passes, which
            saves their second run.
        processes: Those that share the tiles; each then needs its part of the memory and of the time.

    Attributes:
        targets: What images are compared with; `prepare` makes them, or they are those of another evaluator of the same
            objective, network and size.

    Raises:
        UserError: If a layer does not exist, or with tiles if a term or the network can only work on whole images.
    """

    def __init__(
        self,
        objective: Objective,
        extractor: Extractor,
        tile: int | None = None,
        stored_tiles: int = 0,
        processes: Collective | None = None,
    ) -> None:
        extractor.check_layers(objective.layers, argument="model.terms")
        if tile is not None:
            check_tileable(objective, extractor)
        if objective.layers:
            extractor.use_layers(objective.layers)
        self.objective, self.extractor, self.tile, self.stored_tiles = objective, extractor, tile, stored_tiles
        self.traversal = Traversal(objective, extractor, tile, processes)
        self._preparation = Preparation(objective, self.traversal)
        self.targets: Targets | None = None

    @torch.no_grad()
    def style_targets(self, styles: Sequence[tuple[Tensor, float]], masks: Masks | None = None) -> StyleTargets:
        """Make the style's part of targets, which may be kept for other contents.

        Args:
            styles: Pairs of an image (1, 3, h, w), RGB in [0, 1], and its part of the blend; the parts sum to 1 (in
                each region).
            masks: Regions and other masks, on the images' device.
        """
        self.traversal.describe_layers()
        with torch.autocast(styles[0][0].device.type if styles else "cpu", enabled=False):
            return self._preparation.style_targets(styles, masks or Masks.none(len(styles)))

    @torch.no_grad()
    def prepare(
        self,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]] | StyleTargets,
        masks: Masks | None = None,
    ) -> Targets:
        """Make all targets, and compare images with them from now on.

        Args:
            content: (1, 3, H, W), RGB in [0, 1], at the size of the images to come.
            styles: As of `style_targets`, or what it returned.
            masks: Regions and other masks, on the images' device.
        """
        style = styles if isinstance(styles, StyleTargets) else self.style_targets(styles, masks)
        weights = Weights.of(self.objective, masks or Masks.none(0), self.extractor.strides)
        with torch.autocast(content.device.type, enabled=False):
            self.targets = self._preparation.targets(content, style, weights)
        return self.targets

    def __call__(self, image: Tensor) -> Evaluation:
        """Evaluate.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1].

        Returns:
            The weighted loss and its parts.
        """
        with torch.autocast(image.device.type, enabled=False):
            if self.tile is None:
                return self._whole(image)
            loss, parts = _Tiled.apply(image, self, torch.is_grad_enabled() and image.requires_grad)
            return Evaluation(loss, parts)

    @property
    def _ready(self) -> Targets:
        if self.targets is None:
            raise RuntimeError("an evaluator needs targets: call prepare(content, styles) first")
        return self.targets

    def _whole(self, image: Tensor) -> Evaluation:
        if image.requires_grad:
            # A network with channels innermost hands its gradient back in that order; optimisers such as
            # torch.optim.LBFGS want the parameter's own.
            image = image.view_as(image)
            image.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
        tile = Tile.whole(*image.shape[-2:])
        measures = self._measures(image, tile, self.objective.layer_keys, self._ready.of_layers)
        losses = {key: value for key, value in measures if self._is_additive(key)}
        losses |= self._losses({key: value / self._cells(key, image) for key, value in measures if key not in losses})
        losses |= self._image_losses(image)
        stacked = torch.stack([self._factor(key) * losses[key] for key in self.objective.part_keys])
        return Evaluation(stacked.sum(), stacked.detach())

    def tiled(self, image: Tensor, gradient: Tensor | None) -> Tensor:
        """Compute the weighted parts tile by tile, and add their gradient to a tensor.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1].
            gradient: Zeros of the image's shape, if a gradient is wanted; where tiles overlap the order of adding them
                up does not matter if it is in double precision.

        Returns:
            (K,) parts in the order of `Objective.part_keys`.
        """
        tiles, processes = self.traversal.own_tiles(image)
        targets = self._counted(image, tiles, processes)
        keys = self.objective.layer_keys
        means = [key for key in keys if not self._is_additive(key)]
        stored: dict[Tile, tuple[Tensor, _Measures]] = {}
        sums: dict[Key, Sum] = {}
        for tile in tiles:
            crop = crop_of(image, tile)
            if gradient is not None and len(stored) < self.stored_tiles:
                stored[tile] = crop.requires_grad_(), self._measures(crop, tile, keys, targets)
                measures = stored[tile][1]
            else:  # what is additive comes with the second pass
                with torch.no_grad():
                    measures = self._measures(crop, tile, means if gradient is not None else keys, targets)
            _add(sums, measures)
            del crop, measures
        processes.add([tensor for key in means if key in sums for tensor in sums[key].tensors()])
        losses, upstream = self._mean_losses({key: sums.pop(key) for key in means if key in sums}, image)
        if gradient is not None:
            for tile in tiles:
                if tile in stored:
                    crop, measures = stored.pop(tile)
                else:
                    crop = crop_of(image, tile).requires_grad_()
                    measures = self._measures(crop, tile, keys, targets)
                    _add(sums, [pair for pair in measures if self._is_additive(pair[0])])
                cut(gradient, tile.crop.slices).add_(self._backward(crop, measures, upstream))
                del crop, measures
            processes.add([gradient])
        processes.add([tensor for total in sums.values() for tensor in total.tensors()])
        losses |= {key: self._factor(key) * total.over(1) for key, total in sums.items()}
        losses |= self._tiled_image_losses(image, gradient)
        return torch.stack([losses[key].to(image.dtype) for key in self.objective.part_keys])

    def _measures(self, crop: Tensor, tile: Tile, keys: Sequence[Key], targets: Mapping[Key, Any]) -> _Measures:
        """What terms measure over the cells of a tile's core."""
        measures: _Measures = []
        for key, layer, features, window in self.traversal.visits(crop, tile, keys, self._ready.weights.cells):
            term, target = self.objective.parts[key[0]].term, targets[key]
            if term.counts and tile.is_whole:
                target = term.counted(layer, target, term.count(layer, features.detach(), target))
            measures.append((key, term.measure(layer, features, window, target)))
        return measures

    @torch.no_grad()
    def _counted(self, image: Tensor, tiles: Sequence[Tile], processes: Collective) -> Mapping[Key, Any]:
        """Targets of terms that need counts over the whole image, which takes a pass of its own."""
        keys = [key for key in self.objective.layer_keys if self.objective.parts[key[0]].term.counts]
        sums: dict[Key, Sum] = {}
        given = self._ready.of_layers
        for tile in tiles if keys else []:
            for key, layer, features, _ in self.traversal.visits(crop_of(image, tile), tile, keys):
                _add(sums, [(key, self.objective.parts[key[0]].term.count(layer, features, given[key]))])
        processes.add([tensor for total in sums.values() for tensor in total.tensors()])
        counted = {}
        for key, total in sums.items():
            term = self.objective.parts[key[0]].term
            counted[key] = term.counted(self.traversal.layer(key), given[key], total.over(1))
        return {**given, **counted}

    def _mean_losses(self, sums: Mapping[Key, Sum], image: Tensor) -> tuple[dict[Key, Tensor], dict[Key, Tensor]]:
        """Weighted losses of the means of measures, and the gradient of each with respect to the sum."""
        leaves = {key: total.over(self._cells(key, image)).requires_grad_() for key, total in sums.items()}
        if not leaves:
            return {}, {}
        with one_thread(), torch.enable_grad():
            losses = {key: self._factor(key) * loss for key, loss in self._losses(leaves).items()}
            slopes = torch.autograd.grad([losses[key] for key in leaves], list(leaves.values()))
        upstream = {key: slope / self._cells(key, image) for key, slope in zip(leaves, slopes, strict=True)}
        return {key: loss.detach() for key, loss in losses.items()}, upstream

    def _losses(self, means: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """Losses without weights, from means over cells."""
        of_parts: dict[int, dict[Layer, Tensor]] = {}
        for key, mean in means.items():
            of_parts.setdefault(key[0], {})[self.traversal.layer(key)] = mean
        losses: dict[Key, Tensor] = {}
        for index, found in of_parts.items():
            targets = {layer: self._ready.of_layers[index, layer.name] for layer in found}
            for layer, loss in self.objective.parts[index].term.losses(found, targets).items():
                losses[index, layer.name] = loss
        return losses

    def _image_losses(self, image: Tensor) -> dict[Key, Tensor]:
        """Losses of the picture itself, without weights."""
        content, pixels = self._ready.content, self._ready.weights.pixels
        return {
            (index, "image"): part.term.image_loss(image, content, pixels.get(index))
            for index, part in enumerate(self.objective.parts)
            if part.term.sees_image
        }

    def _tiled_image_losses(self, image: Tensor, gradient: Tensor | None) -> dict[Key, Tensor]:
        """Weighted losses of the picture itself; their gradient is added to a tensor, if given."""
        with torch.set_grad_enabled(gradient is not None):
            leaf = image.detach().requires_grad_(gradient is not None)
            losses = {key: self._factor(key) * loss for key, loss in self._image_losses(leaf).items()}
            if gradient is not None and losses:
                gradient += torch.autograd.grad(torch.stack(list(losses.values())).sum(), leaf)[0]
        return {key: loss.detach() for key, loss in losses.items()}

    def _backward(self, crop: Tensor, measures: _Measures, upstream: Mapping[Key, Tensor]) -> Tensor:
        """Gradient of a crop, from those of the losses and the weights of the sums."""
        slopes = [
            upstream[key].to(value) if key in upstream else torch.full_like(value, self._factor(key))
            for key, value in measures
        ]
        (gradient,) = torch.autograd.grad([value for _, value in measures], crop, slopes)
        return gradient

    def _is_additive(self, key: Key) -> bool:
        return self.objective.parts[key[0]].term.additive

    def _factor(self, key: Key) -> float:
        return self.objective.factor(key, self._ready.weights.areas[key[0]])

    def _cells(self, key: Key, image: Tensor) -> float:
        """Cells of an image at a layer, as often as they count."""
        stride = self.extractor.strides[key[1]]
        cells = (image.shape[-2] // stride) * (image.shape[-1] // stride)
        return self._ready.weights.counts.get(key, cells)


def _add(sums: dict[Key, Sum], measures: _Measures) -> None:
    for key, value in measures:
        sums.setdefault(key, Sum()).add(value)


class _Tiled(torch.autograd.Function):
    """Loss and gradient at once, so that the gradient is there when it is asked for."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, evaluator: Evaluator, follow: bool) -> tuple[Tensor, Tensor]:
        assert evaluator.tile is not None
        exact = widest_dtype(image.device.type)
        gradient = torch.zeros(image.shape, dtype=exact, device=image.device) if follow else None
        with torch.set_grad_enabled(follow):
            parts = evaluator.tiled(image.detach(), gradient)
        if image.device.type == "cpu" and image[0, 0].numel() >= _LARGE * evaluator.tile**2:
            hand_back_freed_memory()  # the optimiser's vectors do not fit into what the tiles leave in the heap
        ctx.gradient = None if gradient is None else gradient.to(image.dtype)
        ctx.mark_non_differentiable(parts)
        return parts.sum(), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None  # full size: not to be kept, nor copied once more
        return gradient.mul_(upstream), None, None


def check_tileable(objective: Objective, extractor: Extractor) -> None:
    """Refuse what needs whole feature maps.

    Raises:
        UserError: If a term or the network cannot work tile by tile.
    """
    for part in objective.parts:
        if part.term.layers and part.term.needs_whole:
            raise UserError(
                f"model.tile: must be null with the term {part.name}, which {part.term.needs_whole}; leave the tile "
                "out, or take another term (Gram, Covariance, MeanStd, Wasserstein, Histogram and, with patches: 1, "
                "NNFM work in tiles)"
            )
    if objective.layers and extractor.halo(objective.layers) is None:
        raise UserError(
            f"model.tile: must be null with {type(extractor).__name__}, which does not say how far its "
            "layers see (halo); leave the tile out"
        )
