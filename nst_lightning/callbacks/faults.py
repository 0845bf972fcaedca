"""Says when evaluations were not finite."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import check_at_least, notice


class Faults(Callback):
    """Warn when the optimiser had to go back because a loss or gradient was NaN or infinite.

    The optimiser deals with it on the device, without a word; its counter is read every n evaluations.

    Args:
        every: Evaluations between two looks.
    """

    def __init__(self, every: int = 25) -> None:
        check_at_least("faults.every", every, 1, "25 is a good start")
        self.every = every
        self._known = 0

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Forget an earlier run, which may have been cut short."""
        self._known = 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Look every n evaluations."""
        if trainer.global_step % self.every == 0:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Look before the next stage brings a new optimiser."""
        self._look(trainer)
        self._known = 0

    def _look(self, trainer: Trainer) -> None:
        counters = [state["skipped"] for state in trainer.optimizers[0].state.values() if "skipped" in state]
        skipped = int(counters[0]) if counters else 0
        if skipped > self._known and trainer.is_global_zero:
            notice(
                f"up to evaluation {trainer.global_step}: {skipped - self._known} with a loss or gradient that was not "
                "finite; the image went back to the last good one and the run goes on; if it happens often, use "
                "precision 32-true"
            )
        self._known = max(self._known, skipped)
