"""Ctrl-C and SIGTERM end a run in good order."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, Trainer

from nst_lightning.module import StyleTransfer


class Signals(Callback):
    """The first signal lets the evaluation finish and everything be written; a second one stops at once.

    Under SLURM, SIGTERM is left to Lightning, which requeues the job.

    Attributes:
        received: Number of the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Listen from now on; see Callback."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, _: FrameType | None) -> None:
            if self.received is not None:
                os._exit(128 + number)  # files appear whole or not at all, so nothing can tear
            self.received = number
            trainer.should_stop = True
            os.write(2, b"\nnst: stopping; once more stops at once\n")  # print may be in the middle of a line

        numbers = [signal.SIGINT] if "SLURM_JOB_ID" in os.environ else [signal.SIGINT, signal.SIGTERM]
        self._before = {number: signal.signal(number, stop) for number in numbers}

    def teardown(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Listen no longer; see Callback."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
