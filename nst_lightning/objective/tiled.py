"""The objective tile by tile: the same loss and the same gradient, in memory that does not grow with the image.

A style's statistic is a sum over cells, so the gradient of its distance reaches each tile through one small matrix:

1. Without gradients, run each tile and add up the statistics of the cells of its core.
2. Differentiate the distances with respect to these sums.
3. Run each tile again with gradients, send them back from its statistics, and from the terms that are sums over cells
   anyway, and add the gradient of the whole crop, halo included, to the image's.

Sums over tiles are in double precision, so the order of the tiles does not show, and neither does who works on which:
processes that share the tiles compute the very bits of one that has them all, where both cut the image alike.

It is exact by linearity: each cell is counted in one tile, and a crop holds all pixels that the cells of its core see.
Galerne et al. (*Scaling painting style transfer*, 2024) do the same with a fixed overlap. Differences are in what is
kept: a tile for whose activations there is memory is run only once, and processes may share the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.errors import UserError
from nst_lightning.hardware.memory import hand_back_freed_memory
from nst_lightning.hardware.numerics import one_thread, outside_autocast, widest_dtype
from nst_lightning.losses.samples import CountTerm, SampleTerm
from nst_lightning.losses.term import CellTerm, StatisticTerm, Term, Window
from nst_lightning.objective.collective import Alone, Team
from nst_lightning.objective.grid import Tile, make_grid
from nst_lightning.objective.masks import Masks
from nst_lightning.objective.objective import Evaluation, Objective

_LARGE = 8  # tiles in an image whose step takes about as much memory as a tile

_Key: TypeAlias = tuple[Term, str]  # and layer
_Values: TypeAlias = list[tuple[_Key, Tensor]]


class _View(NamedTuple):
    """How terms look at a picture.

    Attributes:
        heeds: Whether a term looks at it at all.
        weights: How much each cell counts for a term at a layer, (1, 1, h, w), or None for all alike.
    """

    heeds: Callable[[Term], bool]
    weights: Callable[[Term, str], Tensor | None]


_PICTURE = _View(lambda _: True, lambda term, layer: term.masks.get(layer))  # the image, and the content in its place


class TiledObjective:
    """An objective that is evaluated tile by tile.

    Args:
        objective: The objective; it stays usable by itself.
        tile: Longest side of a tile's core in pixels.
        keep: Number of tiles (of this process) whose activations stay in memory between the two passes, which saves
            their second run.
        team: Processes that share the tiles; each then needs its part of the memory and of the time.

    Raises:
        UserError: If a term or the extractor can only work on whole images.
    """

    def __init__(self, objective: Objective, tile: int, keep: int = 0, team: Team | None = None) -> None:
        check_tileable(objective)
        self.objective = objective
        self.keep = keep
        self.tile = tile
        self._team: Team = team or Alone()
        self.stride = max((objective.extractor.strides[layer] for layer in objective.layers), default=1)
        halo = objective.extractor.halo(objective.layers) or 0
        self.halo = -(-halo // self.stride) * self.stride

    def grid(self, height: int, width: int) -> list[Tile]:
        """The tiles of an image."""
        return make_grid((height, width), self.tile, self.halo, self.stride, self._team.size)

    def _grid_of_one(self, image: Tensor) -> list[Tile]:
        """The tiles of a picture that is run once only: those that one process takes, for the same bits."""
        return make_grid((image.shape[-2], image.shape[-1]), self.tile, self.halo, self.stride)

    def _share(self, image: Tensor) -> tuple[list[Tile], Team]:
        """The tiles that this process works on, and whom it adds its results up with."""
        return self._deal(self.grid(*image.shape[-2:]))

    def _deal(self, tiles: list[Tile]) -> tuple[list[Tile], Team]:
        if len(tiles) < self._team.size:  # a small image: everyone does all of it
            return tiles, Alone()
        return tiles[self._team.rank :: self._team.size], self._team

    @outside_autocast
    @torch.no_grad()
    def prepare(self, content: Tensor, styles: Sequence[tuple[Tensor, float]], masks: Masks | None = None) -> None:
        """Take all targets; see `Objective.prepare`."""
        objective = self.objective
        masks = masks or Masks.none(len(styles))
        objective.take_masks(masks)
        objective.keep_picture(content)
        pictures = [content, *(image for image, _ in styles)]
        objective.extractor.rescale_to_unit_activations(pictures, self._walk)
        objective.take_widenings()
        self._keep(content)
        shares = [share for _, share in styles]
        self._gather(pictures, masks, shares)
        of_content = self._means(content, _PICTURE)
        of_styles = [self._means(image, self._view_of_style(masks, i)) for i, (image, _) in enumerate(styles)]
        for term, layer in objective.layered_terms(StatisticTerm):
            assert isinstance(term, StatisticTerm)
            blend = [(of_styles[i][term, layer], share) for i, share in masks.blend(term.region, layer, shares)]
            with one_thread():
                term.set_target(layer, of_content[term, layer], blend)

    def _keep(self, content: Tensor) -> None:
        """Let the terms that compare cells keep the content's."""
        tiles, team = self._share(content)
        pairs = [pair for pair in self.objective.layered_terms(CellTerm) if not isinstance(pair[0], SampleTerm)]
        additive = []
        for tile in tiles if pairs else []:
            for layer, features, window in self._cells(_crop(content, tile), tile, {layer for _, layer in pairs}):
                for term, of in pairs:
                    if of == layer and isinstance(term, CellTerm):
                        if tile is tiles[0]:
                            term.begin(layer)
                        term.keep(layer, self.objective.for_term(term, layer, features), window)
        for term, layer in pairs:
            assert isinstance(term, CellTerm)
            additive += term.additive(layer)
        team.add(additive)

    def _gather(self, pictures: Sequence[Tensor], masks: Masks, shares: Sequence[float]) -> None:
        """Let the terms that compare cells with samples have them; every process takes them all."""
        pairs = self.objective.layered_terms(SampleTerm)
        blends = {(term, layer): masks.blend(term.region, layer, shares) for term, layer in pairs}
        for term, layer in pairs:
            assert isinstance(term, SampleTerm)
            term.begin(layer)
        for index, picture in enumerate(pictures if pairs else []):
            for tile in self._grid_of_one(picture):
                for layer, features, window in self._cells(_crop(picture, tile), tile, {layer for _, layer in pairs}):
                    for term, of in pairs:
                        counts = index == 0 or index - 1 in dict(blends[term, of])
                        if of == layer and counts and isinstance(term, SampleTerm):
                            weights = (
                                masks.of_style(index - 1, self.objective.extractor.strides[layer]) if index else None
                            )
                            term.gather(layer, index, self.objective.for_term(term, layer, features), window, weights)
        for term, layer in pairs:
            assert isinstance(term, SampleTerm)
            with one_thread():
                term.finish(layer, [share for _, share in blends[term, layer]])

    @torch.no_grad()
    def _settle(self, image: Tensor, tiles: Sequence[Tile], team: Team) -> None:
        """Let the terms that need counts over the image have them, in a pass of their own."""
        pairs = self.objective.layered_terms(CountTerm)
        totals = _Totals()
        for tile in tiles if pairs else []:
            for layer, features, _ in self._cells(_crop(image, tile), tile, {layer for _, layer in pairs}):
                for term, of in pairs:
                    if of == layer and isinstance(term, CountTerm):
                        taken = self.objective.for_term(term, layer, features)
                        totals.add([((term, layer), term.count(layer, taken))])
        team.add(totals.tensors())
        for (term, layer), counts in totals.means(lambda _: 1).items():
            assert isinstance(term, CountTerm)
            term.settle(layer, counts)

    def _view_of_style(self, masks: Masks, index: int) -> _View:
        """The part of a style that counts, for the terms of its region."""
        strides = self.objective.extractor.strides
        weights = {
            layer: masks.of_style(index, strides[layer]) for layer in self.objective.layers
        }  # once, for all tiles
        return _View(lambda term: term.region in {None, masks.region_of[index]}, lambda _, layer: weights[layer])

    def _means(self, image: Tensor, view: _View) -> dict[_Key, Tensor]:
        """Mean statistics of a picture."""
        tiles, team = self._deal(self._grid_of_one(image))
        totals = _Totals()
        for tile in tiles:
            totals.add(self._values(_crop(image, tile), tile, StatisticTerm, view))
        team.add(totals.tensors())
        return totals.means(lambda key: self._count(key, image, view))

    def _count(self, key: _Key, image: Tensor, view: _View) -> float:
        """Cells of an image at a layer, as often as they count."""
        weights = view.weights(*key)
        if weights is not None:
            return float(weights.sum(dtype=widest_dtype(weights.device.type)))
        stride = self.objective.extractor.strides[key[1]]
        return (image.shape[-2] // stride) * (image.shape[-1] // stride)

    @outside_autocast
    def __call__(self, image: Tensor) -> Evaluation:
        """Evaluate; see `Objective.forward`."""
        loss, parts = _Tiled.apply(image, self, torch.is_grad_enabled() and image.requires_grad)
        return Evaluation(loss, parts)

    def evaluate(self, image: Tensor, gradient: Tensor | None) -> Tensor:
        """Compute the weighted parts, and add their gradient to a tensor.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1].
            gradient: Zeros of the image's shape, if a gradient is wanted; where tiles overlap the order of adding them
                up does not matter if it is in double precision.

        Returns:
            (K,) parts in the order of `Objective.part_keys`.
        """
        tiles, team = self._share(image)
        self._settle(image, tiles, team)
        kept: dict[Tile, tuple[Tensor, _Values]] = {}
        totals = _Totals()
        for tile in tiles:
            crop = _crop(image, tile)
            if gradient is None:
                values = self._values(crop, tile, Term)
            elif len(kept) < self.keep:
                kept[tile] = crop.requires_grad_(), self._values(crop, tile, Term)
                values = kept[tile][1]
            else:
                with torch.no_grad():
                    values = self._values(crop, tile, StatisticTerm)
            totals.add(values)
            del crop, values
        statistics, sums = totals.split()
        team.add(statistics.tensors())
        parts, upstream = self._distances(statistics, image)
        if gradient is not None:
            for tile in tiles:
                if tile in kept:
                    crop, values = kept.pop(tile)
                else:
                    crop = _crop(image, tile).requires_grad_()
                    values = self._values(crop, tile, Term)
                    sums.add([pair for pair in values if isinstance(pair[0][0], CellTerm)])
                _cut(gradient, tile.crop.slices).add_(self._back(crop, values, upstream))
                del crop, values
            team.add([gradient])
        team.add(sums.tensors())
        parts.update({key: self.objective.factor(*key) * total for key, total in sums.means(lambda _: 1).items()})
        parts.update(self.objective.image_parts(image, gradient))
        return torch.stack([parts[key].to(image.dtype) for key in self.objective.part_keys])

    def _distances(self, statistics: _Totals, image: Tensor) -> tuple[dict[_Key, Tensor], dict[_Key, Tensor]]:
        """Weighted distances of the mean statistics, and the gradient of each with respect to the sum."""
        parts: dict[_Key, Tensor] = {}
        upstream: dict[_Key, Tensor] = {}
        means: dict[StatisticTerm, dict[str, Tensor]] = {}
        for (term, layer), mean in statistics.means(lambda key: self._count(key, image, _PICTURE)).items():
            assert isinstance(term, StatisticTerm)
            means.setdefault(term, {})[layer] = mean.requires_grad_()
        for term, leaves in means.items():
            with one_thread(), torch.enable_grad():
                distances = term.distances(leaves)
                values = {layer: self.objective.factor(term, layer) * distances[layer] for layer in leaves}
                slopes = torch.autograd.grad(list(values.values()), list(leaves.values()))
            for (layer, value), slope in zip(values.items(), slopes, strict=True):
                parts[term, layer] = value.detach()
                upstream[term, layer] = slope / self._count((term, layer), image, _PICTURE)
        return parts, upstream

    def _back(self, crop: Tensor, values: _Values, upstream: dict[_Key, Tensor]) -> Tensor:
        """Gradient of a crop, from those of the distances and the weights of the sums."""
        slopes = [
            upstream[key].to(value) if key in upstream else torch.full_like(value, self.objective.factor(*key))
            for key, value in values
        ]
        (gradient,) = torch.autograd.grad([value for _, value in values], crop, slopes)
        return gradient

    def _values(self, crop: Tensor, tile: Tile, kind: type[Term], view: _View | None = None) -> _Values:
        """Statistics and partial sums over the cells of a tile's core, of terms of a class."""
        view = view or _PICTURE
        wanted = [pair for pair in self.objective.layered_terms(kind) if view.heeds(pair[0])]
        values: _Values = []
        with torch.set_grad_enabled(crop.requires_grad):
            for layer, features, window in self._cells(crop, tile, {layer for _, layer in wanted}):
                for term, _ in (pair for pair in wanted if pair[1] == layer):
                    taken = self.objective.for_term(term, layer, features)
                    if isinstance(term, StatisticTerm):
                        weights = view.weights(term, layer)
                        some = [] if weights is None else [weights[..., window.rows, window.columns]]
                        values.append(((term, layer), term.statistic(layer, taken, *some)))
                    elif isinstance(term, CellTerm):
                        values.append(((term, layer), term.part(layer, taken, window)))
        return values

    def _cells(self, crop: Tensor, tile: Tile, layers: Collection[str]) -> Iterator[tuple[str, Tensor, Window]]:
        """Features of a tile's core, layer by layer."""
        strides = self.objective.extractor.strides
        for layer, features in self.objective.extractor.iterate(crop, [name for name in strides if name in layers]):
            yield layer, _Core.apply(features, tile.inside(strides[layer])), tile.window(strides[layer])

    def _walk(self, image: Tensor, layers: Collection[str]) -> Iterator[tuple[str, Tensor, float]]:
        """Features of all of an image in pieces, each with its share of the layer's cells."""
        for tile in self._grid_of_one(image):
            for layer, features, window in self._cells(_crop(image, tile), tile, layers):
                yield layer, features, features[0, 0].numel() / (window.height * window.width)


class _Core(torch.autograd.Function):
    """A view of some rows and columns, whose gradient lies in memory as the gradient of the rest of the network does.

    That of indexing has channels outermost, whatever the features have; to add the two up then takes a quarter of the
    time of an evaluation.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, slices: tuple[slice, slice]) -> Tensor:
        ctx.slices, ctx.shape = slices, features.shape
        return _cut(features, slices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        rows, columns = ctx.slices
        innermost = torch.channels_last if upstream.stride(1) == 1 else torch.contiguous_format
        gradient = torch.empty(ctx.shape, dtype=upstream.dtype, device=upstream.device, memory_format=innermost)
        for border in (slice(0, rows.start), slice(rows.stop, None)):
            gradient[..., border, :].zero_()
        for border in (slice(0, columns.start), slice(columns.stop, None)):
            gradient[..., rows, border].zero_()
        _cut(gradient, ctx.slices).copy_(upstream)
        return gradient, None


class _Totals:
    """Sums over tiles, in double precision: on the CPU where the device has none."""

    def __init__(self) -> None:
        self._sums: dict[_Key, Tensor] = {}
        self._like: dict[_Key, Tensor] = {}  # empty, of the type and device of what was summed

    def add(self, values: _Values) -> None:
        """Add the values of a tile."""
        for key, value in values:
            exact = widest_dtype(value.device.type)
            device = value.device if exact == torch.float64 else torch.device("cpu")
            term = value.detach().to(device=device, dtype=torch.float64)
            if key in self._sums:
                self._sums[key] += term
            else:
                self._sums[key], self._like[key] = term.clone(), value.detach().new_empty(0)

    def split(self) -> tuple[_Totals, _Totals]:
        """Those of statistics, and the others."""
        both = _Totals(), _Totals()
        for key, value in self._sums.items():
            one = both[not isinstance(key[0], StatisticTerm)]
            one._sums[key], one._like[key] = value, self._like[key]
        return both

    def tensors(self) -> list[Tensor]:
        """The sums, for adding up over processes in place."""
        return list(self._sums.values())

    def means(self, count: Callable[[_Key], float]) -> dict[_Key, Tensor]:
        """Sums over counts of cells, in the type and on the device of the values."""
        return {key: (total / count(key)).to(self._like[key]) for key, total in self._sums.items()}


class _Tiled(torch.autograd.Function):
    """Loss and gradient at once, so that the gradient is there when it is asked for."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, tiled: TiledObjective, follow: bool) -> tuple[Tensor, Tensor]:
        exact = widest_dtype(image.device.type)
        gradient = torch.zeros(image.shape, dtype=exact, device=image.device) if follow else None
        parts = tiled.evaluate(image.detach(), gradient)
        if image.device.type == "cpu" and image[0, 0].numel() >= _LARGE * tiled.tile**2:
            hand_back_freed_memory()  # the optimiser's vectors do not fit into what the tiles leave in the heap
        ctx.gradient = None if gradient is None else gradient.to(image.dtype)
        ctx.mark_non_differentiable(parts)
        return parts.sum(), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None  # full size: not to be kept, nor copied once more
        return gradient.mul_(upstream), None, None


def check_tileable(objective: Objective) -> None:
    """Refuse what needs whole feature maps.

    Raises:
        UserError: If a term or the extractor cannot work tile by tile.
    """
    for term in objective.terms:
        why = term.needs_whole
        if not isinstance(term, (StatisticTerm, CellTerm)):
            why = "is neither a sum over cells nor a distance of one"
        if term.layers and why:
            raise UserError(
                f"model.tile: must be null with the term {term.name}, which {why}; leave the tile out, or take another "
                "term (Gram, Covariance, MeanStd, Wasserstein, Histogram and, with patches: 1, NNFM work in tiles)"
            )
    if objective.layers and objective.extractor.halo(objective.layers) is None:
        raise UserError(
            f"model.tile: must be null with {type(objective.extractor).__name__}, which does not say how far its "
            "layers see (halo); leave the tile out"
        )


def _crop(image: Tensor, tile: Tile) -> Tensor:
    """A tile's crop, a leaf without a copy."""
    return _cut(image.detach(), tile.crop.slices)


def _cut(maps: Tensor, slices: tuple[slice, slice]) -> Tensor:
    """A view of some rows and columns."""
    rows, columns = slices
    return maps[..., rows, columns]
