"""Whether an image needs tiles, and of what size: from an estimate made before the run.

What has the size of the whole image (of float32, 12 bytes a pixel):

- the image and its gradient, and the best image so far unless memory is short; the content, too, while targets are
  taken, before the optimiser holds anything;
- in tiles the gradient in double precision, until all tiles are done, and then for a moment both: before the step;
- features of the content at the layers of `Content`, in the network's type, or in bfloat16 if there are tiles: at
  relu4_2 then 1.3 images for VGG-19, 0.5 for the compact encoder;
- the content, as `Likeness` keeps it;
- with regions, their masks at each layer: half an image for each;
- L-BFGS, from step to step: its history (2 images a pair, 1 in bfloat16), the last gradient and step, the last point
  unless the history is in bfloat16, and half an image of tables for the metric; during a step 2 images more, where
  between steps the tile's activations lie;
- while the picture is written: the clamped copy, and one byte (or two) a sample.

Everything else grows with the tile only; with regions that is also a weighted copy of each style layer's features for
each region, which the pass back needs. See `nst_lightning.optim.LBFGS.memory_for` and `Extractor.memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.features.extractor import MemoryUse
from nst_lightning.objective.evaluator import check_tileable
from nst_lightning.objective.grid import make_grid
from nst_lightning.objective.objective import Objective
from nst_lightning.objective.traversal import Traversal

# A tile of 2048 px takes as long as four of 1024 on two cores, and more memory: what it saves at borders it loses to
# memory that is fetched anew each time. Tiles smaller than 256 cost more time than they save memory.
SIZES = (1024, 768, 512, 384, 256)
USE = 0.9  # of the free memory; the rest is for the heap
# What the heap holds between blocks that come and go: measured on a CPU at 2048 to 8192 px, 0.05 to 0.2 GiB.
_HEAP = 200 * 2**20
# Of what a part of a map takes besides, as a whole one takes it in float32; in half precision it takes all. Measured on
# a CPU, VGG-19 and both compact encoders, Gram and Wasserstein: what is said here is 10 % too low to a third too high.
_WHOLE_PART = 0.4
_IMAGES, _BEST, _GRADIENT = 2 * 12, 12, 12  # bytes a pixel of image and gradient, of the best image, of the gradient


class Plan(NamedTuple):
    """How a stage is to be evaluated."""

    tile: int | None  # side of a tile's core, or None for the whole image at once
    keep: int = 0  # tiles whose activations are kept
    memory: int = 0  # estimate of all that the stage takes, in bytes; 0 if it is not known
    pixels: int | None = None  # of one process's crops, those that run once counting two thirds; None without tiles
    choice: int = 0  # which of the optimiser's settings fits


def make_plan(
    objective: Objective,
    extractor: Extractor,
    size: tuple[int, int],
    tile: int | str | None,
    optimizer: Sequence[tuple[int, int]],
    available: int,
    processes: int = 1,
) -> Plan:
    """Choose the tile of a stage.

    Args:
        objective: Terms and weights.
        extractor: The stage's network.
        size: Height and width of the image.
        tile: Side of the tiles in pixels, None for none, or ``auto``.
        optimizer: Bytes of the optimiser that stay and that a step takes, for each of its settings, the best first.
        available: Free bytes on the device; 0 if not known.
        processes: How many share the tiles, on devices of their own.

    Returns:
        The plan: whole if that fits, else the largest tile that does, with the first settings that leave room for one.

    Raises:
        UserError: If ``auto`` finds no tile that fits.
    """
    wants_tiles = processes > 1 or tile not in {None, "auto"}
    try:
        check_tileable(objective, extractor)
    except UserError:
        if wants_tiles:
            raise
        return Plan(None)
    use = extractor.memory(objective.layers)
    if use is None:  # nothing to plan with
        side = tile if isinstance(tile, int) else SIZES[0]
        areas = _crops(Traversal(objective, extractor, side), size, side, processes)
        return Plan(side, pixels=sum(areas)) if wants_tiles else Plan(None)
    formula = _Formula(objective, extractor, use, processes)
    sides = [tile] if isinstance(tile, int) else list(SIZES)
    for choice, (stays, passes) in enumerate(optimizer):
        fixed = formula.fixed(size, stays, best=choice == 0)
        whole = formula.whole(size, fixed, passes)
        if not wants_tiles and (tile is None or not available or whole <= USE * available):
            return Plan(None, memory=int(whole) + _HEAP, choice=choice)
        for side in sides:
            plan = formula.tiled(size, side, fixed, passes, available, asked=isinstance(tile, int))
            if plan is not None:
                return plan._replace(choice=choice)
    raise _does_not_fit(formula, size, sides[-1], optimizer, available)


def _crops(traversal: Traversal, size: tuple[int, int], side: int, processes: int) -> list[int]:
    """Pixels of the crops of one process's tiles, the largest first."""
    tiles = make_grid(size, side, traversal.halo, traversal.stride, processes)
    return sorted((t.crop.area for t in tiles), reverse=True)[::processes]


class _Formula:
    """Bytes of an evaluation through a network that says of itself what it uses; so many processes share the tiles."""

    def __init__(self, objective: Objective, extractor: Extractor, use: MemoryUse, processes: int) -> None:
        self._traversal = Traversal(objective, extractor, SIZES[-1])
        self._processes = processes
        self._use = use
        parts = [(objective.parts[index], layer) for index, layer in objective.layer_keys]
        self._held = _held(objective, extractor)
        # Copies of features that terms make, one layer after another.
        self._copies = max((p.term.copies * use.itemsize * use.values[layer] for p, layer in parts), default=0.0)
        # Weighted features that statistics of regions keep until the backward pass. Measured on a CPU: 156 to 160 a
        # region for Gram and Wasserstein with the compact encoder in float32, 79 to 85 in bfloat16, where this says
        # 158 and 79. MeanStd takes less than this says.
        self._weighted = sum(
            use.values[layer] * (max(4, use.itemsize) if p.term.float32_gradient else use.itemsize)
            for p, layer in parts
            if p.region is not None and not p.term.additive
        )
        self._targets = sum(use.values[layer] for p, layer in parts if p.term.additive)

    def fixed(self, size: tuple[int, int], stays: float, *, best: bool) -> float:
        """What is there at any time, but for targets."""
        images = _IMAGES + self._held + (_BEST if best else 0)
        return self._use.fixed + images * size[0] * size[1] + stays

    def whole(self, size: tuple[int, int], fixed: float, passes: float) -> float:
        """All at once."""
        use, area = self._use, size[0] * size[1]
        part = use.part * (1 if use.itemsize < 4 else _WHOLE_PART)
        evaluation = (use.pixel + part + self._copies + self._weighted) * area
        return fixed + self._targets * use.itemsize * area + max(passes, evaluation)

    def tiled(
        self, size: tuple[int, int], side: int, fixed: float, passes: float, available: int, *, asked: bool
    ) -> Plan | None:
        """A plan with tiles of a side, or None if they do not fit and were not asked for."""
        area = size[0] * size[1]
        fixed += self._targets * 2 * area
        areas = _crops(self._traversal, size, side, self._processes)
        one = self._one(areas[0], min(side**2, area))
        double = _GRADIENT * area  # more of the gradient than `fixed` holds, and then a copy
        between = max(passes, 2 * double)  # evaluations
        room = USE * available - fixed
        if not (room >= max(double + one, between) or asked or not available):
            return None
        # Who names a tile for one device means its memory, too.
        mine = self._processes > 1 or not asked
        keep = min(len(areas), max(0, int((room - double) / one))) if mine else 0
        keep = keep if keep == len(areas) else max(0, keep - 1)  # one more has to run
        pixels = sum(areas[keep:]) + 2 * sum(areas[:keep]) // 3
        total = fixed + max(between, double + one * min(len(areas), keep + 1))
        return Plan(side, keep, int(total) + _HEAP, pixels)

    def _one(self, crop: int, core: int) -> float:
        """A tile whose activations are there, with so many pixels."""
        return (self._use.pixel + self._use.part + self._copies) * crop + self._weighted * core

    def least(self, size: tuple[int, int], side: int, stays: float, passes: float, *, best: bool) -> float:
        """With tiles of a side, none of them stored."""
        stride, halo = self._traversal.stride, self._traversal.halo
        small = max(stride, size[0]), max(stride, size[1])
        area = small[0] * small[1]
        core, crop = (min(length, small[0]) * min(length, small[1]) for length in (side, side + 2 * halo))
        double = _GRADIENT * area
        fixed = self.fixed(small, stays, best=best) + 2 * self._targets * area
        return fixed + max(passes, 2 * double, double + self._one(crop, core))


def _does_not_fit(
    formula: _Formula, size: tuple[int, int], side: int, optimizer: Sequence[tuple[int, int]], available: int
) -> UserError:
    """What is said of a size that does not fit: what it needs, and the size that would fit."""
    height, width = size

    def least(scale: float) -> float:
        stays, passes = (bytes_ * scale**2 for bytes_ in optimizer[-1])
        scaled = round(height * scale), round(width * scale)
        return formula.least(scaled, side, stays, passes, best=len(optimizer) == 1)

    fits = max((n for n in range(1, 1000) if least(n / 1000) <= USE * available), default=0) / 1000
    advice = f"it fits with data.size at {100 * fits:.0f} % of that" if fits else "free some memory"
    return UserError(
        f"data.size: needs {least(1) / 2**30:.1f} GiB for {width}x{height} px even in the smallest tiles, of which the "
        f"optimiser takes {sum(optimizer[-1]) / 2**30:.1f}, got {USE * available / 2**30:.1f} ({100 * USE:.0f} % of "
        f"what is free or allowed); {advice}"
    )


def _held(objective: Objective, extractor: Extractor) -> float:
    """Bytes a pixel of what terms hold besides features: the content, its change, masks at their layers."""
    divided = [(objective.parts[index].region, extractor.strides[layer]) for index, layer in objective.layer_keys]
    divided = [(region, stride) for region, stride in divided if region is not None]
    # Three channels each of the content, of the change, of its steps in both directions, and of their gradient.
    likeness = 15 * sum(part.term.needs_content for part in objective.parts)
    return 4 * (
        likeness + len({region for region, _ in divided}) + sum(1 / stride**2 for _, stride in divided if stride > 1)
    )
