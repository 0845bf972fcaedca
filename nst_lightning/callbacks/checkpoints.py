"""Checkpoints to resume from."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from nst_lightning.callbacks.signals import Signals
from nst_lightning.engine.compat import ends_early, last_step_saved, save_now
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import check_at_least, notice
from nst_lightning.files.lenient import only_the_file
from nst_lightning.planning.duration import in_bytes
from nst_lightning.runs.checkpoint import ENDED, FOLDER, SUFFIX
from nst_lightning.runs.limits import out_of_time


class Checkpoints(ModelCheckpoint):
    """Write ``checkpoints/000100.ckpt`` in the run folder, now and then and when the run ends or is stopped.

    Args:
        every: Evaluations between two; 0 goes by time.
        seconds: Seconds between two, at least, where `every` is 0.
        keep: How many are kept.
        finished: How many are kept when all evaluations are made; a longer run can go on from one.
    """

    def __init__(self, every: int = 0, seconds: float = 120.0, keep: int = 2, finished: int = 1) -> None:
        check_at_least("checkpoint_every", every, 0, "0 goes by time")
        check_at_least("checkpoint_seconds", seconds, 0, "120 is a good start")
        check_at_least("checkpoint_keep", keep, 1, advice="")
        check_at_least("checkpoint_finished", finished, 0, "1 lets a longer run go on")
        super().__init__(
            filename="{step:06d}",
            auto_insert_metric_name=False,
            monitor="step",  # the newest are the best
            mode="max",
            save_top_k=keep,
            every_n_train_steps=every or None,
            train_time_interval=None if every else timedelta(seconds=seconds),
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.finished = finished
        self._stopping = False  # since before the end of the stage

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Find the place, without a warning that a resumed run's folder is in use."""
        self.dirpath = str(Path(trainer.default_root_dir) / FOLDER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Say so now if the disk has no room for them."""
        super().on_train_start(trainer, pl_module)
        # One more than are kept: a new one is whole before an old one goes.
        needed = (self.save_top_k + 1) * pl_module.planner.checkpoint_bytes()
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(trainer.default_root_dir).free
            if free < needed and trainer.is_global_zero:
                notice(
                    f"checkpoint_keep: {self.save_top_k} need {in_bytes(needed)} while a new one is written, and "
                    f"{trainer.default_root_dir} has {in_bytes(free)} left; keep fewer, or free some space"
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember which files to remove, if the run goes on in its folder."""
        folder = Path(str(self.dirpath))  # whose name may be another than then, if the current folder is

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        best = here(state_dict["best_model_path"])
        if Path(best).is_file():
            named = {name: here(state_dict[name]) for name in ("kth_best_model_path", "last_model_path")}
            models = {here(path): step for path, step in state_dict["best_k_models"].items()}
            now = {"dirpath": self.dirpath, "best_model_path": best, "best_k_models": models}
            super().load_state_dict({**state_dict, **named, **now})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: StyleTransfer, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Say in it whether a callback has ended the run, which a signal or a clock does for the time being only."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        signalled = any(isinstance(other, Signals) and other.received is not None for other in trainer.callbacks)  # type: ignore[attr-defined]
        if ends_early(trainer) and not signalled and not out_of_time(trainer.callbacks):  # type: ignore[attr-defined]
            checkpoint[ENDED] = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *batch: Any) -> None:  # type: ignore[override]
        """Write if it is time, or the last evaluation.

        At the end of a stage, too, before callbacks see it: a longer run goes on from the image as it is.
        """
        super().on_train_batch_end(trainer, pl_module, *batch)
        self._stopping = trainer.should_stop
        last_stage = 0 < (trainer.max_epochs or 0) <= trainer.current_epoch + 1
        at_a_limit = 0 < trainer.max_steps <= trainer.global_step or (last_stage and trainer.is_last_batch)
        if (self._stopping or at_a_limit) and last_step_saved(self) != trainer.global_step:
            save_now(self, trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Write if the stage's end ended the run, which goes on with the next stage."""
        if not trainer.should_stop or self._stopping:
            return
        if last_step_saved(self) == trainer.global_step:
            trainer.save_checkpoint(self.best_model_path)  # with what callbacks know by now
        else:
            save_now(self, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Make room if nothing is left to do: the picture is written by now."""
        super().on_train_end(trainer, pl_module)
        if trainer.global_step < pl_module.total_evaluations or not trainer.is_global_zero:
            return
        folder, paths = Path(str(self.dirpath)), list[Path]()
        with only_the_file(folder, "look into"):
            paths = sorted(folder.glob(f"[0-9]*{SUFFIX}"), key=lambda path: (len(path.name), path.name))
        for path in paths[: max(0, len(paths) - self.finished)]:
            with only_the_file(path, "remove"):
                path.unlink(missing_ok=True)
