"""How far a run is: a bar on a terminal, a line now and then elsewhere, events for programs."""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar

from nst_lightning.callbacks.announce import planned_evaluations
from nst_lightning.console import log
from nst_lightning.console.bar import Bar
from nst_lightning.engine.ledger import Reader, Row
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import check_at_least
from nst_lightning.planning.duration import in_words

_SLOW = 2.0  # seconds after which a display moves anyway; reading losses then costs nothing that shows


class Progress(Reader, ProgressBar):
    """Show rate, time left and loss in the way that ``--log`` asks for.

    Args:
        every: Evaluations between two updates, fewer where they are slow.
        seconds: Seconds between two lines, where lines replace the bar.
    """

    def __init__(self, every: int = 10, seconds: float = 10.0) -> None:
        super().__init__(every, _SLOW)
        check_at_least("progress.seconds", seconds, 0, "10 is a good start")
        self.seconds = seconds
        self._enabled = True
        self._display: _Bar | _Lines | None = None

    def disable(self) -> None:
        """See ProgressBar; Lightning calls it on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """See ProgressBar."""
        self._enabled = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Open the display in the first stage, below the line that `Announce` says."""
        kind = log.kind()
        if self._display is not None or not self._enabled or kind == "none":
            return
        total, done = planned_evaluations(trainer, pl_module), trainer.global_step
        seconds = self.seconds if kind == "lines" else 0.0  # an event comes with every look
        self._display = _Bar(total, done) if kind == "bar" else _Lines(total, done, seconds)

    def take(self, trainer: Trainer, module: StyleTransfer, rows: list[Row]) -> None:
        """Move to the last evaluation."""
        if self._display is not None and rows:
            row = rows[-1]
            self._display.move(_State(row.step, row.losses["loss"], row.stage + 1, len(module.stages)))

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Show the end and close."""
        super().on_train_end(trainer, pl_module)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Close, so that what follows starts on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None


class _State(NamedTuple):
    """How far a run is."""

    evaluation: int
    loss: float
    stage: int
    stages: int


class _Bar:
    def __init__(self, total: int, done: int) -> None:
        self._bar: Bar = Bar(total=total, initial=done, unit="eval", file=sys.stderr, dynamic_ncols=True)

    def move(self, state: _State) -> None:
        self._bar.set_postfix_str(f"loss {state.loss:.4g}", refresh=False)
        self._bar.update(state.evaluation - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """A line or an event at the first look, whenever a stage begins, after so many seconds, and at the end."""

    def __init__(self, total: int, done: int, seconds: float) -> None:
        self._total, self._begun, self._seconds = total, done, seconds
        self._start = time.monotonic()
        self._stage, self._shown, self._latest = 0, self._start, done
        self._pending: _State | None = None

    def move(self, state: _State) -> None:
        now = time.monotonic()
        if state.evaluation == self._latest:  # the end may come with the last look
            return
        self._pending = state
        if state.stage != self._stage or now - self._shown >= self._seconds or state.evaluation >= self._total:
            self._show(now)

    def _show(self, now: float) -> None:
        if self._pending is None:
            return
        state, self._pending = self._pending, None
        self._stage, self._shown, self._latest = state.stage, now, state.evaluation
        elapsed = now - self._start
        rate = (state.evaluation - self._begun) / elapsed if elapsed > 0 else 0.0
        left = (self._total - state.evaluation) / rate if rate > 0 else None
        stage = f", stage {state.stage} of {state.stages}" if state.stages > 1 else ""
        text = f"evaluation {state.evaluation} of {self._total}{stage}, loss {state.loss:.4g}"
        text += f", {rate:.3g} eval/s" if rate > 0 else ""
        text += f", about {in_words(left)} left" if left else ""
        log.say(
            "progress",
            text,
            evaluation=state.evaluation,
            evaluations=self._total,
            stage=state.stage,
            stages=state.stages,
            loss=state.loss,
            seconds=round(elapsed, 3),
            seconds_left=None if left is None else round(left, 3),
        )

    def close(self) -> None:
        self._show(time.monotonic())
