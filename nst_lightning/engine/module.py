"""The LightningModule: the image is its only parameter."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Optional, Union, cast

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar, TQDMProgressBar, WeightAveraging
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nst_lightning.data.module import StyleTransferData
from nst_lightning.data.schedule import Stage, make_schedule
from nst_lightning.data.stage_images import StageImages
from nst_lightning.engine.loggers import Logs
from nst_lightning.engine.process import ProcessSettings
from nst_lightning.engine.refusals import (
    check_monitor,
    check_monitors,
    check_optimizer,
    check_trainer,
    check_unbuilt_optimizer,
)
from nst_lightning.engine.restart import begin_anew, limit_epochs
from nst_lightning.engine.stopping import LookEarly
from nst_lightning.engine.trainer import check_processes
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.features import VGG19, Extractor
from nst_lightning.hardware.accelerator import choose_precision, compute_dtype, describe
from nst_lightning.hardware.memory import (
    free_memory,
    hand_back_freed_memory,
    is_out_of_memory,
    resident_memory,
)
from nst_lightning.hardware.numerics import random_states, set_random_states
from nst_lightning.images.resize import resize, target_size
from nst_lightning.losses import Term
from nst_lightning.objective.collective import ProcessGroup
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Evaluation, Objective, default_terms
from nst_lightning.objective.traversal import Traversal
from nst_lightning.optim import LBFGS
from nst_lightning.optim.modes import has_modes, showing_result, to_result, to_stepping
from nst_lightning.planning.memory import SIZES, Plan
from nst_lightning.planning.planner import Planner, Scope
from nst_lightning.runs.checkpoint import ENDED, FACTS, LOSSES, RANDOM, SETTINGS, add_new_settings
from nst_lightning.runs.counters import next_position, set_position, written_at
from nst_lightning.runs.facts import make_facts
from nst_lightning.runs.limits import Reached, limited, renew

AVERAGED = "current_model_state"  # where Lightning's averages keep the image in a checkpoint that holds the average
STEPPED_FROM = "stepped_from"  # where a checkpoint keeps the image that a schedule-free optimiser goes on from

SMALLEST_TILE = 64  # pixels; smaller ones would be nearly all halo


class StyleTransfer(LightningModule):
    """Optimise an image so that its features have the content of one picture and the statistics of another.

    One training step is one evaluation of loss and gradient, handed to the optimiser as its closure; one epoch is one
    stage of the schedule. The trainer needs a `StyleTransferData` as its data module.

    Args:
        evaluations: Evaluations of a run of one stage at full size, or of all given stages together, which keep their
            shares; leave it out for the default stages.
        stages: Stages (evaluations, scale, extractor), coarse to fine, each an epoch; by default sizes double from 256
            px on, and evaluations halve from 200.
        strength: Style against content: factor on all style terms.
        terms: The objective's terms; by default a balanced Content and Gram.
        extractor: The frozen network; by default VGG-19.
        optimizer: Callable that takes the parameters; L-BFGS by default, Adam works too.
        lr_scheduler: Callable that takes the optimiser; it changes the rate after each evaluation, and begins anew with
            each stage. One that waits for a plateau looks at the loss.
        memory: GiB that the process may take in all; by default all that is free.
        tile: Side in pixels of the tiles that an image is evaluated in, for bounded memory and the same result; auto
            takes the whole image where it fits into the free memory, and else the largest tiles that do; null never.

    Attributes:
        configuration: The run's whole configuration in YAML, for its checkpoints; the command line sets it.
        ends_where_stopped: Whether a checkpoint at which a callback ended the run is its end, and not a place to go on
            from; the command line sets it where the picture is yet to be written.
    """

    def __init__(
        self,
        evaluations: int | None = None,
        stages: list[Stage] | None = None,
        strength: float = 1.0,
        terms: list[Term] | None = None,
        extractor: Extractor | None = None,
        optimizer: OptimizerCallable = LBFGS,
        lr_scheduler: Optional[LRSchedulerCallable] = None,
        memory: float | None = None,
        tile: Union[int, Literal["auto"], None] = "auto",  # noqa: UP007 - jsonargparse reads it on Python 3.10
    ) -> None:
        super().__init__()
        # Objects stay out of the checkpoint, which holds data only; the command line adds their configuration.
        self.save_hyperparameters(ignore=["stages", "terms", "extractor", "optimizer", "lr_scheduler"])
        if isinstance(tile, int) and tile < SMALLEST_TILE:
            raise UserError(f"model.tile: must be auto, null or at least {SMALLEST_TILE} px, got {tile}")
        if memory is not None and not memory > 0:
            raise UserError(f"model.memory: must be above 0 GiB, got {memory}; leave it out for all that is free")
        self.tile, self.memory = tile, memory
        self._schedule = evaluations, stages
        self.stages = make_schedule(evaluations, stages)
        self.objective = Objective(terms if terms is not None else default_terms(), strength)
        self.extractor = extractor if extractor is not None else VGG19()
        for network in self._extractors():
            network.check_layers(self.objective.layers, argument="model.terms")
            network.use_layers(self.objective.layers)
        self._rescaled: dict[Extractor, Extractor] = {}  # networks as this run's pictures scale them
        self.evaluator: Evaluator | None = None
        self.plans: list[Plan] = []
        self._resident = 0  # bytes that the process had taken when they were made
        self.configuration, self.ends_where_stopped = "", False
        self._facts: dict[str, Any] = {}
        self._random: dict[str, Tensor] = {}  # of a checkpoint that is to be continued
        self._losses: dict[str, Tensor] = {}  # likewise
        self.image = nn.Parameter(torch.zeros(1, 3, 16, 16))  # takes its size when the data is known
        self._has_picture = False
        self._pictures: StyleTransferData | None = None  # of this model's latest fit; the trainer may go on to others
        self.evaluation: Evaluation | None = None
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self._planned = 0  # the stage that the next optimiser is for
        self._built()  # a wrong argument is found now, not after the pictures are read
        self._stage: int | None = None
        self._reached: Reached | None = None  # the trainer's limit that a checkpoint is at
        self._left: int | None = None  # the stage that a checkpoint's image and optimiser belong to
        self._has_size = False  # whether the image has the size of the run that is about to begin
        self._stepping = False  # whether the optimiser holds the point that it steps from, not its result
        self.register_load_state_dict_post_hook(_miss_no_network)  # type: ignore[no-untyped-call]

    @property
    def total_evaluations(self) -> int:
        """Evaluations over all stages; the trainer's max_steps may cut the run short."""
        return sum(stage.evaluations for stage in self.stages)

    @property
    def current_stage(self) -> int:
        """Index of the stage being run."""
        return self._stage or 0

    def picture(self, longest: int | None = None) -> Tensor:
        """The picture as it is now, float32 on the CPU, in [0, 1], in the colours that the data asks for.

        Args:
            longest: Longest side in pixels that a larger image is scaled down to.

        Returns:
            (1, 3, H, W), at most at the stage's size.

        Raises:
            UserError: Before any fit.
        """
        self._require_picture()
        with self.showing_result():
            image = self.image.detach().float()
            height, width = image.shape[-2:]
            if longest is not None and max(height, width) > longest:
                image = resize(image, target_size(height, width, longest))
            return self._finished(image)

    def final_picture(self, extended: bool = False) -> Tensor:
        """The picture at the run's own size, also when the run was cut short at a coarser stage; else as `picture`.

        Args:
            extended: Keep values beyond [0, 1], which a wider colour space than sRGB may hold.
        """
        self._require_picture()
        if tuple(self.image.shape[-2:]) == self._data.stage_size():
            with self.showing_result():
                return self._finished(self.image.detach().float(), extended)
        content = self._data.stage_images().content.to(self.image)
        with self.showing_result():
            return self._finished(self._carried_to(content).float(), extended)

    @contextlib.contextmanager
    def showing_result(self) -> Iterator[None]:
        """Hold what the optimiser means to be seen, for a while; a schedule-free one steps from another image."""
        if not self._stepping:
            yield
            return
        with showing_result(self.trainer.optimizers[0], self.image):
            yield

    def settle(self) -> None:
        """Keep what the optimiser means to be seen: a stage has ended."""
        if self._stepping:
            to_result(self.trainer.optimizers[0])
            self._stepping = False

    def _step_on(self) -> None:
        """Let the optimiser step from here."""
        for optimizer in self.trainer.optimizers:
            to_stepping(one_evaluation_per_step(optimizer))
        self._stepping = bool(self.trainer.optimizers)

    def _require_picture(self) -> None:
        if not self._has_picture:
            raise UserError("picture: needs a fit, got none yet; call trainer.fit(model, datamodule=data) first")

    def _finished(self, image: Tensor, extended: bool = False) -> Tensor:
        """An image as it is to be seen: clamped, on the CPU, in the colours asked for."""
        image = image.cpu() if extended else image.clamp(0, 1).cpu()
        return image if self._pictures is None else self._pictures.finished(image, extended)

    def check(self, data: StyleTransferData) -> None:
        """Refuse what cannot work with these pictures, before any work.

        Raises:
            UserError: If an image is too small for the deepest layer, or needs more memory than there is.
        """
        needs = next((p.name for p in self.objective.parts if p.term.group == "content" and p.term.weight > 0), None)
        if data.content_path is None and needs is not None:
            raise UserError(
                f"data.content: must name a picture for the term {needs}, got null; give one, or leave that term out "
                "of model.terms, as the preset texture does"
            )
        least = max(self.objective.least_side(network.strides) for network in self._extractors())
        self.stages = make_schedule(*self._schedule, max(data.stage_size()), min(data.stage_size()), least)
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

    @property
    def _data(self) -> StyleTransferData:
        if self._pictures is not None:
            return self._pictures
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, StyleTransferData):
            raise UserError(
                f"datamodule: must be a StyleTransferData, got {type(data).__name__}; pass it to trainer.fit"
            )
        return data

    def configure_callbacks(self) -> list[Callback]:
        """Begin a fit: the image has its size before callbacks see it, losses their loggers; see LightningModule."""
        trainer, data = self.trainer, getattr(self.trainer, "datamodule", None)
        if trainer.state.fn == "fit":
            begin_anew(trainer, self)
        if trainer.state.fn != "fit" or not isinstance(data, StyleTransferData):
            return []  # `setup` says what is wrong
        check_trainer(trainer)
        self.check(data)
        check_monitors(trainer.callbacks, self.objective.loss_names)  # type: ignore[attr-defined]
        data.setup("fit")
        self.image = nn.Parameter(data.start_image(self.stages[0].scale))
        self._has_size = True
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            # An epoch is a stage: who does not ask for its end means to look at every evaluation.
            if isinstance(callback, EarlyStopping) and callback._check_on_train_epoch_end is None:
                callback._check_on_train_epoch_end = False
        given = trainer.callbacks  # type: ignore[attr-defined]
        brought: list[Callback] = [ProcessSettings(), *([Logs()] if trainer.loggers else [])]
        brought += [LookEarly()] if any(isinstance(callback, EarlyStopping) for callback in given) else []
        return [own for own in brought if not any(isinstance(callback, type(own)) for callback in given)]

    def setup(self, stage: str) -> None:
        """Check the trainer's settings, set its limits and give the image its size; see LightningModule."""
        if stage != "fit":
            raise UserError(f"trainer: style transfer has only fit, got {stage}; use trainer.fit")
        trainer = self.trainer
        self._pictures = None  # those of an earlier fit
        self._pictures = self._data
        check_trainer(trainer)
        check_processes(trainer)
        choose_precision(trainer.precision, describe(self.trainer.strategy.root_device.type))
        self.check(self._data)
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]  # stages differ in length
        limit_epochs(trainer, len(self.stages))
        self._stage = self._left = None
        self._random, self._losses, self._reached = {}, {}, None  # of an earlier fit
        self.evaluation = self.evaluator = None
        self._rescaled.clear()
        self._facts = self.facts(self._data)
        for extractor in self._extractors():
            extractor.set_compute_dtype(compute_dtype(str(trainer.precision)))
        self._planned = 0
        self._planner = self._make_planner()
        self.plans = self._planner.plans(self.tile, self._free_memory(), trainer.world_size)
        self._resident = resident_memory(trainer.strategy.root_device.type)
        if not self._has_size:  # a subclass may have callbacks of its own
            self.image = nn.Parameter(self._data.start_image(self.stages[0].scale))
        self._has_size = self._stepping = False
        self._has_picture = True

    def teardown(self, stage: str) -> None:
        """Hand back what the run has used and freed; see LightningModule."""
        hand_back_freed_memory()

    def _free_memory(self) -> int:
        """Bytes that each process can take; the same number for all, so that they plan alike."""
        strategy = self.trainer.strategy
        kind = strategy.root_device.type
        free = free_memory(kind)
        if self.memory is not None:
            free = min(free, max(0, int(self.memory * 2**30) - resident_memory(kind)))
        free //= self.trainer.num_devices if kind == "cpu" else 1
        if self.trainer.world_size == 1:
            return free
        shared = torch.tensor(free / 2**20, device=strategy.root_device, dtype=torch.float32)
        return int(cast("Tensor", strategy.reduce(shared, reduce_op="min"))) * 2**20

    def _extractors(self) -> list[Extractor]:
        """The networks of all stages."""
        return [self.extractor_of(stage) for stage in self.stages]

    def extractor_of(self, stage: Stage) -> Extractor:
        """The network of a stage."""
        return self.extractor if stage.extractor is None else stage.extractor

    def _make_planner(self) -> Planner:
        scopes = [Scope(s.evaluations, self._data.stage_size(s.scale), self.extractor_of(s)) for s in self.stages]
        return Planner(self.objective, self._optimizer, scopes)

    @property
    def is_short_of_memory(self) -> bool:
        """Whether this stage does with less than it was asked for."""
        return bool(self.plans and self.plans[self.current_stage].choice)

    def history_of(self, plan: Plan) -> int:
        """Pairs that L-BFGS keeps under a plan that leaves it less than was asked for."""
        return int(self._planner.histories[plan.choice]["history_size"])

    def planned_memory(self) -> int:
        """Bytes that the process will have taken at its peak, with what it holds already; 0 if that is not known."""
        planned = max((plan.memory for plan in self.plans), default=0)
        return planned + self._resident if planned else 0

    def estimated_seconds(self) -> float:
        """About how long all stages will take on this device, measured on a small image."""
        return self._planner.seconds(self.plans, self.device)

    def checkpoint_bytes(self) -> int:
        """Size of the largest checkpoint of this run."""
        return self._planner.checkpoint_bytes(self.plans)

    def on_train_start(self) -> None:
        """Take targets when a run resumes in the middle of a stage, and its chance; see LightningModule."""
        if len(self.trainer.optimizers) != 1:
            raise UserError(
                f"configure_optimizers: must give one optimiser, got {len(self.trainer.optimizers)}; there is one image"
            )
        self._step_on()
        self._enter_stage(self.trainer.current_epoch)
        self.trainer.callback_metrics.update(self._losses)  # for who looks at them where a stage ends
        set_random_states(self._random, self.device)

    def on_train_epoch_start(self) -> None:
        """Take targets at the start of a stage; see LightningModule."""
        self._enter_stage(self.trainer.current_epoch)

    def _enter_stage(self, index: int) -> None:
        if index == self._stage or index >= len(self.stages):
            return
        images = self._data.stage_images(self.stages[index].scale)
        content = images.content.to(self.image)
        anew = not {self._stage, self._left} <= {None, index} or self.image.shape != content.shape
        if anew:
            self._planned = index
            self.settle()
            before = self.trainer.optimizers[0]
            known = before.curvature() if isinstance(before, LBFGS) else None
            before.state.clear()  # the rest of what it knew is of another size, and may be large
            self.image = nn.Parameter(self._carried_to(content).contiguous())
            self.trainer.strategy.setup_optimizers(self.trainer)
            after = self.trainer.optimizers[0]
            if isinstance(after, LBFGS):
                after.begin_with(known)
            self._step_on()
            hand_back_freed_memory()
        self._stage = index
        if anew:
            self._begin_averages()
        self._take_targets(content, images, self.plans[index].tile, self.plans[index].keep)

    def _begin_averages(self) -> None:
        """Let Lightning's averages begin anew with an image of another size."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.setup(self.trainer, self, "fit")

    def _take_targets(self, content: Tensor, images: StageImages, tile: int | None, keep: int = 0) -> None:
        """Take the targets whole or in tiles, and evaluate so from now on."""
        team = ProcessGroup() if self.trainer.world_size > 1 else None
        given = self.extractor_of(self.stages[self.current_stage]).to(self.device)
        network = self._network(given, tile)
        self.evaluator = None  # what it holds is not needed any more
        self.evaluator = Evaluator(self.objective, network, tile, keep, team)
        masks = None if images.masks is None else images.masks.to(self.image)
        self.evaluator.prepare(content, [(style.to(self.image), share) for style, share in images.styles], masks)

    def _network(self, given: Extractor, tile: int | None) -> Extractor:
        """A network as the pictures of the first stage that looks through it scale it, if it is to be scaled."""
        if not given.unit_activations:
            return given
        if given not in self._rescaled:
            first = next(stage for stage in self.stages if self.extractor_of(stage) is given)
            images = self._data.stage_images(first.scale)
            pictures = [images.content, *(style for style, _ in images.styles)]
            walk = Traversal(self.objective, given, tile).walk
            self._rescaled[given] = given.rescaled([picture.to(self.image) for picture in pictures], walk)
        return self._rescaled[given]

    def forward(self, image: Tensor) -> Evaluation:
        """Evaluate an image as a training step does.

        Args:
            image: (1, 3, H, W), RGB, nominally in [0, 1], at the stage's size.

        Raises:
            UserError: Before any fit.
        """
        if self.evaluator is None:
            raise UserError(
                "model: needs a fit to compare with, got none yet; call trainer.fit(model, datamodule=data)"
            )
        return self.evaluator(image)

    @torch.no_grad()
    def _carried_to(self, content: Tensor) -> Tensor:
        """The image at the size of a content image (1, 3, H, W)."""
        size = (content.shape[-2], content.shape[-1])
        image = self.image.detach()
        if tuple(image.shape[-2:]) == size:
            return image
        if not self.objective.keeps_content:
            return resize(image, size)
        # Only the change is enlarged: the content brings its own detail at the new size.
        previous = resize(content, (image.shape[-2], image.shape[-1]))
        return resize(image - previous, size).add_(content)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Evaluate: the weighted loss of the image as it is, a scalar; see LightningModule."""
        if (
            self.evaluator is not None and self.evaluator.tile is not None
        ):  # Lightning would keep the last gradient until the new one is there
            self.image.grad = None
        self.evaluation = self._evaluated()
        loss = self.evaluation.loss
        if self._trainer is not None and self.trainer.training:  # a call from elsewhere has nowhere to log to
            # What callbacks and schedulers monitor, without the millisecond that logging takes.
            self.trainer.callback_metrics.update(self.objective.losses(self.evaluation))
            if isinstance(self.trainer.progress_bar_callback, (TQDMProgressBar, RichProgressBar)):
                self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=1)
        return loss

    def on_train_epoch_end(self) -> None:
        """Keep the stage's result; see LightningModule."""
        self.settle()
        if self._reached is not None:
            self._reached.put_back(self.trainer)
            self._reached = None

    def _evaluated(self) -> Evaluation:
        """Evaluate, in smaller tiles if memory runs out and tiles are left to us."""
        while True:
            try:
                return self(self.image)  # type: ignore[no-any-return]
            except RuntimeError as error:
                self._take_smaller_tiles(error)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradient, in smaller tiles if memory runs out; see LightningModule."""
        try:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            self._take_smaller_tiles(error)
            self.image.grad = None
            self.evaluation = self._evaluated()
            self.evaluation.loss.backward()  # type: ignore[no-untyped-call]
        if self._trainer is not None and self._data.is_grey and self.image.grad is not None:
            # From a grey start all steps stay among greys, as the direction of the steepest of them is this one.
            self.image.grad.copy_(self.image.grad.mean(1, keepdim=True))

    def _take_smaller_tiles(self, error: RuntimeError) -> None:
        """Answer to a lack of memory; raises what it was if that is no answer."""
        if not is_out_of_memory(error):
            raise error
        height, width = self.image.shape[-2:]
        tile = None if self.evaluator is None else self.evaluator.tile
        now = tile or max(height, width)
        smaller = next((side for side in SIZES if side < now), None)
        if self.tile != "auto" or smaller is None or not self.objective.layers:
            stage = f"{width}x{height} px" + (f" in tiles of {now} px" if tile is not None else "")
            raise UserError(
                f"memory: ran out at {stage} with {self._history_in_words()}; set model.tile to {smaller or 'auto'}, "
                "model.optimizer.history_dtype to bfloat16, or data.size lower"
            ) from None
        warnings.warn(f"memory ran out; going on in tiles of {smaller} px", UserNotice, stacklevel=2)
        hand_back_freed_memory()
        images = self._data.stage_images(self.stages[self.current_stage].scale)
        self._take_targets(images.content.to(self.image), images, smaller)

    def _history_in_words(self) -> str:
        group = self.trainer.optimizers[0].param_groups[0]
        return f"a history of {group['history_size']} pairs" if "history_size" in group else "this optimiser"

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Settings of the optimiser, as a new one has them."""
        optimizer = optimizer_in(self.configure_optimizers())
        return [] if optimizer is None else optimizer.param_groups

    def configure_optimizers(self) -> Any:
        """Build the optimiser, and what changes its rate; see LightningModule."""
        return self._built()

    def _built(self) -> Any:
        try:
            optimizer = self._optimizer([self.image])
        except (TypeError, ValueError, UserError) as error:
            check_unbuilt_optimizer(error)
            raise UserError(f"model.optimizer: {error}") from None
        check_optimizer(type(optimizer))
        if self.plans:
            optimizer.param_groups[0].update(self._planner.histories[self.plans[self._planned].choice])
        one_evaluation_per_step(optimizer)
        if self._lr_scheduler is None:
            return optimizer
        try:
            scheduler = self._lr_scheduler(optimizer)
        except (TypeError, ValueError) as error:
            raise UserError(f"model.lr_scheduler: {error}") from None
        monitor = getattr(scheduler, "monitor", "loss")
        check_monitor("model.lr_scheduler.monitor", monitor, self.objective.loss_names)
        # Lightning would step one that waits for a plateau after checkpoints are written; see `lr_scheduler_step`.
        step = {"scheduler": scheduler, "interval": "step", "monitor": monitor, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": step}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Change the rate after an evaluation, by its loss if need be; see LightningModule."""
        if metric is None and isinstance(scheduler, ReduceLROnPlateau):
            metric = self.trainer.callback_metrics[getattr(scheduler, "monitor", "loss")]
        super().lr_scheduler_step(scheduler, metric)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs, such as an average's: nothing of the run, whose loss hangs on the graph; see pickle."""
        return {
            **super().__getstate__(),
            "evaluation": None,
            "evaluator": None,
            "_rescaled": {},
            "_planner": None,
            "_pictures": None,
        }

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The image and what terms keep, without the frozen network; see torch.nn.Module."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        for key in [key for key in state if is_of_network(key)]:
            del state[key]
        return state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run is checked against, and what auto chose; see LightningModule."""
        plans = [[plan.tile, plan.keep, plan.choice] for plan in self.plans]
        checkpoint[FACTS] = {**self._facts, "plans": plans, "precision": str(self.trainer.precision)}
        if self._stepping and has_modes(self.trainer.optimizers[0]) and AVERAGED not in checkpoint:
            checkpoint[STEPPED_FROM] = self.image.detach().clone()
            with self.showing_result():
                checkpoint["state_dict"]["image"] = self.image.detach().clone()
        checkpoint[RANDOM] = random_states(self.device)
        if self.evaluation is not None:
            checkpoint[LOSSES] = self.objective.losses(self.evaluation)
        if self.configuration:
            checkpoint[SETTINGS] = self.configuration

    def facts(self, data: StyleTransferData) -> dict[str, Any]:
        """What a checkpoint of a run with these pictures says of their files, the weights and the stages."""
        origins = [extractor.origin for extractor in self._extractors()]
        return make_facts(data.request.files, origins, [stage.evaluations for stage in self.stages])

    def _take_plans(self, saved: Sequence[Sequence[Any]]) -> None:
        """Go on with the tiles and histories that auto chose then, so that the result is the same to the last bit."""
        if self.tile == "auto" and self.memory is None and len(saved) == len(self.plans):
            self.plans = [
                plan._replace(tile=tile, keep=keep, choice=choice)
                for plan, (tile, keep, choice) in zip(self.plans, saved, strict=True)
            ]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the image the size it has in the checkpoint; see LightningModule."""
        self._take_plans(checkpoint.get(FACTS, {}).get("plans", []))
        self._random, self._losses = checkpoint.get(RANDOM, {}), checkpoint.get(LOSSES, {})
        saved = checkpoint["state_dict"]["image"]
        if self._trainer is not None and STEPPED_FROM in checkpoint:
            saved = checkpoint["state_dict"]["image"] = checkpoint[STEPPED_FROM]
        changed = saved.shape != self.image.shape
        self.image = nn.Parameter(torch.empty_like(saved, device=self.image.device))
        self._has_picture = True
        if self._trainer is None:  # loaded for its picture, not to go on
            return
        if changed:
            self._begin_averages()
        self._left = self._planned = min(written_at(checkpoint).stage, len(self.stages) - 1)
        add_new_settings(checkpoint, self.parameter_groups())
        planned = limited([stage.evaluations for stage in self.stages], self.trainer.limit_train_batches)
        stopped = self.ends_where_stopped and checkpoint.get(ENDED, False)
        self._reached = Reached.of(self.trainer, checkpoint, planned, stopped)
        if self._reached is not None:
            planned = self._reached.planned
        set_position(checkpoint, next_position(checkpoint, planned), planned)
        renew(checkpoint, self.trainer.callbacks)  # type: ignore[attr-defined]


def _miss_no_network(_: nn.Module, keys: Any) -> None:
    """Let a state dict load that lacks the frozen network, as all of `StyleTransfer.state_dict` do."""
    keys.missing_keys[:] = [key for key in keys.missing_keys if not is_of_network(key)]


def is_of_network(key: str) -> bool:
    """Whether an entry of a state dict belongs to the frozen network."""
    return key.startswith("extractor.") or ".extractor." in key


def optimizer_in(configured: Any) -> Optimizer | None:
    """The first optimiser in what a module's `configure_optimizers` returns."""
    if isinstance(configured, Mapping):
        return optimizer_in(configured.get("optimizer"))
    if isinstance(configured, Sequence):
        return optimizer_in(configured[0]) if configured else None
    return configured if isinstance(configured, Optimizer) else None


def one_evaluation_per_step(optimizer: Optimizer) -> Optimizer:
    """Make one step one evaluation, so that the trainer's steps, metrics and checkpoints mean evaluations.

    ``torch.optim.LBFGS`` runs up to 25 evaluations in a step by default; thirty steps of one are bitwise the same
    as one step of thirty. Its absolute tolerances, which would stop a loss of another scale, are switched off.

    Raises:
        UserError: For a line search, which cannot work with one evaluation.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        for group in optimizer.param_groups:
            if group["line_search_fn"] is not None:
                raise UserError(
                    f"model.optimizer.line_search_fn: must be null, got {group['line_search_fn']}; a step is one "
                    "evaluation, which leaves a line search none"
                )
            group.update(max_iter=1, max_eval=1, tolerance_grad=-1.0, tolerance_change=-1.0)
    return optimizer
