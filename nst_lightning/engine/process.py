"""What a run sets for its whole process, and puts back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from nst_lightning.hardware.memory import freed_memory_kept, is_large
from nst_lightning.hardware.numerics import asks_for_tf32, one_thread, random_states_kept, tf32_allowed, threads_kept

if TYPE_CHECKING:  # the module brings this callback along
    from nst_lightning.engine.module import StyleTransfer

# Products of a few rows have other last bits with another number of threads, and the deepest layers of pictures of so
# few pixels have no more. They gain nothing from a second thread anyway.
_SMALL = 64 * 64


class ProcessSettings(Callback):
    """Let the C library keep freed memory and PyTorch compute as asked for, until the fit ends in whatever way.

    Whether TF32 is allowed says `StyleTrainer`; with Lightning's own Trainer what the program chose for products of
    matrices holds for convolutions, too. Random numbers of a checkpoint are for the run that goes on from it.
    """

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()

    def on_fit_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Set what the run needs, now that nothing is refused any more."""
        # First of all callbacks, so that no error of another one passes it over.
        trainer.callbacks = [self, *(other for other in trainer.callbacks if other is not self)]  # type: ignore[attr-defined]
        longest = max(trainer.datamodule.stage_size())  # type: ignore[attr-defined]
        tiled = any(plan.tile for plan in pl_module.plans)
        self._undo.enter_context(freed_memory_kept(large=tiled or is_large(longest)))
        self._undo.enter_context(threads_kept())
        self._undo.enter_context(tf32_allowed(getattr(trainer, "tf32", asks_for_tf32())))
        sizes = [trainer.datamodule.stage_size(stage.scale) for stage in pl_module.stages]  # type: ignore[attr-defined]
        if min(height * width for height, width in sizes) < _SMALL:
            self._undo.enter_context(one_thread())
        if trainer.ckpt_path is not None:
            self._undo.enter_context(random_states_kept(pl_module.device))

    def teardown(self, *_: Any, **__: Any) -> None:
        """Put everything back, also after an exception."""
        self._undo.close()

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Hand back what else the end of a fit would, which Lightning does not come to then."""
        pl_module.teardown("fit")
        self.teardown()
