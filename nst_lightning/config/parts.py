"""The callbacks and plugins of a run's trainer: ours, and those that a configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from nst_lightning.callbacks import (
    Announce,
    Checkpoints,
    Export,
    Faults,
    Figure,
    Metrics,
    Preview,
    Progress,
    Record,
    Report,
    Signals,
    Snapshots,
    Timelapse,
    Watch,
)
from nst_lightning.engine.refusals import check_callbacks, check_monitors, check_plugins
from nst_lightning.errors import UserError
from nst_lightning.files.paths import absolute, expand
from nst_lightning.runs.checkpoint import WholeFiles

# These write what a run has made, so callbacks that still change it come before them.
_WRITING = (Export, Figure, Snapshots, Timelapse, Preview, Report, Record, Signals)


def default_callbacks(config: Namespace, resolved: str) -> list[Callback]:
    """What each run by the command brings along; the configuration in YAML goes into the picture's metadata.

    Raises:
        UserError: If the picture cannot be written as asked.
    """
    settings = config.trainer
    metadata = {"Configuration": resolved}
    location = config.color_space, config.keep_location
    callbacks = [
        Announce(),
        Progress(),
        Metrics(),
        Faults(),
        Watch(),
        Export(config.output, config.bits, config.quality, metadata, config.fallback, *location),
        Figure(),
        Snapshots(config.snapshot_every),  # whose checkpoints hold what the others know by now
        *_timelapse(config),
        *([Preview(config.preview_seconds)] if config.preview_seconds else []),
        *([Report(resolved)] if config.report else []),
        Record(settings.max_time),
        Signals(),  # after those that keep what an evaluation gave
    ]
    if settings.enable_checkpointing and (config.checkpoint_every or config.checkpoint_seconds):
        kept = config.checkpoint_keep, config.checkpoint_finished
        callbacks.append(Checkpoints(config.checkpoint_every, config.checkpoint_seconds, *kept))
    return callbacks


def _timelapse(config: Namespace) -> list[Callback]:
    if config.timelapse is None:
        return []
    film = Timelapse(config.timelapse)
    if config.output is not None and absolute(film.path) == absolute(expand(config.output, "output")):
        raise UserError(f"timelapse: must be another file than output, got {config.timelapse}; choose another name")
    return [film]


def given_parts(settings: Mapping[str, Any], name: str) -> list[Any]:
    """What a configuration gives the trainer of a kind, of which there may be several."""
    given = settings[name]
    return [] if given is None or given is False else list(given) if isinstance(given, (list, tuple)) else [given]


def check_parts(settings: Mapping[str, Any], losses: Iterable[str]) -> None:
    """Refuse parts of the trainer that cannot do their work here; the losses are what may be monitored.

    Raises:
        UserError: With the part.
    """
    given = given_parts(settings, "callbacks")
    has_logger = settings["fast_dev_run"] or settings["logger"] is None or bool(given_parts(settings, "logger"))
    check_callbacks(given, has_logger=has_logger)
    check_plugins(given_parts(settings, "plugins"))
    check_monitors(given, losses)


def trainer_arguments(settings: Mapping[str, Any], defaults: Sequence[Callback]) -> dict[str, Any]:
    """The trainer's arguments, with our own callbacks and plugins where none take their places.

    A callback from the configuration takes the place of the default one of its class; any bar that of ours.
    """
    settings = dict(settings)
    given, plugins = given_parts(settings, "callbacks"), given_parts(settings, "plugins")
    kept = [callback for callback in defaults if not any(isinstance(other, type(callback)) for other in given)]
    leave_out: tuple[type[Callback], ...] = ()
    if settings["enable_progress_bar"] is False or any(isinstance(callback, ProgressBar) for callback in given):
        leave_out += (Progress,)
    if settings["fast_dev_run"]:
        leave_out += (ModelCheckpoint,)
    if settings["barebones"]:  # all that takes time beside the evaluations
        leave_out += (
            ModelCheckpoint,
            Announce,
            Progress,
            Metrics,
            Watch,
            Snapshots,
            Timelapse,
            Preview,
            Report,
            Figure,
        )
        settings.update(log_every_n_steps=None, enable_checkpointing=False)
    callbacks = sorted(
        [*(callback for callback in kept if not isinstance(callback, leave_out)), *given],
        key=lambda callback: isinstance(callback, _WRITING),
    )
    if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        settings["enable_checkpointing"] = False  # or Lightning adds one of its own
    if not any(isinstance(callback, ProgressBar) for callback in callbacks):
        settings["enable_progress_bar"] = False  # likewise
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins = [*plugins, WholeFiles()]
    return {**settings, "callbacks": callbacks, "plugins": plugins}
