"""Stopping early: callbacks that do look at every evaluation, and not only where a stage ends."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping


class LookEarly(Callback):
    """Ask Lightning's `EarlyStopping` after each evaluation; one that asks for ``check_on_train_epoch_end`` waits.

    A callback rather than a hook of the module, which would come after checkpoints: they are to know that a run ends.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Ask them."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                callback.on_validation_end(trainer, pl_module)
