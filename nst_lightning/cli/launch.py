"""One picture by several processes of this machine: where they begin, and begin again when one of them dies."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from nst_lightning.config.build import Job
from nst_lightning.console import log
from nst_lightning.errors import UserError
from nst_lightning.files.paths import expand
from nst_lightning.hardware.memory import hand_back_freed_memory
from nst_lightning.process.launched import Start
from nst_lightning.process.launcher import Failure, launch
from nst_lightning.runs.checkpoint import FOLDER, SUFFIX, read_checkpoint
from nst_lightning.runs.ending import is_written
from nst_lightning.runs.folder import LOCK, RECORD

_ATTEMPTS = 3  # new beginnings without a new checkpoint in between


def make_picture(args: Sequence[str], job: Job) -> int:
    """Let several processes do what a command line after ``nst fit`` asks for, of which a job was built.

    The job's folder and its lock stay with this process, and the rest of it is let go.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        SystemExit: After SIGTERM.
        UserError: As a run by one process does, and if processes keep dying.
    """
    plan = _Beginnings(job)
    machines = job.all_processes // job.processes
    threads = max(1, torch.get_num_threads() // job.processes)
    job.let_go()
    gc.collect()
    hand_back_freed_memory()
    try:
        return launch(["fit", *args], job.processes, machines, threads, plan)
    finally:
        if plan.has_made_nothing():
            job.discard_folder()


class _Beginnings:
    """Where the processes of a run begin: anew, or from the newest checkpoint that they have written."""

    def __init__(self, job: Job) -> None:
        self.given = None if job.resumed is None else job.resumed.path
        self._folder, self._several = job.folder, job.all_processes > job.processes
        self._output = expand(job.config.output, "output") if job.config.output else None
        self._before = {path: _identity(path) for path in [*self._checkpoints(), self._folder / RECORD]}
        self._latest = self.given  # from which they began last
        self._evaluation = 0 if self.given is None else _evaluation(self.given)
        self._attempts = 0  # since there was a new one
        self._said = ""  # how the last failure ended

    def __call__(self, failure: Failure | None) -> Start | None:
        """The next beginning; None if the run is at its end.

        Raises:
            UserError: If it is of no use to begin again.
            Exception: The one that a process ends with again and again.
        """
        if failure is None:
            return Start(self._folder, self.given)
        if self._is_new(self._folder / RECORD) and is_written(self._folder, self._output):
            return None
        newest = next((path for path in self._checkpoints() if self._is_new(path) and _is_whole(path)), self.given)
        if newest != self._latest:
            self._latest, self._attempts, self._said = newest, 0, ""
            self._evaluation = 0 if newest is None else _evaluation(newest)
        self._attempts += 1
        again, self._said = self._said == failure.end, failure.end  # in whichever process it was seen first
        if self._several or self._attempts > _ATTEMPTS or (again and failure.report is not None):
            self._give_up(failure)
        if newest is None:
            _empty(self._folder)
        self._say(failure)
        return Start(self._folder, newest)

    def has_made_nothing(self) -> bool:
        """Whether the run has left neither a picture nor anything to go on from."""
        return not any(self._folder.glob("result.*")) and not self._checkpoints()

    def _say(self, failure: Failure) -> None:
        goes_on = f"goes on from evaluation {self._evaluation}" if self._latest is not None else "begins anew"
        if log.kind() == "bar":  # which ended in the middle of its line
            sys.stderr.write("\n")
        log.say(
            "warning",
            f"{failure}; the run {goes_on}",
            process=failure.process,
            code=failure.code,
            evaluation=self._evaluation,
            path=None if self._latest is None else str(self._latest),
        )

    def _give_up(self, failure: Failure) -> None:
        if failure.report is not None:
            failure.report.fail()
        times = f" after {self._attempts - 1} new beginnings without a new checkpoint" if self._attempts > 1 else ""
        kept = "no checkpoint was written yet"
        if self._several or self._checkpoints():
            kept = "go on with --ckpt_path last"
        raise UserError(
            f"trainer.devices: {failure}{times}; see whether memory is short (data.size, model.memory), or give fewer; "
            f"what was written is whole, {kept}"
        )

    def _checkpoints(self) -> list[Path]:
        """Those in the run's folder, the newest first."""
        found = [*self._folder.glob(f"{FOLDER}/*{SUFFIX}"), *self._folder.glob(f"hpc_ckpt_*{SUFFIX}")]
        return sorted(found, key=_identity, reverse=True)

    def _is_new(self, path: Path) -> bool:
        """Whether a file was written since this run has begun."""
        return path.exists() and self._before.get(path) != _identity(path)


def _identity(path: Path) -> tuple[int, int]:
    """When a file was written, in nanoseconds, and its inode; zeros if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino


def _is_whole(path: Path) -> bool:
    try:
        read_checkpoint(path, lazily=True)
    except UserError:  # damaged by something else; the one before it is as good
        return False
    return True


def _evaluation(path: Path) -> int:
    """How many evaluations are made at a checkpoint."""
    return int(read_checkpoint(path, lazily=True)["global_step"])


def _empty(folder: Path) -> None:
    """Remove what a run has left that begins anew."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
