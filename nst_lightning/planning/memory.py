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
from nst_lightning.features.extractor import MemoryUse
from nst_lightning.losses.likeness import Likeness
from nst_lightning.losses.term import CellTerm, StatisticTerm
from nst_lightning.objective.grid import make_grid
from nst_lightning.objective.objective import Objective
from nst_lightning.objective.tiled import TiledObjective

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
    """How a stage is to be evaluated.

    Attributes:
        tile: Side of a tile's core, or None for the whole image at once.
        keep: Tiles whose activations are kept.
        memory: Estimate of all that the stage takes, in bytes; 0 if it is not known.
        pixels: Of the crops of one process's tiles, those that run once counting two thirds; None without tiles.
        choice: Which of the optimiser's settings fits.
    """

    tile: int | None
    keep: int = 0
    memory: int = 0
    pixels: int | None = None
    choice: int = 0


def make_plan(
    objective: Objective,
    size: tuple[int, int],
    tile: int | str | None,
    optimizer: Sequence[tuple[int, int]],
    available: int,
    processes: int = 1,
) -> Plan:
    """Choose the tile of a stage.

    Args:
        objective: The objective, with the stage's extractor.
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
    height, width = size
    wants_tiles = processes > 1 or tile not in {None, "auto"}
    try:
        tiled = TiledObjective(objective, SIZES[-1])
    except UserError:
        if wants_tiles:
            raise
        return Plan(None)

    def crops(side: int, size: tuple[int, int] = size) -> list[int]:
        """Pixels of the crops of one share of the tiles, the largest first."""
        tiles = make_grid(size, side, tiled.halo, tiled.stride, processes)
        return sorted((t.crop.area for t in tiles), reverse=True)[::processes]

    use = objective.extractor.memory(objective.layers)
    if use is None:  # nothing to plan with
        side = tile if isinstance(tile, int) else SIZES[0]
        return Plan(side, pixels=sum(crops(side))) if wants_tiles else Plan(None)
    sides = [tile] if isinstance(tile, int) else list(SIZES)
    masks, weighted, copies = _held(objective), _weighted(objective, use), _copies(objective, use)
    whole_part = use.part * (1 if use.itemsize < 4 else _WHOLE_PART)
    kept = sum(use.values[layer] for _, layer in objective.layered_terms(CellTerm))
    for choice, (stays, passes) in enumerate(optimizer):
        images = _IMAGES + masks + (_BEST if choice == 0 else 0)
        fixed: float = use.fixed + images * height * width + stays
        evaluation = (use.pixel + whole_part + copies + weighted) * height * width
        whole = int(fixed + kept * use.itemsize * height * width + max(passes, evaluation))
        if not wants_tiles and (tile is None or not available or whole <= USE * available):
            return Plan(None, memory=whole + _HEAP, choice=choice)
        fixed += kept * 2 * height * width
        double = _GRADIENT * height * width  # more of the gradient than `fixed` holds, and then a copy
        between = max(passes, 2 * double)  # evaluations
        for side in sides:
            areas = crops(side)
            one = (use.pixel + use.part + copies) * areas[0] + weighted * min(
                side**2, height * width
            )  # of the core alone
            room = USE * available - fixed
            if room >= max(double + one, between) or isinstance(tile, int) or not available:
                # Who names a tile for one device means its memory, too.
                mine = processes > 1 or not isinstance(tile, int)
                keep = min(len(areas), max(0, int((room - double) / one))) if mine else 0
                keep = keep if keep == len(areas) else max(0, keep - 1)  # one more has to run
                pixels = sum(areas[keep:]) + 2 * sum(areas[:keep]) // 3
                total = fixed + max(between, double + one * min(len(areas), keep + 1))
                return Plan(side, keep, int(total) + _HEAP, pixels, choice)

    def least(scale: float) -> float:
        """Bytes at a scale with the smallest tile and the leanest settings."""
        small = max(tiled.stride, round(height * scale)), max(tiled.stride, round(width * scale))
        core = [min(sides[-1], length) for length in small]
        crop = [min(sides[-1] + 2 * tiled.halo, length) for length in small]
        one = (use.pixel + use.part + copies) * crop[0] * crop[1] + weighted * core[0] * core[1]
        stays, passes = (bytes_ * small[0] * small[1] / (height * width) for bytes_ in optimizer[-1])
        images = _IMAGES + masks + (_BEST if len(optimizer) == 1 else 0)
        double = _GRADIENT * small[0] * small[1]
        return use.fixed + (images + 2 * kept) * small[0] * small[1] + stays + max(passes, 2 * double, double + one)

    fits = max((n for n in range(1, 1000) if least(n / 1000) <= USE * available), default=0) / 1000
    advice = f"it fits with data.size at {100 * fits:.0f} % of that" if fits else "free some memory"
    raise UserError(
        f"data.size: needs {least(1) / 2**30:.1f} GiB for {width}x{height} px even in the smallest tiles, of which the "
        f"optimiser takes {sum(optimizer[-1]) / 2**30:.1f}, got {USE * available / 2**30:.1f} ({100 * USE:.0f} % of "
        f"what is free or allowed); {advice}"
    )


def _held(objective: Objective) -> float:
    """Bytes a pixel of what terms hold besides features: the content, its change, masks at their layers."""
    strides = objective.extractor.strides
    divided = [(term.region, strides[layer]) for term, layer in objective.layered_terms() if term.region is not None]
    # Three channels each of the content, of the change, of its steps in both directions, and of what comes back.
    likeness = 15 * sum(isinstance(term, Likeness) for term in objective.terms)
    return 4 * (
        likeness + len({region for region, _ in divided}) + sum(1 / stride**2 for _, stride in divided if stride > 1)
    )


def _copies(objective: Objective, use: MemoryUse) -> float:
    """Bytes a pixel of the copies of features that a statistic makes, one layer after another."""
    terms = [(term, layer) for term, layer in objective.layered_terms(StatisticTerm) if isinstance(term, StatisticTerm)]
    return max((term.copies * use.itemsize * use.values[layer] for term, layer in terms), default=0)


def _weighted(objective: Objective, use: MemoryUse) -> float:
    """Bytes a pixel of the weighted features that statistics of regions keep until the pass back.

    Measured on a CPU: 156 to 160 a region for Gram and Wasserstein with the compact encoder in float32, 79 to 85 in
    bfloat16, where this says 158 and 79. MeanStd takes less than this says.
    """
    return sum(
        use.values[layer] * (max(4, use.itemsize) if term.keeps_wide else use.itemsize)
        for term, layer in objective.layered_terms(StatisticTerm)
        if isinstance(term, StatisticTerm) and term.region is not None
    )
