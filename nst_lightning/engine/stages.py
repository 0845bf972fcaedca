"""The stages of a run: each has a size, a network, and an evaluator with targets of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from nst_lightning.data.loader import StageBatch
from nst_lightning.data.module import StyleTransferData
from nst_lightning.data.schedule import Stage, make_schedule
from nst_lightning.data.stage_images import StageImages
from nst_lightning.engine.image import ImageModule
from nst_lightning.engine.optimizers import OptimizerSetup
from nst_lightning.errors import UserError, notice
from nst_lightning.features import Extractor
from nst_lightning.hardware.memory import (
    bytes_there,
    free_within,
    hand_back_freed_memory,
    resident_memory,
    shares_memory,
    supply,
)
from nst_lightning.hardware.numerics import without_autocast
from nst_lightning.objective.collective import ProcessGroup
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Evaluation, Objective
from nst_lightning.objective.traversal import Traversal
from nst_lightning.optim import LBFGS
from nst_lightning.optim.curvature import Curvature
from nst_lightning.planning.memory import SIZES, Plan
from nst_lightning.planning.planner import Planner, Scope


class StagedModule(ImageModule):
    """An image that is optimised stage by stage.

    Args:
        objective: Terms and weights.
        extractor: The network of stages that have none of their own.
        draft: The network that begins a run of the default stages, or None.
        schedule: Evaluations and stages as they were asked for.
        optimizers: Builds the optimiser of each stage.
        memory: GiB that the process may take; None: all that is free.
        tile: Side of the tiles, ``auto``, or None for none.

    Attributes:
        stages: Coarse to fine; those by default depend on the size, and are known when the data is.
        evaluator: Of the present stage.
    """

    def __init__(
        self,
        objective: Objective,
        extractor: Extractor,
        draft: Extractor | None,
        schedule: tuple[int | None, list[Stage] | None],
        optimizers: OptimizerSetup,
        memory: float | None,
        tile: int | Literal["auto"] | None,
    ) -> None:
        super().__init__(objective)
        self.extractor = extractor
        self.draft = _with_layers(draft, objective)
        self._schedule, self._optimizers = schedule, optimizers
        self.memory, self.tile = memory, tile
        self.stages = make_schedule(*schedule, draft=self.draft)
        for network in self._extractors():
            network.check_layers(objective.layers, argument="model.terms")
            network.use_layers(objective.layers)
        self._rescaled: dict[Extractor, Extractor] = {}  # networks as this run's pictures scale them
        self.evaluator: Evaluator | None = None
        self._planner: Planner | None = None
        self._planned = 0  # the stage that the next optimiser is for
        self._batch: StageBatch | None = None  # the present stage
        self._left: int | None = None  # the stage that a checkpoint's image and optimiser belong to

    @property
    def total_evaluations(self) -> int:
        """Evaluations over all stages; the trainer's max_steps may cut the run short."""
        return sum(stage.evaluations for stage in self.stages)

    @property
    def current_stage(self) -> int:
        """Index of the stage being run."""
        return 0 if self._batch is None else self._batch.stage

    @property
    def plans(self) -> list[Plan]:
        """How each stage is evaluated; empty before a fit."""
        return [] if self._planner is None else self._planner.plans

    @property
    def planner(self) -> Planner:
        """What the run will take; a UserError before any fit."""
        if self._planner is None:
            raise UserError("model: needs a fit first, got none yet; call trainer.fit(model, datamodule=data)")
        return self._planner

    @property
    def is_short_of_memory(self) -> bool:
        """Whether this stage does with less than it was asked for."""
        return bool(self.plans and self.plans[self.current_stage].choice)

    def extractor_of(self, stage: Stage) -> Extractor:
        """The network of a stage."""
        return self.extractor if stage.extractor is None else stage.extractor

    def _extractors(self) -> list[Extractor]:
        """The networks of all stages."""
        return [self.extractor_of(stage) for stage in self.stages]

    def check(self, data: StyleTransferData) -> None:
        """Settle stages and regions for these pictures, and refuse what cannot work with them, before any work.

        Raises:
            UserError: If a content term has no content, an image is too small for the deepest layer, or a mask leaves a
                term nothing.
        """
        needs = next((p.name for p in self.objective.parts if p.term.group == "content" and p.term.weight > 0), None)
        if data.content_path is None and needs is not None:
            raise UserError(
                f"data.content: must name a picture for the term {needs}, got null; give one, or leave that term out "
                "of model.terms, as the preset texture does"
            )
        least = max(self.objective.least_side(network.strides) for network in self._extractors())
        sides = max(data.stage_size()), min(data.stage_size())
        self.stages = make_schedule(*self._schedule, *sides, least, self.draft, data.request.starts_from_nothing)
        data.schedule(self.stages, least)
        self.objective = self.objective.divided(data.request.regions)
        for stage in self.stages:
            sizes = {"data.size": data.stage_size(stage.scale)}
            sizes |= {
                f"data.style ({s.path})": n for s, n in zip(data.styles, data.style_sizes(stage.scale), strict=True)
            }
            self.objective.check_sizes(sizes, self.extractor_of(stage))
            masks = data.masks(stage.scale)
            if masks is not None:
                self.objective.check_masks(masks, data.request.shares, self.extractor_of(stage))

    def _plan(self) -> Planner:
        """Plans for all stages."""
        device, free = self.trainer.strategy.root_device, _free_memory(self.trainer, self.memory)
        return plan_for(self, self._data, free, resident_memory(device), self.trainer.world_size, device)

    def _enter_stage(self, batch: StageBatch) -> None:
        """Bring the image to the size of a stage and make its targets."""
        index, before = batch.stage, None if self._batch is None else self._batch.stage
        if index == before:
            return
        other_stage = any(stage not in {None, index} for stage in (before, self._left))
        # Before the pictures of the next stage are made: what the last one has left may be as large as that will be.
        known = self._leave_stage(index) if other_stage else None
        images = batch.images().to(self.image)
        if anew := other_stage or self.image.shape != images.content.shape:
            known = known if other_stage else self._leave_stage(index)
            self.image = nn.Parameter(self._resized_to(images.content).contiguous())
            self.trainer.strategy.setup_optimizers(self.trainer)
            begun = self.trainer.optimizers[0]
            if isinstance(begun, LBFGS):
                begun.begin_with(known)
            self._step_on()
            hand_back_freed_memory()
        self._batch = batch
        self._begin_stage(anew)
        self._make_evaluator(images, self.plans[index].tile, self.plans[index].keep)

    def _leave_stage(self, following: int) -> Curvature | None:
        """Give up what the next stage does not need, and return what its optimiser begins with."""
        self._planned = following
        self.settle()
        ended = self.trainer.optimizers[0]
        known = ended.curvature() if isinstance(ended, LBFGS) else None
        forget_recordings(self)
        ended.state.clear()  # the rest of what it knew is of another size, and may be large
        self.evaluator = self._start = self.image.grad = None
        hand_back_freed_memory()
        return known

    def _make_evaluator(self, images: StageImages, tile: int | None, stored_tiles: int = 0) -> None:
        """Evaluate in tiles or whole from now on."""
        processes = ProcessGroup() if self.trainer.world_size > 1 else None
        given = self.extractor_of(self.stages[self.current_stage]).to(self.device)
        network = self._network(given)
        self.evaluator = None  # what it holds is not needed any more
        evaluator = Evaluator(self.objective, network, tile, stored_tiles, processes)
        known = self.style_targets if images.masks is None and network is given else None
        styles = images.styles if known is None else known(evaluator, images.styles)
        evaluator.prepare(images.content, styles, images.masks, self._start)
        if shares_memory(self.device):
            hand_back_freed_memory()  # maps of pictures of other sizes leave holes that those of the image do not fit
        self.evaluator = evaluator

    def _network(self, given: Extractor) -> Extractor:
        """A network, rescaled to the pictures of the first stage that uses it if it asks for unit activations."""
        if not given.unit_activations:
            return given
        if given not in self._rescaled:
            first = self._extractors().index(given)
            images = self._data.stage_images(self.stages[first].scale).to(self.image)
            # In that stage's tiles, wherever the run goes on from: another way of summing has other last bits.
            walk = Traversal(self.objective, given, self.plans[first].tile).walk
            self._rescaled[given] = given.rescaled([images.content, *(style for style, _ in images.styles)], walk)
        return self._rescaled[given]

    def _use_smaller_tiles(self) -> None:
        """Answer to a lack of memory; raises a UserError if that is no answer."""
        height, width = self.image.shape[-2:]
        tile = None if self.evaluator is None else self.evaluator.tile
        now = tile or max(height, width)
        smaller = next((side for side in SIZES if side < now), None)
        if self.tile != "auto" or smaller is None or not self.objective.layers or self._batch is None:
            group = self.trainer.optimizers[0].param_groups[0]
            raise _ran_out(group, (height, width), tile, smaller)
        notice(f"memory ran out; going on in tiles of {smaller} px")
        hand_back_freed_memory()
        if self._planner is not None:
            self._planner.retile(self.current_stage, smaller)
        self._make_evaluator(self._batch.images().to(self.image), smaller)

    def forward(self, image: Tensor) -> Evaluation:
        """Evaluate an image as a training step does.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1], at the stage's size.

        Raises:
            UserError: Before any fit.
        """
        if self.evaluator is None:
            raise UserError("model: needs a fit first, got none yet; call trainer.fit(model, datamodule=data)")
        return self.evaluator(image)


def _with_layers(draft: Extractor | None, objective: Objective) -> Extractor | None:
    """A draft that has all layers of an objective; None if there is none."""
    if draft is None:
        return None
    try:
        draft.check_layers(objective.layers, argument="model.draft")
    except UserError as error:
        notice(f"{error}; going on without a draft, which takes longer")
        return None
    return draft


def find_regions(module: StagedModule) -> None:
    """Find the regions that the data asks for, through the first stage's network, wherever a run goes on from."""
    with without_autocast(module.device):
        module._data.find_regions(module.extractor_of(module.stages[0]).to(module.device), module.device)


def forget_recordings(module: StagedModule) -> None:
    """Give up what a GPU would replay: its memory goes with it."""
    for optimizer in module.trainer.optimizers:
        if isinstance(optimizer, LBFGS):
            optimizer.forget_recordings()
    if module.evaluator is not None:
        module.evaluator.forget_recordings()


def plan_for(
    module: StagedModule,
    data: StyleTransferData,
    available: int,
    resident: int,
    processes: int = 1,
    device: torch.device | str = "cpu",
) -> Planner:
    """What a run with these pictures, which `StagedModule.check` has seen, would take; nothing of the module changes.

    Args:
        module: What runs.
        data: The pictures.
        available: Free bytes on the device.
        resident: Bytes that the process has taken already.
        processes: How many share the tiles.
        device: Where it runs.

    Raises:
        UserError: If a stage does not fit.
    """
    scopes = [Scope(s.evaluations, data.stage_size(s.scale), module.extractor_of(s)) for s in module.stages]
    optimizer = module._optimizers.optimizer
    own = bytes_there([x for n in module._extractors() for x in n.parameters()], device)  # plans count them, too
    resident, available = max(0, resident - own), available + own
    room = (available, resident, processes, supply(device))
    return Planner(module.objective, optimizer, scopes, module.tile, *room, transparent=data.content.alpha is not None)


def _ran_out(group: Mapping[str, Any], size: tuple[int, int], tile: int | None, smaller: int | None) -> UserError:
    """What is said if memory runs out where no smaller tiles may be taken; the group is the optimiser's."""
    stage = f"{size[1]}x{size[0]} px" + (f" in tiles of {tile} px" if tile is not None else "")
    history = f"a history of {group['history_size']} pairs" if "history_size" in group else "this optimiser"
    return UserError(
        f"memory: ran out at {stage} with {history}; set model.tile to {smaller or 'auto'}, "
        "model.optimizer.history_dtype to bfloat16, or data.size lower"
    )


def _free_memory(trainer: Trainer, limit: float | None) -> int:
    """Bytes that each process can take, of so many GiB in all; the same number for all, so that they plan alike."""
    device = trainer.strategy.root_device
    free = free_within(limit, device)
    free //= trainer.num_devices if shares_memory(device) else 1
    if trainer.world_size == 1:
        return free
    shared = torch.tensor(free / 2**20, device=device, dtype=torch.float32)
    return int(cast("Tensor", trainer.strategy.reduce(shared, reduce_op="min"))) * 2**20
