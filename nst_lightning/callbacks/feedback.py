"""A program's own function that is told how far a run is, and may end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lightning.pytorch import Trainer
from torch import Tensor

from nst_lightning.callbacks.announce import planned_evaluations
from nst_lightning.engine.ledger import Reader, Row
from nst_lightning.engine.module import StyleTransfer

_SECONDS = 0.1  # between two calls, at least: a function that draws shall not hold the run up


@dataclass(frozen=True)
class Update:
    """How far a run is.

    Attributes:
        evaluation: Evaluations made.
        total: Evaluations of the whole run.
        stage: Index of the stage.
        stages: Number of stages.
        loss: The weighted loss of the latest evaluation.
        seconds: Since the run's first evaluation began.
    """

    evaluation: int
    total: int
    stage: int
    stages: int
    loss: float
    seconds: float
    _picture: Callable[[int | None], Tensor] = field(repr=False)

    def preview(self, longest: int | None = 512) -> Tensor:
        """The picture as it is now, (1, 3, H, W) float32 on the CPU, RGB in [0, 1].

        Args:
            longest: Longest side in pixels that a larger picture is scaled down to; None: none.
        """
        return self._picture(longest)


class Feedback(Reader):
    """Call a function after evaluations, at most ten times a second, and after the last one.

    Args:
        progress: Is given an `Update`; False as its answer ends the run after this evaluation. What it raises comes out
            of ``fit``.
        stop: An event that ends the run after the evaluation in which it is set.
        every: Evaluations between two calls, at least.

    Example:
        >>> Feedback(lambda update: print(update.evaluation, update.loss), every=10).every
        10
    """

    def __init__(
        self,
        progress: Callable[[Update], bool | None] | None = None,
        stop: threading.Event | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(every, seconds=0.0)
        self.progress, self.stop = progress, stop
        self.stopped = False  # whether the latest run was ended from here
        self._begin = self._called = 0.0

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Forget an earlier run."""
        super().setup(trainer, pl_module, stage)
        self.stopped = False
        self._begin = self._called = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: StyleTransfer, *_: object) -> None:  # type: ignore[override]
        """Start the clock with the first evaluation."""
        self._begin = self._begin or time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: object) -> None:  # type: ignore[override]
        """Say how far the run is if it is time, and look whether it is to end."""
        due = time.perf_counter() - self._called >= _SECONDS or trainer.global_step >= planned_evaluations(
            trainer, pl_module
        )
        if self.progress is not None and due and len(self.rows) >= self.every:
            self.take_all(trainer, pl_module)
        elif self.progress is None:
            self.rows.clear()
        if self.stop is not None and self.stop.is_set():
            self._end(trainer)

    def take(self, trainer: Trainer, module: StyleTransfer, rows: list[Row]) -> None:
        """Call the function with the latest evaluation."""
        if not rows or self.progress is None or self.stopped:
            return
        row = rows[-1]
        total, stages = planned_evaluations(trainer, module), len(module.stages)
        seconds = row.time - self._begin
        update = Update(row.step, total, row.stage, stages, row.losses["loss"], seconds, module.picture)
        answer = self.progress(update)
        self._called = time.perf_counter()
        if answer is False:
            self._end(trainer)

    def on_exception(self, *_: object) -> None:
        """Say nothing more: the run has failed, maybe in the function itself."""

    on_save_checkpoint = on_exception  # type: ignore[assignment]

    def _end(self, trainer: Trainer) -> None:
        self.stopped = trainer.should_stop = True
        # A least number of evaluations does not hold against a wish to stop.
        trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = None, None
