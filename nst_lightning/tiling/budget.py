"""Whether an image needs tiles, and of what size: from an estimate made before the run.

What has the size of the whole image, in float32 (12 bytes a pixel) unless said otherwise:

- the image, its gradient, and the content while targets are taken (afterwards only its features at the content layers,
  in bfloat16 if there are tiles);
- L-BFGS: see `nst_lightning.optim.LBFGS`, ``2 history_size + 6`` images, or ``history_size + 5`` with a history in
  bfloat16, and 1.5 for the metric;
- while the picture is written: one byte (or two) a sample.

Everything else grows with the tile only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.objective import Objective
from nst_lightning.tiling.grid import make_grid
from nst_lightning.tiling.objective import TiledObjective

SIZES = (2048, 1536, 1024, 768, 512, 384, 256)  # smaller ones cost more time than they save memory
USE = 0.9  # of the free memory
IMAGES, _BYTES = 3, 12  # images beside those of the optimiser, and bytes a pixel of each


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
    optimizer: Sequence[int],
    available: int,
    processes: int = 1,
) -> Plan:
    """Choose the tile of a stage.

    Args:
        objective: The objective, with the stage's extractor.
        size: Height and width of the image.
        tile: Side of the tiles in pixels, None for none, or ``auto``.
        optimizer: Bytes that the optimiser takes, for each of its settings, the best first.
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
        side = tile if isinstance(tile, int) else SIZES[2]
        return Plan(side, pixels=sum(crops(side))) if wants_tiles else Plan(None)
    sides = [tile] if isinstance(tile, int) else list(SIZES)
    for choice, memory in enumerate(optimizer):
        fixed = use.fixed + IMAGES * _BYTES * height * width + memory
        whole = int(fixed + use.pixel * height * width)
        if not wants_tiles and (tile is None or not available or whole <= USE * available):
            return Plan(None, memory=whole, choice=choice)
        for side in sides:
            areas = crops(side)
            one = (use.pixel + use.part) * areas[0]
            fit = int((USE * available - fixed) / one)
            if fit >= 1 or isinstance(tile, int) or not available:
                # Who names a tile for one device means its memory, too.
                keep = 0 if processes == 1 and isinstance(tile, int) else min(len(areas), max(0, fit))
                keep = keep if keep == len(areas) else max(0, keep - 1)  # one more has to run
                pixels = sum(areas[keep:]) + 2 * sum(areas[:keep]) // 3
                return Plan(side, keep, int(fixed + one * min(len(areas), keep + 1)), pixels, choice)

    def least(scale: float) -> float:
        """Bytes at a scale with the smallest tile and the leanest settings."""
        small = max(tiled.stride, round(height * scale)), max(tiled.stride, round(width * scale))
        side = sides[-1] + 2 * tiled.halo
        crop = min(side, small[0]) * min(side, small[1])
        per_pixel = IMAGES * _BYTES + optimizer[-1] / (height * width)
        return use.fixed + per_pixel * small[0] * small[1] + (use.pixel + use.part) * crop

    fits = max((n for n in range(1, 1000) if least(n / 1000) <= USE * available), default=0) / 1000
    advice = f"it fits with data.size at {100 * fits:.0f} % of that" if fits else "free some memory"
    raise UserError(
        f"data.size: needs {least(1) / 2**30:.1f} GiB for {width}x{height} px even in the smallest tiles, of which the "
        f"optimiser takes {optimizer[-1] / 2**30:.1f}, got {available / 2**30:.1f} GiB of free memory; {advice}"
    )
