"""Whether an image needs tiles, and of what size: from an estimate made before the run.

In bytes a pixel of the image, where an image of float32 has 12. What lies there all through a stage:

- the image, 12, and the best one so far unless memory is short, 12;
- features of the content at the layers of `Content`, in the network's type, or in bfloat16 if there are tiles: at
  relu4_2 then 16 for VGG-19, 12 or 16 for the compact encoders;
- the content, for terms that compare pixels, 12, and what they make of it;
- the image that the stage started from, 12, and the features chosen from it, as the content's, for `NearestNeighbour`;
- with regions, or a content that is transparent in part, masks at each layer: 4 for each and half of that;
- matrices of cells by cells that terms compare with, `nst_lightning.losses.term.Matrices`, however large the image;
- of L-BFGS its history (24 a pair, 12 in bfloat16), the last gradient and step, 24, the last point unless the history
  is in bfloat16, 12, and tables for the metric, 6.

What comes and goes, of which the largest counts:

- an evaluation of the whole: what the network holds on its way back, see `nst_lightning.features.footprint`; the
  gradient comes when nearly all of that is gone. Or, before that way, what it has kept and the matrices of terms;
- an evaluation in tiles: their gradient, summed up in double precision, 24, and what the network holds of the tile that
  is worked on, or the matrices of terms, and what it keeps of others between their two passes;
- the end of one in tiles: the gradient in double and in single precision, 36;
- a step: the gradient, 12; the same in the coordinates of L-BFGS or the change of the image, 12, the transform of one
  channel of three, 12, and the newest pair, for which room is made when it is stored;
- the picture when it is written: the clamped copy, 12, samples and file, 3 each with 8 bits; content and colours
  beside, where they are brought back.

The optimiser says its own part, `nst_lightning.optim.LBFGS.memory_for`, and the network its, `Extractor.memory`. There
is also what does not grow with the image: the filters of all networks of the run so far, their working space, and what
is free in the heap between blocks that come and go, in this stage or the ones before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.features import Extractor
from nst_lightning.features.extractor import MemoryUse
from nst_lightning.hardware.memory import HEAP, Supply, is_large
from nst_lightning.losses.grid import make_grid
from nst_lightning.losses.term import PIXEL_LAYERS, Matrices, Term
from nst_lightning.objective.evaluator import check_tileable
from nst_lightning.objective.objective import Objective, Part, with_pixels
from nst_lightning.objective.traversal import Traversal

# A tile of 2048 px takes as long as four of 1024 on two cores, and more memory: what it saves at borders it loses to
# memory that is fetched anew each time. Tiles smaller than 256 cost more time than they save memory.
SIZES = (1024, 768, 512, 384, 256)
USE = 0.92  # of the free memory; the rest is for what no estimate knows
# Freed blocks that lie between others in the heap: as much again as an evaluation takes, at the most this, in tiles,
# for large images (whose large blocks are handed back at once), and for others, of which all blocks are kept. Measured
# on a CPU at 512 to 4096 px, with the narrower encoder and VGG-19.
_HOLES_IN_TILES, _HOLES_IF_LARGE, _HOLES = 250 * 2**20, 400 * 2**20, 600 * 2**20
_IMAGE, _DOUBLE = 12, 24  # bytes a pixel of an image in float32 and in float64


class Plan(NamedTuple):
    """How a stage is to be evaluated."""

    tile: int | None  # side of a tile's core, or None for the whole image at once
    keep: int = 0  # tiles whose activations are kept
    memory: int = 0  # estimate of all that the stage takes, in bytes; 0 if it is not known
    pixels: int | None = None  # of one process's crops, those that run once counting two thirds; None without tiles
    choice: int = 0  # which of the optimiser's settings fits
    evaluation: int = 0  # bytes that come and go with each evaluation, part of the memory


class Earlier(NamedTuple):
    """What the stages before have left."""

    networks: int = 0  # bytes of networks other than the stage's own
    evaluation: int = 0  # bytes that came and went with an evaluation, at most


_NOTHING = Earlier()


def make_plan(
    objective: Objective,
    extractor: Extractor,
    size: tuple[int, int],
    tile: int | str | None,
    optimizer: Sequence[tuple[int, int]],
    available: int,
    processes: int = 1,
    earlier: Earlier = _NOTHING,
    supply: Supply = HEAP,
    transparent: bool = False,
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
        earlier: What is left of the stages before.
        supply: Where the device's memory comes from.
        transparent: Whether a part of the content alone counts.

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
    use = extractor.memory(objective.layers, _left(objective))
    if use is None:  # nothing to plan with
        return _unknown(objective, extractor, size, tile, processes) if wants_tiles else Plan(None)
    formula = _Formula(objective, extractor, use, processes, earlier, supply, transparent=transparent)
    return _chosen(formula, size, tile, optimizer, available, wants_tiles)


def _chosen(
    formula: _Formula,
    size: tuple[int, int],
    tile: int | str | None,
    optimizer: Sequence[tuple[int, int]],
    available: int,
    wants_tiles: bool,
) -> Plan:
    """The first plan that fits; see `make_plan`."""
    for choice, (stays, passes) in enumerate(optimizer):
        lasting = formula.lasting(size, stays, best=choice == 0)
        whole = formula.whole(size, lasting, passes)
        if not wants_tiles and (tile is None or not available or whole.memory <= USE * available):
            return whole._replace(choice=choice)
        for side in [tile] if isinstance(tile, int) else SIZES:
            plan = formula.tiled(size, side, lasting, passes, available, asked=isinstance(tile, int))
            if plan is not None:
                return plan._replace(choice=choice)
    raise _does_not_fit(formula, size, side, optimizer, available)


def _unknown(
    objective: Objective, extractor: Extractor, size: tuple[int, int], tile: int | str | None, processes: int
) -> Plan:
    """Tiles of the side that was asked for, or of the largest, whatever they take."""
    side = tile if isinstance(tile, int) else SIZES[0]
    return Plan(side, pixels=sum(_crops(Traversal(objective, extractor, side), size, side, processes)))


def _crops(traversal: Traversal, size: tuple[int, int], side: int, processes: int) -> list[int]:
    """Pixels of the crops of one process's tiles, the largest first."""
    tiles = make_grid(size, side, traversal.halo, traversal.stride, processes)
    return sorted((t.crop.area for t in tiles), reverse=True)[::processes]


class _Formula:
    """Bytes of a stage through a network that says of itself what it uses; so many processes share the tiles."""

    def __init__(
        self,
        objective: Objective,
        extractor: Extractor,
        use: MemoryUse,
        processes: int,
        earlier: Earlier,
        supply: Supply,
        *,
        transparent: bool,
    ) -> None:
        self._traversal = Traversal(objective, extractor, SIZES[-1])
        self._processes = processes
        self._supply = supply
        self._use = use = use if supply.heap else use.accelerated or use
        self._earlier = earlier
        parts = [(objective.parts[index], layer) for index, layer in objective.layer_keys]
        values = {**dict.fromkeys(PIXEL_LAYERS, 3.0), **use.values}  # of a pixel
        weighed = [(p, layer) for p, layer in parts if p.region is not None or (transparent and _weighs(p.term))]
        self._held = _held(objective, extractor, weighed)
        strides = with_pixels(extractor.strides)
        self._looks = [(objective.parts[index].term, strides[layer]) for index, layer in objective.layer_keys]
        # Weighted features that statistics of regions, or of what is seen, keep until the pass back. Measured on a CPU:
        # 156 to 160 a region for Gram and Wasserstein with the compact encoder in float32, 79 to 85 in bfloat16, where
        # this says 158 and 79. MeanStd takes less than this says.
        self._weighted = sum(
            values[layer] * (max(4, use.itemsize) if p.term.float32_gradient else use.itemsize)
            for p, layer in weighed
            if not p.term.additive
        )
        # What terms leave that look at the picture as at a layer; of those that hold the content, `_held` counts it.
        self._weighted += sum(
            _IMAGE * p.term.copies for p, layer in parts if layer in PIXEL_LAYERS and not p.term.needs_content
        )
        # A target that counts are compared with is a distribution.
        self._targets = sum(values[layer] for p, layer in parts if p.term.additive and not p.term.needs_counts)
        self._widened = [_when_widened(p.term, layer, use, extractor) for p, layer in parts if layer in use.reached]
        self._spaces = [(p.term, [_channels(layer, use, strides) for layer in p.term.layers]) for p in objective.parts]

    def lasting(self, size: tuple[int, int], stays: float, *, best: bool) -> float:
        """What is there at any time, but for targets."""
        images = _IMAGE + self._held + (_IMAGE if best else 0)
        networks = self._use.filters + self._earlier.networks
        matrices = sum(one.target for one in self._matrices(size))
        matrices += self._supply.working_space
        return networks + matrices + images * size[0] * size[1] + stays

    def whole(self, size: tuple[int, int], lasting: float, passes: float) -> Plan:
        """All at once."""
        area = size[0] * size[1]
        comes = max(self._use.pixel * area, self._use.kept * area + self._compared(size), self._looked_at(area, area))
        holes = _HOLES_IF_LARGE if is_large(max(size)) else _HOLES
        evaluation = self._in_heap(comes, holes) + self._weighted * area + self._strips(size)
        step = _IMAGE * area + passes
        total = lasting + self._targets * self._use.itemsize * area + max(step, evaluation)
        return Plan(None, memory=int(total), evaluation=int(comes))

    def tiled(
        self, size: tuple[int, int], side: int, lasting: float, passes: float, available: int, *, asked: bool
    ) -> Plan | None:
        """A plan with tiles of a side, or None if they do not fit and were not asked for."""
        area = size[0] * size[1]
        lasting += self._targets * 2 * area
        areas = _crops(self._traversal, size, side, self._processes)
        core = min(side**2, area)
        comes = max(self._use.part * areas[0], self._compared(size), self._looked_at(areas[0], core))
        works = self._in_heap(comes, _HOLES_IN_TILES) + self._weighted * core + self._strips(size)
        keeps = self._use.kept * areas[0] + self._weighted * core
        double, between = _DOUBLE * area, _between(area, passes)
        room = USE * available - lasting
        if not (room >= max(double + works, between) or asked or not available):
            return None
        # Who names a tile for one device means its memory, too.
        mine = self._processes > 1 or not asked
        keep = min(len(areas), max(0, 1 + int((room - double - works) / keeps))) if mine else 0
        keep = keep if keep == len(areas) else max(0, keep - 1)  # one more has to run
        pixels = sum(areas[keep:]) + 2 * sum(areas[:keep]) // 3
        total = lasting + max(between, double + works + keeps * min(len(areas) - 1, keep))
        return Plan(side, keep, int(total), pixels, evaluation=int(comes))

    def least(self, size: tuple[int, int], side: int, stays: float, passes: float, *, best: bool) -> float:
        """With tiles of a side, none of them stored."""
        stride, halo = self._traversal.stride, self._traversal.halo
        small = max(stride, size[0]), max(stride, size[1])
        area = small[0] * small[1]
        core, crop = (min(length, small[0]) * min(length, small[1]) for length in (side, side + 2 * halo))
        comes = max(self._use.part * crop, self._compared(small), self._looked_at(crop, core))
        works = _DOUBLE * area + self._in_heap(comes, _HOLES_IN_TILES) + self._weighted * core + self._strips(small)
        lasting = self.lasting(small, stays, best=best) + 2 * self._targets * area
        return lasting + max(_between(area, passes), works)

    def _matrices(self, size: tuple[int, int]) -> list[Matrices]:
        """Of each part at each layer, for an image of a height and width, and on accelerators of each part besides."""
        found = [term.matrices((size[0] // stride) * (size[1] // stride)) for term, stride in self._looks]
        spaces = [] if self._supply.heap else self._spaces
        return found + [term.workspace(channels, size) for term, channels in spaces]

    def _strips(self, size: tuple[int, int]) -> int:
        """What terms that see the picture work with, in a heap: of a large one, as else it fits into the holes."""
        if not (self._supply.heap and is_large(max(size))):
            return 0
        spaces = [(term, channels) for term, channels in self._spaces if term.sees_image]
        return max((term.workspace(channels, size).passing for term, channels in spaces), default=0)

    def _compared(self, size: tuple[int, int]) -> int:
        """What of them comes and goes while losses are compared."""
        found = self._matrices(size)
        return sum(one.left for one in found) + max((one.passing for one in found), default=0)

    def _looked_at(self, crop: int, core: int) -> float:
        """The most while a term looks at a layer of so many pixels, of which the core counts."""
        return max((reached * crop + copies * core for reached, copies in self._widened), default=0.0)

    def _in_heap(self, taken: float, most: int) -> float:
        """What blocks of so many bytes in all take, with those that are free between them."""
        return taken + min(taken + self._earlier.evaluation, most) if self._supply.heap else taken


def _when_widened(term: Term, layer: str, use: MemoryUse, extractor: Extractor) -> tuple[float, float]:
    """Bytes a pixel that are there when a term looks at a layer, and those of its float32 copies."""
    copies = term.widened + (term.widened > 0 and extractor.projection(layer) is not None)
    return use.reached[layer], copies * max(4, use.itemsize) * use.values[layer]


def _channels(layer: str, use: MemoryUse, strides: Mapping[str, int]) -> int:
    """Of a layer, 3 for the picture itself."""
    return round(use.values[layer] * strides[layer] ** 2) if layer in use.values else 3


def _between(area: int, passes: float) -> float:
    """What comes and goes between evaluations in tiles: the end of one, or a step."""
    return max(_IMAGE * area + passes, (_DOUBLE + _IMAGE) * area)


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


def _left(objective: Objective) -> dict[str, float]:
    """What terms leave at each layer until the pass back, in maps of its size."""
    left = dict.fromkeys(objective.layers, 0.0)
    for index, layer in objective.layer_keys:
        if layer in left:  # and not the picture itself
            left[layer] += objective.parts[index].term.copies
    return left


def _weighs(term: Term) -> bool:
    """Whether a term looks at what is seen of a content alone."""
    return term.group == "style" and term.weighs_cells


def _held(objective: Objective, extractor: Extractor, weighed: Sequence[tuple[Part, str]]) -> float:
    """Bytes a pixel of what terms hold besides features: the content, its change, masks at the layers they weigh."""
    strides = with_pixels(extractor.strides)
    divided = [(part.region, strides[layer]) for part, layer in weighed]
    pictures = sum(1 + part.term.copies for part in objective.parts if part.term.needs_content)  # the content, too
    pictures += objective.needs_start
    return 4 * (
        3 * pictures
        + len({region for region, _ in divided})
        + sum(1 / stride**2 for _, stride in divided if stride > 1)
    )
