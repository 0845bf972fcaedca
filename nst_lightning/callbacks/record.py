"""What became of a run, for whoever looks at its folder later."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from nst_lightning.callbacks.signals import Signals
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.files.atomic import replacing
from nst_lightning.files.lenient import only_the_file
from nst_lightning.runs.folder import RECORD
from nst_lightning.runs.limits import reason_of_end


class Record(Callback):
    """Write ``run.json`` in the run folder: whether the run is running, finished, cut short (by what) or failed.

    Args:
        max_time: As the trainer was given it; a run that it ends is cut short by it.
    """

    def __init__(self, max_time: Any = None) -> None:
        self.max_time = max_time
        self._due = False  # whether this run has begun and has not come to its end

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Say that it runs."""
        self._due = True
        self._write(trainer, pl_module, "running", None)

    def teardown(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Say how it ended, now that everything else is written."""
        due, self._due = self._due, False
        if not due:
            return
        received = [callback.received for callback in trainer.callbacks if isinstance(callback, Signals)]  # type: ignore[attr-defined]
        evaluations = [stage.evaluations for stage in pl_module.stages]
        reason = reason_of_end(trainer, evaluations, received[0] if received else None, self.max_time)
        self._write(trainer, pl_module, "finished" if reason is None else "cut short", reason, all_written=True)

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Say what ended it."""
        self._due = False
        wanted = isinstance(exception, (KeyboardInterrupt, SystemExit))
        reason = " ".join(str(exception).split())[:300] or type(exception).__name__
        self._write(trainer, pl_module, "cut short" if wanted else "failed", reason)

    def _write(
        self, trainer: Trainer, module: StyleTransfer, state: str, reason: str | None, *, all_written: bool = False
    ) -> None:
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / RECORD
        facts = {
            "state": state,
            "reason": reason,
            "evaluations": trainer.global_step,
            "of": module.total_evaluations,
            "all_written": all_written,
            "changed": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with only_the_file(path):
            if path.parent.is_dir():
                with replacing(path) as file:
                    file.write((json.dumps(facts, indent=1) + "\n").encode())
