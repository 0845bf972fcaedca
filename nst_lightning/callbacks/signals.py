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

from nst_lightning import log
from nst_lightning.module import StyleTransfer


class Signals(Callback):
    """The first signal lets the evaluation finish and everything be written; a second one stops at once.

    Of several processes any one may get it: all stop after the same evaluation. Under SLURM, the signal that announces
    a requeue (SIGUSR1 unless told otherwise) makes Lightning write its checkpoint and requeue the job, after the
    evaluation and not in the middle of it, where image and history do not belong together.

    Attributes:
        received: Number of the signal that ends the run, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._requeue: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Listen from now on; see Callback."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, _: FrameType | None) -> None:
            hung_up = getattr(signal, "SIGHUP", None)
            if self.received is not None and number == hung_up:
                return  # a terminal that closes may send it twice, and after what a logout sends
            if self.received not in {None, hung_up}:
                os._exit(128 + number)  # files appear whole or not at all, so nothing can tear
            self.received = number
            if trainer.world_size == 1:  # several stop when all know of it, or one would wait for the others for ever
                trainer.should_stop = True
            log.say_in_handler("stopped", "stopping; once more stops at once", signal=number)

        def requeue(number: int, _: FrameType | None) -> None:
            self._requeue = number

        ends = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        # What nohup, or a shell that started a job in the background, has the process ignore is to be ignored.
        handlers = {number: stop for number in ends if signal.getsignal(number) is not signal.SIG_IGN}
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            handlers[cast("signal.Signals", environment.requeue_signal)] = requeue
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Do between two evaluations what a signal asked for; see Callback."""
        if trainer.world_size > 1:
            self._agree(trainer, pl_module)
        if self._requeue is not None:
            number, self._requeue = self._requeue, None
            self._before[number](number, None)

    def _agree(self, trainer: Trainer, module: StyleTransfer) -> None:
        """Take over what other processes received; an evaluation that several share takes long enough not to mind."""
        mine = torch.tensor([self.received or 0, self._requeue or 0], device=module.device)
        most = cast("Tensor", trainer.strategy.reduce(mine, reduce_op="max")).tolist()
        if most[0]:
            self.received, trainer.should_stop = int(most[0]), True
        self._requeue = int(most[1]) or None

    def teardown(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Listen no longer; see Callback."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
