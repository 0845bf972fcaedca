"""What each stage of a run takes, decided before it starts: tiles, the optimiser's history, memory and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nst_lightning.features import Extractor
from nst_lightning.features.extractor import MemoryUse
from nst_lightning.hardware.memory import HEAP, Supply
from nst_lightning.objective.objective import Objective
from nst_lightning.optim import LBFGS
from nst_lightning.planning.duration import Speed, seconds_of_evaluation, seconds_of_picture_terms, speed_of
from nst_lightning.planning.memory import Earlier, Plan, make_plan
from nst_lightning.planning.picture_terms import picture_speed

_LEAN_HISTORIES = (20, 10, 5, 3)  # pairs
_OTHER_OPTIMIZERS = 3  # images that an optimiser is taken to need that does not say so; Adam takes two


class Scope(NamedTuple):
    """What a stage works with."""

    evaluations: int
    size: tuple[int, int]  # height and width of its image
    extractor: Extractor


def _filters(use: MemoryUse | None, supply: Supply) -> int:
    """Bytes of a network itself, in the forms that it has there."""
    use = use.accelerated or use if use is not None and not supply.heap else use
    return 0 if use is None else use.filters


class Planner:
    """Plans for the stages of a run.

    Args:
        objective: What is evaluated.
        optimizer: Builds the optimiser of some parameters.
        stages: What each stage works with.
        tile: Side of the tiles, ``auto``, or None for none.
        available: Free bytes on the device.
        resident: Bytes that the process has taken already.
        processes: How many share the tiles.
        supply: Where the device's memory comes from.
        transparent: Whether a part of the content alone counts.

    Attributes:
        plans: One for each stage.

    Raises:
        UserError: If a stage does not fit.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        stages: Sequence[Scope],
        tile: int | Literal["auto"] | None,
        available: int,
        resident: int = 0,
        processes: int = 1,
        supply: Supply = HEAP,
        *,
        transparent: bool = False,
    ) -> None:
        self._objective, self._stages, self._resident = objective, stages, resident
        self._optimizer = optimizer([nn.Parameter(torch.zeros(1, 3, 16, 16))])
        self._histories = self._make_histories()
        self.plans: list[Plan] = []
        networks: dict[Extractor, int] = {}  # bytes of those that have been in use
        for evaluations, size, extractor in stages:
            numel, at_once = 3 * size[0] * size[1], not supply.heap
            memories = [self._memory(numel, each, evaluations, at_once=at_once) for each in self._histories]
            extractor.use_layers(objective.layers)
            others = sum(taken for network, taken in networks.items() if network is not extractor)
            earlier = Earlier(others, max((plan.evaluation for plan in self.plans), default=0))
            asked = (objective, extractor, size, tile, memories, available, processes, earlier, supply)
            self.plans.append(make_plan(*asked, transparent=transparent))
            use = extractor.memory(objective.layers)
            networks[extractor] = _filters(use, supply)

    def history(self, plan: Plan) -> dict[str, Any]:
        """Settings of the optimiser under a plan, those that differ from what was asked for."""
        return self._histories[plan.choice]

    def saved(self) -> list[list[Any]]:
        """The plans as a checkpoint keeps them."""
        return [[plan.tile, plan.keep, plan.choice] for plan in self.plans]

    def adopt(self, saved: Sequence[Sequence[Any]]) -> None:
        """Go on with the plans of a checkpoint, so that the result is the same to the last bit.

        A history of another length than then keeps what has been planned for it.
        """
        if len(saved) == len(self.plans) and all(choice < len(self._histories) for _, _, choice in saved):
            self.plans = [
                plan._replace(tile=tile, keep=keep, choice=choice)
                for plan, (tile, keep, choice) in zip(self.plans, saved, strict=True)
            ]

    def retile(self, stage: int, tile: int) -> None:
        """Plan smaller tiles for a stage in which memory ran out, so that a run which goes on has them, too."""
        self.plans[stage] = self.plans[stage]._replace(tile=tile, keep=0)

    def memory(self) -> int:
        """Bytes that the process will have taken at its peak, with what it holds already; 0 if that is not known."""
        planned = max((plan.memory for plan in self.plans), default=0)
        return planned + self._resident if planned else 0

    def _make_histories(self) -> list[dict[str, Any]]:
        """What an L-BFGS remembers: as it was asked for, and if that does not fit, ever less.

        A history of 10 costs about a tenth more evaluations than one of 100.
        """
        if not isinstance(self._optimizer, LBFGS):
            return [{}]
        asked = self._optimizer.param_groups[0]["history_size"]
        sizes = [asked, *(size for size in _LEAN_HISTORIES if size < asked)]
        return [{}, *({"history_size": size, "history_dtype": "bfloat16"} for size in sizes)]

    def _memory(
        self, numel: int, history: dict[str, Any], evaluations: int, *, at_once: bool = False
    ) -> tuple[int, int]:
        """Bytes that the optimiser keeps, and those that a step takes besides; see `LBFGS.memory_for`."""
        if not isinstance(self._optimizer, LBFGS):
            return _OTHER_OPTIMIZERS * numel * 4, 0
        group = self._optimizer.param_groups[0]
        before = {name: group[name] for name in history}
        group.update(history)
        try:
            return self._optimizer.memory_for(numel, evaluations=evaluations, at_once=at_once)
        finally:
            group.update(before)

    def seconds(self, device: torch.device) -> float:
        """About how long all stages will take on a device, measured on a small image."""
        most: dict[Extractor, int] = {}  # pixels that are evaluated at once
        for (_, (height, width), extractor), plan in zip(self._stages, self.plans, strict=True):
            most[extractor] = max(most.get(extractor, 0), min(height * width, (plan.tile or max(height, width)) ** 2))
        speeds: dict[Extractor, Speed] = {}
        own = picture_speed(self._objective, self._stages[0].extractor, device)
        total = 0.0
        for (evaluations, (height, width), extractor), plan in zip(self._stages, self.plans, strict=True):
            if extractor not in speeds:
                layers = self._objective.layers
                speeds[extractor] = speed_of(extractor.to(device), layers, device, most[extractor])
            tiles = 1 if plan.tile is None else -(-height // plan.tile) * -(-width // plan.tile)
            cost = seconds_of_evaluation(speeds[extractor], height * width, plan.pixels, tiles)
            total += evaluations * (cost + seconds_of_picture_terms(own, height * width))
        return total

    def checkpoint_bytes(self) -> int:
        """Bytes of the largest checkpoint: image, best image unless memory is short, and what the optimiser keeps.

        Also what the stage started from, if a term needs it.
        """
        sizes = []
        for (evaluations, (height, width), _), plan in zip(self._stages, self.plans, strict=True):
            numel = 3 * height * width
            images = (1 if plan.choice else 2) + self._objective.needs_start
            kept, _ = self._memory(numel, self._histories[plan.choice], evaluations, at_once=True)
            sizes.append(images * numel * 4 + kept)
        return max(sizes, default=0)
