"""``nst fit``: parse, make the picture, say how it ended."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from nst_lightning.callbacks import Signals
from nst_lightning.config.build import Job, build
from nst_lightning.config.options import TRAINER_DEFAULTS
from nst_lightning.config.parser import expand_presets, mentions
from nst_lightning.config.running import run
from nst_lightning.console import log
from nst_lightning.console.quiet import lightning_quiet
from nst_lightning.errors import UserNotice
from nst_lightning.hardware.memory import hand_back_freed_memory
from nst_lightning.process.isolation import process_as_before
from nst_lightning.process.launched import launched
from nst_lightning.process.ownership import owns_process
from nst_lightning.runs.finding import was_requeued
from nst_lightning.runs.limits import NothingLeftError, reason_of_end


def main(args: Sequence[str]) -> int:
    """Run ``nst fit`` with the command line after the subcommand; returns the exit code."""
    given = launched()
    try:
        return _fit(args) if given is None else given.report(lambda: _fit(args))
    finally:
        if not owns_process():
            gc.collect()  # trainer and model know each other, and nobody else knows them
            hand_back_freed_memory()


def _fit(args: Sequence[str]) -> int:
    with process_as_before(), lightning_quiet(), contextlib.ExitStack() as stack:
        # What there is to say before the run, the process that launched this one has said.
        warnings.simplefilter("always" if launched() is None else "ignore", UserNotice)
        warnings.showwarning = _show_warning
        try:
            job = build(args)
        except NothingLeftError:
            if not was_requeued() or mentions(expand_presets(args), "ckpt_path"):
                raise
            # The script of a job that makes several pictures begins anew with its first one.
            log.say("finished", "this job has made the picture before it was requeued, so nothing is left to do")
            return 0
        stack.enter_context(log.only_events())
        try:
            if job.processes > 1:  # torch's launcher is imported for several alone
                return int(import_module("nst_lightning.cli.launch").make_picture(args, job))
            warnings.simplefilter("always", UserNotice)
            return _run(job)
        finally:
            job.release_folder()


def _run(job: Job) -> int:
    """Make the picture; returns the exit code."""
    try:
        run(job)
    except (KeyboardInterrupt, SystemExit):  # a signal; what there was to write is written
        if job.trainer.global_step:
            _say_why_it_ended(job)
        raise
    _say_why_it_ended(job)
    return 0


def _say_why_it_ended(job: Job) -> None:
    """One line, if it was before the last evaluation."""
    trainer, evaluations = job.trainer, [stage.evaluations for stage in job.model.stages]
    received = next((part.received for part in job.callbacks if isinstance(part, Signals)), None)
    reason = reason_of_end(trainer, evaluations, received, job.config.trainer.max_time)
    if reason is None or not trainer.is_global_zero:
        return
    root = job.config.trainer.default_root_dir
    where = "" if root == TRAINER_DEFAULTS["default_root_dir"] else f" --trainer.default_root_dir {root}"
    kept = trainer.checkpoint_callback is not None
    advice = f"go on with --ckpt_path last{where}" if kept else "no checkpoint was to be kept"
    done = f"{trainer.global_step} of {sum(evaluations)} evaluations"
    log.say("stopped", f"stopped by {reason} after {done}; {advice}", reason=reason, evaluations=trainer.global_step)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    log.say("warning", " ".join(str(message).split()))
