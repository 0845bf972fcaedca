"""Every private part of Lightning that is touched, and why; a test looks whether its version has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)

# What Lightning's own callbacks know of a run, and would take over into the next one.
OF_A_RUN: dict[type[Callback], tuple[str, ...]] = {
    EarlyStopping: ("wait_count", "stopped_epoch", "best_score", "stopping_reason", "stopping_reason_message"),
    ModelCheckpoint: (
        *("current_score", "best_k_models", "kth_best_model_path", "best_model_score", "best_model_path"),
        *("last_model_path", "kth_value", "_last_checkpoint_saved", "_last_global_step_saved", "_last_time_checked"),
    ),
    StochasticWeightAveraging: (
        *("n_averaged", "_average_model", "_initialized", "_swa_epoch_start", "_swa_scheduler", "_scheduler_state"),
        *("_init_n_averaged", "_latest_update_epoch"),
    ),
    Timer: ("_start_time", "_end_time", "_offset"),
    WeightAveraging: ("_average_model", "_latest_update_step", "_latest_update_epoch"),
}


def has_trainer(module: LightningModule) -> bool:
    """Whether a trainer runs a module; `LightningModule.trainer` raises where none does."""
    return module._trainer is not None


def set_root(trainer: Trainer, folder: Path) -> None:
    """Give a trainer another folder; its own property cannot be set."""
    cast("Any", trainer)._default_root_dir = str(folder)


def renew_loops(trainer: Trainer, limits: dict[str, Any]) -> None:
    """Give a trainer loops that have counted nothing, as its constructor does, with the data of a fit not yet begun.

    Limits are ``min_epochs``, ``max_epochs``, ``min_steps`` and ``max_steps``.
    """
    old = trainer.fit_loop
    new = type(old)(trainer, limits["min_epochs"], limits["max_epochs"])
    new.epoch_loop = type(old.epoch_loop)(trainer, limits["min_steps"], limits["max_steps"])
    new._data_source = old._data_source
    new.epoch_loop.val_loop._data_source = old.epoch_loop.val_loop._data_source
    trainer.fit_loop = new


def ends_early(trainer: Trainer) -> bool:
    """Whether a callback has ended a run that has made the least evaluations asked for."""
    return bool(trainer.should_stop and trainer.fit_loop._can_stop_early)


def tear_down(trainer: Trainer) -> None:
    """Do what a trainer does when a fit has ended; for an exception that is not to pass through its own hands."""
    trainer._teardown()


def cluster_environment(trainer: Trainer) -> ClusterEnvironment | None:
    """What a trainer takes the machines for; strategies of one device keep none."""
    return cast("Any", trainer)._accelerator_connector.cluster_environment  # type: ignore[no-any-return]


def look_at_each_evaluation(callback: EarlyStopping) -> None:
    """Let it not wait for the end of an epoch unless it was told to; Lightning decides so before a run."""
    if callback._check_on_train_epoch_end is None:
        callback._check_on_train_epoch_end = False


def seconds_of(timer: Timer) -> float | None:
    """How long a timer lets a run go on, in seconds; None without a limit, and then all its other answers fail."""
    return timer._duration


def last_step_saved(callback: ModelCheckpoint) -> int:
    """The step of the latest checkpoint; 0 before there is one."""
    return callback._last_global_step_saved


def save_now(callback: ModelCheckpoint, trainer: Trainer) -> None:
    """Write a checkpoint now, by the name and among the others that the callback keeps."""
    callback._save_topk_checkpoint(trainer, callback._monitor_candidates(trainer))
