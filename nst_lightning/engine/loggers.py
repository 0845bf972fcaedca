"""What a run tells the trainer's loggers (TensorBoard, CSV, Weights and Biases and others)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, WandbLogger
from torch import Tensor

from nst_lightning.engine.ledger import Reader, Row
from nst_lightning.errors import check_at_least, notice

if TYPE_CHECKING:  # the module brings this callback along when the trainer has loggers
    from nst_lightning.engine.module import StyleTransfer


class Logs(Reader):
    """Give every logger the losses, total, by group and by part, and the picture as it grows.

    Losses stay on the device and are read together, as in `Metrics`; the trainer's ``log_every_n_steps`` says which
    evaluations are logged.

    Args:
        every: Evaluations between two reads, at most; losses are also handed over every 30 seconds.
        picture_every: Evaluations between two pictures; 0 gives none but the last.
        longest: Longest side of a picture in pixels.
    """

    def __init__(self, every: int = 25, picture_every: int = 20, longest: int = 1024) -> None:
        super().__init__(every)
        check_at_least("logs.picture_every", picture_every, 0)
        check_at_least("logs.longest", longest, 1)
        self.picture_every, self.longest = picture_every, longest
        self._pictured = -1  # step of the last picture
        self._told = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Hand over what is due."""
        super().on_train_batch_end(trainer, pl_module)
        step = trainer.global_step
        if self.picture_every and step % self.picture_every == 0:
            self._show(trainer, pl_module)

    def take(self, trainer: Trainer, module: StyleTransfer, rows: list[Row]) -> None:
        """Hand losses over."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        rows = [row for row in rows if every and row.step % every == 0]
        if not rows or not trainer.is_global_zero:
            return
        for row in rows:
            for logger in trainer.loggers:
                logger.log_metrics({**row.losses, "stage": float(row.stage)}, row.step)
        for logger in trainer.loggers:
            logger.save()

    def _show(self, trainer: Trainer, module: StyleTransfer) -> None:
        step = trainer.global_step
        if step == self._pictured or not trainer.is_global_zero or not any(map(_takes_pictures, trainer.loggers)):
            return
        self._pictured = step
        picture = module.picture(self.longest)[0]
        for logger in trainer.loggers:
            try:
                show(logger, picture, step)
            except Exception as error:  # a picture that is not shown must not cost the run
                if not self._told:
                    notice(f"trainer.logger: {type(logger).__name__} did not take the picture: {error}")
                self._told = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Hand over what a stage gave."""
        self.take_all(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Hand over the rest and the last picture."""
        super().on_train_end(trainer, pl_module)
        self._show(trainer, pl_module)


def _takes_pictures(logger: Logger) -> bool:
    known = isinstance(logger, (WandbLogger, CometLogger, MLFlowLogger))
    return known or callable(getattr(getattr(logger, "experiment", None), "add_image", None))


def show(logger: Logger, picture: Tensor, step: int) -> None:
    """Give a logger a picture, (3, H, W) in [0, 1], if it takes any: by a method of its own, or TensorBoard's."""
    pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    if isinstance(logger, WandbLogger):
        logger.log_image("picture", [pixels], step=step)
    elif isinstance(logger, CometLogger):
        logger.experiment.log_image(pixels, name="picture", step=step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, pixels, key="picture", step=step)
    elif callable(add_image := getattr(getattr(logger, "experiment", None), "add_image", None)):
        add_image("picture", picture, step)


def one_evaluation(batch: Any) -> int:
    """Size of a batch, for Lightning's ThroughputMonitor: an evaluation is one sample."""
    return 1
