"""What ends a run before its schedule does: which limit it was, and what becomes of it when the run goes on."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from nst_lightning.errors import UserError
from nst_lightning.runs.counters import is_over, next_position, written_at

_NONE = {"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.limit_train_batches": None}


class NothingLeftError(UserError):
    """A run that is to go on has made all of its evaluations."""

    @classmethod
    def of(cls, path: Path, made: int, asked: int) -> NothingLeftError:
        """Of a checkpoint with so many, of so many."""
        return cls(
            f"ckpt_path: '{path}' has {made} evaluations and the run {asked}, so nothing is left to do; give more "
            "evaluations"
        )


def limited(evaluations: Sequence[int], limit: float | None) -> list[int]:
    """Evaluations of each stage under ``trainer.limit_train_batches``: a number, a fraction, or None for all."""
    if limit is None:
        return list(evaluations)
    return [min(n, limit) if isinstance(limit, int) else int(n * limit) for n in evaluations]


def used_up(settings: Mapping[str, Any], checkpoint: dict[str, Any], evaluations: Sequence[int]) -> dict[str, Any]:
    """The limits of the trainer by which a run ended, with the values that lift them.

    Settings are the run's, flat, by dotted key; evaluations of its stages are empty if they are not known.
    """
    steps, epochs, batches = (settings.get(name) for name in _NONE)
    stage, done, _ = written_at(checkpoint)
    planned = limited(evaluations, batches)
    found = []
    if steps is not None and 0 < steps <= checkpoint["global_step"]:
        found.append("trainer.max_steps")
    if stage < len(planned) and done >= planned[stage]:  # the stage is at its end
        last = stage + 1 == (len(planned) if epochs is None or epochs < 0 else min(epochs, len(planned)))
        if last and epochs is not None and 0 < epochs < len(planned):
            found.append("trainer.max_epochs")
        if last and done < evaluations[stage]:
            found.append("trainer.limit_train_batches")
    return {name: _NONE[name] for name in found}


def check_room(path: Path, settings: Mapping[str, Any], checkpoint: dict[str, Any], evaluations: Sequence[int]) -> None:
    """Refuse to go on from a checkpoint where nothing is left to do by the flat settings of the run that goes on.

    Raises:
        NothingLeftError: If all evaluations are made.
        UserError: With the limit that leaves no more.
    """
    step = checkpoint["global_step"]
    steps, epochs, batches = (settings.get(name) for name in _NONE)
    if steps is not None and 0 < steps <= step:
        raise UserError(
            f"trainer.max_steps: must be above the {step} evaluations that are made, got {steps}, so "
            "nothing is left to do; give more, or leave it out"
        )
    planned = limited(evaluations, batches)
    position = next_position(checkpoint, planned)
    made = position.stage + (position.done >= planned[position.stage])
    if is_over(position, evaluations):
        raise NothingLeftError.of(path, step, sum(evaluations))
    if epochs is not None and 0 < epochs <= made:
        raise UserError(
            f"trainer.max_epochs: must be above the {made} stages that are made, got {epochs}, so nothing is left to "
            "do; give more, or leave it out"
        )
    if is_over(position, planned):
        raise UserError(
            f"trainer.limit_train_batches: must leave more than the {position.done} evaluations that are made, got "
            f"{batches}, so nothing is left to do; leave it out"
        )


class Reached(NamedTuple):
    """What ended a run when it wrote its last checkpoint, in terms by which Lightning ends it again.

    Lightning calls no callback in a fit that begins at ``max_steps``, and so nothing would be written that a run which
    was killed at its end still owes. At the end of a stage that has as many evaluations as are made, it does.
    """

    planned: list[int]  # evaluations of each stage, the last of which is at its end
    max_steps: int  # what the trainer had been given
    max_epochs: int  # likewise
    limit_train_batches: Any  # likewise
    stopped: bool  # whether it was a callback that ended it

    @classmethod
    def of(cls, trainer: Trainer, checkpoint: dict[str, Any], planned: Sequence[int], stopped: bool) -> Reached | None:
        """Set a trainer's limits so, before its loop begins, for a checkpoint that it continues.

        Returns:
            None if more evaluations are planned, and no callback had stopped the run, which shall then end there.
        """
        stage, done, _ = written_at(checkpoint)
        loop = trainer.fit_loop
        steps, epochs = loop.max_steps, loop.max_epochs or -1
        at_epochs = 0 < epochs == stage + 1 < len(planned) and done >= planned[stage]
        if not 0 < steps <= checkpoint["global_step"] and not at_epochs and not stopped:
            return None
        limits = cls([*planned[:stage], done], steps, epochs, trainer.limit_train_batches, stopped)
        loop.epoch_loop.max_steps, loop.max_epochs = -1, stage + 1
        trainer.limit_train_batches = done
        return limits

    def put_back(self, trainer: Trainer) -> None:
        """Give the trainer its limits back, by which others tell what ended the run."""
        trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs = self.max_steps, self.max_epochs
        trainer.limit_train_batches = self.limit_train_batches
        trainer.should_stop = trainer.should_stop or self.stopped


def renew(checkpoint: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    """Let a run that goes on have its time anew, and the patience of which nothing was left; in place."""
    states = checkpoint.get("callbacks", {})
    for callback in callbacks:
        state = states.get(callback.state_key)
        if state is None:
            continue
        if isinstance(callback, Timer):
            del states[callback.state_key]
        elif isinstance(callback, EarlyStopping) and state["wait_count"] >= callback.patience:
            state["wait_count"] = 0


def reason_of_end(trainer: Trainer, evaluations: Sequence[int], received: int | None, max_time: Any) -> str | None:
    """What ended a run before its last evaluation: a signal, by its number, a limit, a callback; None if nothing did.

    The trainer makes a Timer of the `max_time` that it was given.
    """
    if trainer.global_step >= sum(evaluations):
        return None
    if received is not None:
        return signal.Signals(received).name
    if trainer.should_stop:
        return _stopper(trainer.callbacks, max_time)  # type: ignore[attr-defined]
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # which sets the limits below
        return "trainer.fast_dev_run"
    if 0 < trainer.max_steps <= trainer.global_step:
        return "trainer.max_steps"
    whole = trainer.max_epochs is None or not 0 < trainer.max_epochs < len(evaluations)
    return "trainer.limit_train_batches" if whole else "trainer.max_epochs"


def out_of_time(callbacks: Sequence[Callback]) -> bool:
    """Whether the time that a callback measures is over."""
    left = [callback.time_remaining() for callback in callbacks if isinstance(callback, Timer)]
    return any(seconds is not None and seconds <= 0 for seconds in left)


def _stopper(callbacks: Sequence[Callback], max_time: Any) -> str:
    """Which callback may have told the trainer to stop."""
    if out_of_time(callbacks):
        return "the callback Timer" if max_time is None else "trainer.max_time"
    stopping = [type(callback).__name__ for callback in callbacks if isinstance(callback, EarlyStopping)]
    return f"the callback {stopping[0]}" if stopping else "a callback"
