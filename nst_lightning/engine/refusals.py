"""What of Lightning and PyTorch has no place in a run, and why: the one table of it.

All that is not named here works as its own documentation says (docs/lightning.md); a test walks over what the packages
export, and fails on a name that it does not know.
"""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from torch.optim import Optimizer

from nst_lightning.engine.compat import seconds_of
from nst_lightning.errors import UserError

# Callback -> why it cannot do its work, and what does. The most special class comes first.
CALLBACKS: dict[type[Callback], str] = {
    callbacks.GradientAccumulationScheduler: "an evaluation is whole, so gradients are not accumulated",
    callbacks.StochasticWeightAveraging: "it averages over epochs, and each epoch is a stage with an image of its own "
    "size; take EMAWeightAveraging, WeightAveraging or nst_lightning.callbacks.Averaging",
    callbacks.ModelPruning: "it would cut weights of the frozen network; the image is the only parameter",
    callbacks.BackboneFinetuning: "it thaws a backbone, and the network here stays frozen",
    callbacks.BaseFinetuning: "it freezes and thaws layers, and the network here stays frozen",
    callbacks.BatchSizeFinder: "there are no batches; model.memory and model.tile bound the memory",
    callbacks.LearningRateFinder: "it sets a module's own rate; give model.optimizer.lr, and model.lr_scheduler "
    "to change it on the way",
    callbacks.SpikeDetection: "it leaves out batches of data, and an evaluation has none; Watch and Faults see to a "
    "loss that jumps",
    callbacks.OnExceptionCheckpoint: "a later run goes on from its file without being asked, whatever its pictures; "
    "checkpoint_every keeps what an error leaves",
    callbacks.BasePredictionWriter: "style transfer has only fit, so there are no predictions; Export writes the "
    "picture",
}

# Base classes: complete in themselves, but nothing happens in them.
_BASES: tuple[type[Callback], ...] = (Callback, callbacks.Checkpoint, callbacks.ProgressBar)

# These tell loggers what they find, and nobody else.
_MEASURING = (callbacks.LearningRateMonitor, callbacks.DeviceStatsMonitor, callbacks.ThroughputMonitor)

# Optimiser -> why it cannot move an image.
OPTIMIZERS: dict[type[Optimizer], str] = {
    torch.optim.SparseAdam: "it takes sparse gradients, and an image has dense ones; take torch.optim.Adam",
}
if hasattr(torch.optim, "Muon"):  # from PyTorch 2.9 on
    OPTIMIZERS[torch.optim.Muon] = (
        "it makes the steps of matrices orthogonal, and an image is none; take torch.optim.Adam"
    )

# What says where the other machines of a run are.
_OTHER_MACHINES = ("MASTER_ADDR", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID")

_NO_VALIDATION = "style transfer has only fit, so there is nothing to validate, test or predict"


class _Flag(NamedTuple):
    """What one of the trainer's arguments may be."""

    takes: Callable[[Any], bool]  # whether it may have a value
    requirement: str  # in words
    reason: str  # why, and what to do


def _unset(value: Any) -> bool:
    return not value


def _as_it_is(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: value in allowed


def _names(value: Any, *names: str) -> bool:
    """Whether a value of a configuration, or a class path in it, is one of some names."""
    return str(getattr(value, "class_path", value)).rsplit(".", 1)[-1] in names


def _is_time(value: Any) -> bool:
    """Whether ``max_time`` is left out, or a time in which something can be done."""
    try:
        return value is None or not _is_over(Timer(value))
    except (MisconfigurationException, TypeError):
        return False


def _is_over(timer: Timer) -> bool:
    """Whether a Timer ends a run before its first evaluation."""
    seconds = seconds_of(timer)
    return seconds is not None and seconds <= 0


FLAGS: dict[str, _Flag] = {
    "gradient_clip_val": _Flag(_unset, "left out", "clipped gradients falsify the curvature that L-BFGS measures"),
    "gradient_clip_algorithm": _Flag(_unset, "left out", "gradients are not clipped"),
    "accumulate_grad_batches": _Flag(_as_it_is(1), "1", "an evaluation is whole"),
    "overfit_batches": _Flag(
        _unset, "0", "there is one pair of pictures to fit; trainer.limit_train_batches shortens the stages"
    ),
    "limit_train_batches": _Flag(
        lambda value: value is None or value > 0, "above 0", "leave it out for all evaluations of a stage"
    ),
    "limit_val_batches": _Flag(_as_it_is(None, 0, 1.0), "left out", _NO_VALIDATION),
    "limit_test_batches": _Flag(_as_it_is(None, 0, 1.0), "left out", _NO_VALIDATION),
    "limit_predict_batches": _Flag(_as_it_is(None, 0, 1.0), "left out", _NO_VALIDATION),
    "num_sanity_val_steps": _Flag(_as_it_is(None, 0), "left out", _NO_VALIDATION),
    "val_check_interval": _Flag(_as_it_is(None, 1.0), "left out", _NO_VALIDATION),
    "check_val_every_n_epoch": _Flag(_as_it_is(None, 1), "left out", _NO_VALIDATION),
    "inference_mode": _Flag(_as_it_is(True), "left out", _NO_VALIDATION),
    "sync_batchnorm": _Flag(_unset, "false", "the network has no batch normalisation"),
    "reload_dataloaders_every_n_epochs": _Flag(
        _as_it_is(0, 1), "left out", "the evaluations of a stage are counted out when it begins"
    ),
    "model_registry": _Flag(_unset, "left out", "checkpoints stay in the run folder"),
    "profiler": _Flag(
        lambda value: not _names(value, "xla", "XLAProfiler"),
        "simple, advanced or pytorch",
        "XLA's profiler measures TPUs, which are not among the accelerators",
    ),
    "devices": _Flag(lambda value: value not in ([], ()), "a number of devices, or which", "1 is the default"),
    "num_nodes": _Flag(
        lambda value: value == 1 or any(name in os.environ for name in _OTHER_MACHINES),
        "1",
        "several machines need MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment, or torchrun or srun",
    ),
    "max_steps": _Flag(lambda value: value != 0, "at least 1, or -1 for no limit", "leave it out"),
    "max_time": _Flag(_is_time, "a time above 0 as DD:HH:MM:SS", "00:00:10:00 is ten minutes; leave it out for none"),
    "max_epochs": _Flag(lambda value: value != 0, "at least 1, or -1 for no limit", "leave it out"),
    "strategy": _Flag(
        lambda value: not isinstance(value, str) or value in {"auto", "single_device"},
        "auto",
        "several processes share the tiles of one picture, which is no strategy of Lightning's",
    ),
}


def check_flags(settings: Mapping[str, Any]) -> None:
    """Refuse arguments of the trainer, by name, that could have no effect, or a bad one.

    Raises:
        UserError: With the argument, what it must be, and why.
    """
    for name, flag in FLAGS.items():
        if name in settings and not flag.takes(settings[name]):
            value = getattr(settings[name], "class_path", settings[name])
            raise UserError(f"trainer.{name}: must be {flag.requirement}, got {value}; {flag.reason}")


def check_trainer(trainer: Trainer) -> None:
    """Refuse what a trainer that is already built would do inside an evaluation.

    Raises:
        UserError: If gradients are to be clipped or accumulated, or a callback has no place in a run.
    """
    check_flags({name: getattr(trainer, name) for name in ("gradient_clip_val", "accumulate_grad_batches")})
    check_callbacks(trainer.callbacks, has_logger=bool(trainer.loggers))  # type: ignore[attr-defined]


def check_callbacks(given: Iterable[Callback], *, has_logger: bool = True) -> None:
    """Refuse callbacks that cannot do their work here, some of which need a logger for what they measure.

    Raises:
        UserError: With the class and why.
    """
    for callback in given:
        if not has_logger and isinstance(callback, _MEASURING):
            raise UserError(
                f"trainer.logger: must be given for {type(callback).__name__}, got none; for example true, or "
                "CSVLogger, or TensorBoardLogger"
            )
        if isinstance(callback, Timer) and _is_over(callback):
            raise UserError(
                f"trainer.callbacks: duration of Timer: must be above 0, got {seconds_of(callback):g} seconds; "
                "00:00:10:00 is ten minutes"
            )
        if type(callback) in _BASES:
            raise UserError(
                f"trainer.callbacks: must do something, got {type(callback).__name__}, the base class of others; give "
                "one of those"
            )
        for class_, reason in CALLBACKS.items():
            if isinstance(callback, class_):
                raise UserError(f"trainer.callbacks: must leave {type(callback).__name__} out; {reason}")


def check_optimizer(class_: type[Optimizer]) -> None:
    """Refuse a class of optimisers that cannot move an image.

    Raises:
        UserError: With the class and why.
    """
    reason = OPTIMIZERS.get(class_)
    if reason is not None:
        raise UserError(f"model.optimizer: must be another one than {class_.__name__}; {reason}")


def check_unbuilt_optimizer(error: BaseException) -> None:
    """Refuse the optimiser whose ``__init__`` raised an error, where we say it better.

    Raises:
        UserError: With the class and why.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, Optimizer):
            check_optimizer(type(owner))


def check_plugins(plugins: Iterable[Any]) -> None:
    """Refuse plugins that would come between an evaluation and its gradient.

    Raises:
        UserError: With the class.
    """
    for plugin in plugins:
        if not isinstance(plugin, (CheckpointIO, ClusterEnvironment)):
            name = plugin if isinstance(plugin, str) else type(plugin).__name__
            raise UserError(
                f"trainer.plugins: must be of the kinds CheckpointIO or ClusterEnvironment, got {name}; "
                "trainer.precision chooses the precision"
            )


def check_monitors(given: Iterable[Callback], names: Iterable[str]) -> None:
    """Refuse callbacks that watch a number which is not among the names of those that a run has.

    Where a callback of the user's own is among them, which may log others, nothing is refused.

    Raises:
        UserError: With the nearest names.
    """
    given, names = list(given), list(names)
    if any(not type(callback).__module__.startswith(("lightning.", "nst_lightning.")) for callback in given):
        return
    for callback in given:
        if not isinstance(callback, (EarlyStopping, ModelCheckpoint)) or callback.monitor is None:
            continue
        known = [*names, "step", "epoch"] if isinstance(callback, ModelCheckpoint) else names
        check_monitor(f"trainer.callbacks: monitor of {type(callback).__name__}", callback.monitor, known)


def check_monitor(argument: str, monitor: str, names: Iterable[str]) -> None:
    """Refuse to watch what a run does not have.

    Raises:
        UserError: With the nearest names.
    """
    names = list(names)
    if monitor not in names:
        near = difflib.get_close_matches(monitor, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "take one of those"
        few = ", ".join(name for name in names if "." not in name)
        part = next((name for name in names if "." in name), "gram.relu1_1")
        raise UserError(f"{argument}: must be one of {few} or a part such as {part}, got {monitor}; {hint}")
