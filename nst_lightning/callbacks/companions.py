"""What a process does for those that work on the same picture, where `nst_lightning.process.launcher` started them."""

from __future__ import annotations

import re
from typing import Any

from lightning.pytorch import Callback, Trainer

from nst_lightning.engine.module import StyleTransfer
from nst_lightning.process.launched import Launched

_CONNECTION = re.compile(r"gloo|nccl|connection", re.IGNORECASE)  # who says that another process is gone


class Companions(Callback):
    """Say when this process answers signals, and wait for what becomes of the run when another process is gone.

    Args:
        launched: This process's place among the others.
    """

    def __init__(self, launched: Launched) -> None:
        self.launched = launched
        self._said = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Say so before the first evaluation, when all callbacks have begun."""
        if not self._said:
            self._said = True
            self.launched.has_begun()

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Wait before other callbacks write what a new beginning would have to undo."""
        if is_lost_connection(exception):
            self.launched.await_others()


def is_lost_connection(error: BaseException) -> bool:
    """Whether torch says by an error that another process is gone."""
    return isinstance(error, RuntimeError) and _CONNECTION.search(str(error)) is not None
