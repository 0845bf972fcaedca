"""What a run tells the trainer's loggers (TensorBoard, CSV, Weights and Biases and others)."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, WandbLogger
from torch import Tensor

from nst_lightning.errors import UserError, UserNotice

if TYPE_CHECKING:  # the module brings this callback along when the trainer has loggers
    from nst_lightning.engine.module import StyleTransfer

_SLOW = 30.0  # seconds after which losses are handed over, however few


class Logs(Callback):
    """Give every logger the losses, total, by group and by part, and the picture as it grows.

    Losses stay on the device and are read together, as in `Metrics`; the trainer's ``log_every_n_steps`` says which
    evaluations are logged.

    Args:
        every: Evaluations between two reads, at most; losses are also handed over every 30 seconds.
        picture_every: Evaluations between two pictures; 0 gives none but the last.
        longest: Longest side of a picture in pixels.
    """

    def __init__(self, every: int = 25, picture_every: int = 50, longest: int = 1024) -> None:
        for name, value, least in (("every", every, 1), ("picture_every", picture_every, 0), ("longest", longest, 1)):
            if value < least:
                raise UserError(f"logs.{name}: must be at least {least}, got {value}; the default is a good start")
        self.every, self.picture_every, self.longest = every, picture_every, longest
        self._rows: list[tuple[int, int, Tensor]] = []
        self._written = time.monotonic()
        self._pictured = -1  # step of the last picture
        self._told = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Keep the losses, and hand over what is due."""
        assert pl_module.evaluation is not None
        step = trainer.global_step
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            values = torch.stack(list(pl_module.objective.losses(pl_module.evaluation).values()))
            self._rows.append((step, pl_module.current_stage, values))
        if len(self._rows) >= self.every or (self._rows and time.monotonic() - self._written > _SLOW):
            self._write(trainer, pl_module)
        if self.picture_every and step % self.picture_every == 0:
            self._show(trainer, pl_module)

    def _write(self, trainer: Trainer, module: StyleTransfer) -> None:
        rows, self._rows = self._rows, []
        self._written = time.monotonic()
        if not rows or not trainer.is_global_zero:
            return
        names = module.objective.loss_names
        read = torch.stack([values for _, _, values in rows]).tolist()  # the one read
        for (step, stage, _), values in zip(rows, read, strict=True):
            for logger in trainer.loggers:
                logger.log_metrics({**dict(zip(names, values, strict=True)), "stage": float(stage)}, step)
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
                self._tell(f"trainer.logger: {type(logger).__name__} did not take the picture: {error}")

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            warnings.warn(text, UserNotice, stacklevel=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Hand over what a stage gave."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Hand over the rest and the last picture."""
        self._write(trainer, pl_module)
        self._show(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: StyleTransfer, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Hand over all losses so far: who continues from the checkpoint does not come by them."""
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Hand over the rest: what was computed is kept."""
        self._write(trainer, pl_module)


def _takes_pictures(logger: Logger) -> bool:
    known = isinstance(logger, (WandbLogger, CometLogger, MLFlowLogger))
    return known or callable(getattr(getattr(logger, "experiment", None), "add_image", None))


def show(logger: Logger, picture: Tensor, step: int) -> None:
    """Give a logger a picture, if it takes any.

    Args:
        logger: One of Lightning's, or another one whose experiment has TensorBoard's ``add_image``.
        picture: (3, H, W), in [0, 1].
        step: Evaluations so far.
    """
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
