"""Ctrl-C, SIGTERM, a closed terminal and a cluster's wish to have its machine back end a run in good order."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, cast

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from nst_lightning.console import log
from nst_lightning.engine.compat import cluster_environment, tear_down
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.process.interruption import hand_on
from nst_lightning.process.ownership import owns_process

_HUNG_UP = getattr(signal, "SIGHUP", None)  # which Windows lacks
ENDING = (signal.SIGINT, signal.SIGTERM, *([_HUNG_UP] if _HUNG_UP is not None else []))


class Signals(Callback):
    """The first signal lets the evaluation finish and everything be written; a second one stops at once.

    Then the signal reaches the program around the run, whose handlers are in their places again: Ctrl-C comes out of
    ``fit`` as KeyboardInterrupt and SIGTERM as SystemExit with 143, or the program's own handlers do something else.
    What the program ignores does not end the run. The command ``nst`` exits with 128 + the signal's number.

    Of several processes any one may get it: all stop after the same evaluation. Under SLURM, the signal that announces
    a requeue (SIGUSR1 unless told otherwise) makes Lightning write its checkpoint and requeue the job, after the
    evaluation and not in the middle of it, where image and history do not belong together.

    Attributes:
        received: Number of the signal that ended the latest run, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._requeue: int | None = None
        self._before: dict[int, Any] = {}  # what was there when this began to listen, Lightning's own included
        self._ours: dict[int, Any] = {}
        self._of_program: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Look at the program's handlers, before Lightning puts its own there."""
        self.received = self._requeue = None
        self._of_program = {number: signal.getsignal(number) for number in ENDING}

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Listen from now on."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, _: FrameType | None) -> None:
            if self.received is not None and number == _HUNG_UP:
                return  # a terminal that closes may send it twice, and after what a logout sends
            if self.received not in {None, _HUNG_UP}:
                self._stop_at_once(trainer, number)
                return
            self.received = number
            if trainer.world_size == 1:  # several stop when all know of it, or one would wait for the others for ever
                trainer.should_stop = True
            log.say_in_handler("stopped", "stopping; once more stops at once", signal=number)

        def requeue(number: int, _: FrameType | None) -> None:
            self._requeue = number

        self._ours = {number: signal.SIG_IGN if self._is_ignored(number) else stop for number in ENDING}
        environment = cluster_environment(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._ours[cast("signal.Signals", environment.requeue_signal)] = requeue
        self._before = {number: signal.signal(number, handler) for number, handler in self._ours.items()}

    def _is_ignored(self, number: int) -> bool:
        """Whether a signal is to be ignored as it was before.

        Shells let the background jobs of scripts ignore Ctrl-C, which is nobody's wish: the command heeds it.
        """
        shells = number == signal.SIGINT and owns_process()
        return self._of_program.get(number) == signal.SIG_IGN and not shells

    def _stop_at_once(self, trainer: Trainer, number: int) -> None:
        if owns_process():
            os._exit(128 + number)  # files appear whole or not at all, so nothing can tear
        self._come_last(trainer)
        hand_on(number, self._of_program[number])

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Do between two evaluations what a signal asked for."""
        if trainer.world_size > 1:
            self._agree(trainer, pl_module)
        if self.received is not None:  # a least number of evaluations does not hold against a signal
            trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = None, None
        if self._requeue is not None:
            number, self._requeue = self._requeue, None
            self._before[number](number, None)

    def _agree(self, trainer: Trainer, module: StyleTransfer) -> None:
        """Learn what other processes received, which costs little beside an evaluation that several share."""
        mine = torch.tensor([self.received or 0, self._requeue or 0], device=module.device)
        most = cast("Tensor", trainer.strategy.reduce(mine, reduce_op="max")).tolist()
        if most[0]:
            self.received, trainer.should_stop = int(most[0]), True
        self._requeue = int(most[1]) or None

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Let others clean up before the program hears of it."""
        if self.received is not None:
            self._come_last(trainer)

    def teardown(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Listen no longer, and let the program have the signal."""
        self._listen_no_longer()
        if self.received is None:
            return
        number, handler = self.received, self._of_program[self.received]
        if isinstance(trainer, StyleTrainer):
            trainer.after_fit = lambda: hand_on(number, handler)
        else:
            hand_on(number, handler)

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Listen no longer.

        Lightning's own Trainer would turn KeyboardInterrupt into SystemExit after this, and knows no place after that
        where it could be turned back. So it does here what Lightning would do next, and lets the exception go on.
        """
        self._listen_no_longer()
        if self.received is not None and isinstance(exception, KeyboardInterrupt):
            if isinstance(trainer, StyleTrainer):
                return
            for logger in trainer.loggers:
                logger.finalize("failed")
            tear_down(trainer)
            signal.signal(signal.SIGINT, self._of_program[signal.SIGINT])  # which Lightning has begun to ignore
            raise exception

    def _listen_no_longer(self) -> None:
        """Put back what was there before, unless Lightning has already done so, or somebody else listens now."""
        for number, handler in self._before.items():
            if signal.getsignal(number) is self._ours[number]:
                signal.signal(number, handler)
        self._before, self._ours = {}, {}

    def _come_last(self, trainer: Trainer) -> None:
        """Move behind all other callbacks, so that none is passed over by an exception from here."""
        trainer.callbacks = [*(other for other in trainer.callbacks if other is not self), self]  # type: ignore[attr-defined]
