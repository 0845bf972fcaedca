"""The LightningModule: the image is its only parameter."""

from __future__ import annotations

from typing import Any, Literal, Optional, Union

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nst_lightning.data.loader import StageBatch
from nst_lightning.data.module import StyleTransferData
from nst_lightning.data.schedule import Stage
from nst_lightning.engine.compat import has_trainer, look_at_each_evaluation
from nst_lightning.engine.ledger import Ledger
from nst_lightning.engine.loggers import Logs
from nst_lightning.engine.optimizers import OptimizerSetup
from nst_lightning.engine.process import ProcessSettings
from nst_lightning.engine.refusals import check_monitors, check_trainer
from nst_lightning.engine.restart import begin_anew, limit_epochs
from nst_lightning.engine.resuming import ResumableModule
from nst_lightning.engine.stages import find_regions, forget_recordings
from nst_lightning.engine.stopping import LookEarly
from nst_lightning.engine.trainer import check_processes
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, Extractor
from nst_lightning.hardware.accelerator import choose_precision, compute_dtype, describe
from nst_lightning.hardware.memory import hand_back_freed_memory, is_out_of_memory
from nst_lightning.hardware.numerics import set_random_states
from nst_lightning.losses import Term
from nst_lightning.objective.likeness import NEUTRAL
from nst_lightning.objective.objective import Evaluation, Objective, default_terms
from nst_lightning.optim import LBFGS

SMALLEST_TILE = 64  # pixels; smaller ones would be nearly all halo


class StyleTransfer(ResumableModule):
    """Optimise an image so that its features have the content of one picture and the statistics of another.

    One training step is one evaluation of loss and gradient, handed to the optimiser as its closure; one epoch is one
    stage of the schedule. The trainer needs a `StyleTransferData` as its data module.

    Args:
        evaluations: Evaluations of a run of one stage at full size, or of all given stages together, which keep their
            shares; leave it out for the default stages.
        stages: Stages (evaluations, scale, extractor), coarse to fine, each an epoch; by default sizes double from 256
            px on, with 40 evaluations, 40, 20 and so on, or there is one of 60 up to 362 px.
        strength: Style against content: factor on all style terms.
        likeness: How much a stranger is to recognise of the content, 0 to 1: the content's terms count more above 0.5,
            up to twice as much, and less below, down to nothing.
        terms: The objective's terms; by default a balanced Content and Gram.
        extractor: The frozen network; by default VGG-19.
        draft: A frozen network that costs less and steers alike, such as CompactVGG19, for all evaluations of the
            default stages but the last ones; null for none.
        optimizer: Callable that takes the parameters; L-BFGS by default, Adam works too.
        lr_scheduler: Callable that takes the optimiser; it changes the rate after each evaluation, and begins anew with
            each stage. One that waits for a plateau looks at the loss.
        memory: GiB that the process may take in all; by default all that is free.
        tile: Side in pixels of the tiles that an image is evaluated in, for bounded memory and the same result; auto
            takes the whole image where it fits into the free memory, and else the largest tiles that do; null never.
    """

    def __init__(
        self,
        evaluations: int | None = None,
        stages: list[Stage] | None = None,
        strength: float = 1.0,
        likeness: float = NEUTRAL,
        terms: list[Term] | None = None,
        extractor: Extractor | None = None,
        draft: Extractor | None = None,
        optimizer: OptimizerCallable = LBFGS,
        lr_scheduler: Optional[LRSchedulerCallable] = None,
        memory: float | None = None,
        tile: Union[int, Literal["auto"], None] = "auto",  # noqa: UP007 - jsonargparse reads it on Python 3.10
    ) -> None:
        if isinstance(tile, int) and tile < SMALLEST_TILE:
            raise UserError(f"model.tile: must be auto, null or at least {SMALLEST_TILE} px, got {tile}")
        if memory is not None and not memory > 0:
            raise UserError(f"model.memory: must be above 0 GiB, got {memory}; leave it out for all that is free")
        super().__init__(
            Objective(terms if terms is not None else default_terms(), strength, likeness=likeness),
            extractor if extractor is not None else VGG19(),
            draft,
            (evaluations, stages),
            OptimizerSetup(optimizer, lr_scheduler),
            memory,
            tile,
        )
        # Objects stay out of the checkpoint, which holds data only; the command line adds their configuration.
        self.save_hyperparameters(ignore=["stages", "terms", "extractor", "draft", "optimizer", "lr_scheduler"])
        self._has_size = False  # whether the image has the size of the run that is about to begin
        self._build_optimizers()  # a wrong argument is found now, not after the pictures are read

    def configure_callbacks(self) -> list[Callback]:
        """Begin a fit: the image has its size before callbacks see it, and losses have their loggers."""
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
        given = trainer.callbacks  # type: ignore[attr-defined]
        stopping = [callback for callback in given if isinstance(callback, EarlyStopping)]
        for callback in stopping:
            look_at_each_evaluation(callback)  # an epoch is a stage
        brought: list[Callback] = [Ledger(), ProcessSettings(), *([Logs()] if trainer.loggers else [])]
        brought += [LookEarly()] if stopping else []
        return [own for own in brought if not any(isinstance(callback, type(own)) for callback in given)]

    def setup(self, stage: str) -> None:
        """Check the trainer's settings, set its limits, plan the stages and give the image its size."""
        if stage != "fit":
            raise UserError(f"trainer: style transfer has only fit, got {stage}; use trainer.fit")
        trainer = self.trainer
        self._pictures = None  # those of an earlier fit
        self._pictures = self._data
        check_trainer(trainer)
        check_processes(trainer)
        choose_precision(trainer.precision, describe(trainer.strategy.root_device))
        self.check(self._data)
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]  # stages differ in length
        limit_epochs(trainer, len(self.stages))
        self._forget_run()
        self._facts = self.facts(self._data)
        for extractor in self._extractors():
            extractor.set_compute_dtype(compute_dtype(str(trainer.precision)))
        self._planner = self._plan()
        if not self._has_size:  # a subclass may have callbacks of its own
            self.image = nn.Parameter(self._data.start_image(self.stages[0].scale))
        self._has_size = self._stepping = False
        self._has_picture = True

    def teardown(self, stage: str) -> None:
        """Hand back what the run has used and freed."""
        forget_recordings(self)
        hand_back_freed_memory()

    def on_train_start(self) -> None:
        """Let the optimiser begin; a run that goes on in the middle of a stage enters it here."""
        if len(self.trainer.optimizers) != 1:
            raise UserError(
                f"configure_optimizers: must give one optimiser, got {len(self.trainer.optimizers)}; there is one image"
            )
        self._step_on()
        find_regions(self)
        self._enter_stage(self.trainer.train_dataloader.batch)  # type: ignore[union-attr]
        self.trainer.callback_metrics.update(self._losses)  # for who looks at them where a stage ends
        set_random_states(self._random, self.device)

    def on_train_epoch_start(self) -> None:
        """Begin a stage: image, optimiser and targets become those of the batch that all its steps get."""
        self.went_back = False
        self._enter_stage(self.trainer.train_dataloader.batch)  # type: ignore[union-attr]

    def training_step(self, batch: StageBatch, batch_idx: int) -> Tensor:
        """Evaluate the image against the targets of a stage: the weighted loss, a scalar."""
        self._enter_stage(batch)  # nothing to do after the stage's start
        self.image.grad = None  # Lightning would keep the last one until the new one is there
        self.evaluation = self._evaluated()
        loss = self.evaluation.loss
        if has_trainer(self) and self.trainer.training:  # a call from elsewhere has nowhere to log to
            # What callbacks and schedulers monitor, without the millisecond that logging takes.
            self.trainer.callback_metrics.update(self.objective.losses(self.evaluation))
            if isinstance(self.trainer.progress_bar_callback, (TQDMProgressBar, RichProgressBar)):
                self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=1)
        return loss

    def _evaluated(self) -> Evaluation:
        """Evaluate, in smaller tiles if memory runs out and tiles are left to us."""
        while True:
            try:
                return self(self.image)  # type: ignore[no-any-return]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._use_smaller_tiles()  # when the error is gone, and with it what the failed evaluation held

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradient, in smaller tiles if memory runs out."""
        try:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]
            failed = False
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        if failed:
            # Whoever called has the loss, and with it all that the rest of the way back would have needed.
            loss.detach_()
            self.evaluation = self.image.grad = None
            self._use_smaller_tiles()
            self.evaluation = self._evaluated()
            self.evaluation.loss.backward()  # type: ignore[no-untyped-call]
        if has_trainer(self) and self._data.is_grey and self.image.grad is not None:
            # From a grey start all steps stay among greys, as the direction of the steepest of them is this one.
            self.image.grad.copy_(self.image.grad.mean(1, keepdim=True))

    def on_train_epoch_end(self) -> None:
        """Hold the stage's result."""
        self.settle()
        if self._reached is not None:
            self._reached.put_back(self.trainer)
            self._reached = None

    def configure_optimizers(self) -> Any:
        """Build the optimiser, and what changes its rate."""
        return self._build_optimizers()

    # Apart, as a subclass's own `configure_optimizers` is not to be called before its constructor is through.
    def _build_optimizers(self) -> Any:
        losses = self.objective.loss_names
        if self._planner is None:
            return self._optimizers.build(self.image, {}, losses)
        settings, evaluations = self._planner.history(self.plans[self._planned]), self.stages[self._planned].evaluations
        return self._optimizers.build(self.image, settings, losses, evaluations)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Change the rate after an evaluation, by its loss if need be."""
        if metric is None and isinstance(scheduler, ReduceLROnPlateau):
            metric = self.trainer.callback_metrics[getattr(scheduler, "monitor", "loss")]
        super().lr_scheduler_step(scheduler, metric)
