"""A process that `nst_lightning.process.launcher` has started: what it is to do, and how it says what came of it."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nst_lightning.errors import UserError

VARIABLE = "NST_LAUNCH"  # the folder by which such a process and the one that launched it know of each other
_START = "start.json"
_SAID = "said_"
_LOOK = 0.2  # seconds between two looks at whether the launching process is still there
_PATIENCE = 10.0  # seconds in which a process that is gone is noticed


@dataclass(frozen=True)
class Start:
    """Where processes begin that work on a picture."""

    folder: Path  # the run's
    checkpoint: Path | None = None  # from which they go on, if from any

    def write(self, place: Path) -> None:
        """Leave it for the processes that begin next, and forget what those before them said."""
        for path in place.iterdir():
            if path.is_file():
                path.unlink()
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        facts = {"launcher": os.getpid(), "folder": str(self.folder), "checkpoint": checkpoint}
        (place / _START).write_text(json.dumps(facts), encoding="utf-8")


@dataclass(frozen=True)
class Report:
    """How a process ended that had something to say about it.

    Attributes:
        rank: Which it was.
        code: Exit code that it would have had by itself.
        error: What ended it, unless it was a signal or the end of its work.
        where: The traceback of `error`, as text.
        lost: Whether `error` is that another process was gone.
    """

    rank: int
    code: int
    error: Exception | None = None
    where: str = ""
    lost: bool = False

    @property
    def is_final(self) -> bool:
        """Whether it would end in the same way again: as it should, by a signal, or by a mistake of the user's."""
        return self.error is None or _is_users(self.error)

    def fail(self) -> NoReturn:
        """Raise `error` here, as if this process had done the work."""
        assert self.error is not None
        if self.is_final:
            raise self.error
        raise self.error from RuntimeError(f"in process {self.rank + 1}:\n{self.where}")


@dataclass(frozen=True)
class Launched:
    """This process, if it was launched.

    Attributes:
        start: Where it begins.
        place: Folder of messages to the launching process.
        rank: Which one it is.
        alone: Whether all processes are of this machine.
    """

    start: Start
    place: Path
    rank: int
    alone: bool

    def arguments(self, given: Sequence[str]) -> list[str]:
        """The command line after ``nst fit``, which goes on from a checkpoint where there is one."""
        return [*given] if self.start.checkpoint is None else [*given, f"--ckpt_path={self.start.checkpoint}"]

    def has_begun(self) -> None:
        """Say that this process answers signals from now on."""
        (self.place / f"begun_{self.rank}").touch()

    def report(self, run: Callable[[], int]) -> int:
        """Do something and tell the launching process how it ended.

        Returns:
            The exit code: 0 unless what happened is worth another try, so that torch's agent ends no other process
            that is still writing.
        """
        try:
            report = Report(self.rank, run())
        except KeyboardInterrupt:
            report = Report(self.rank, 130)
        except SystemExit as error:
            report = Report(self.rank, error.code if isinstance(error.code, int) else 1)
        except Exception as error:
            lost = isinstance(error, LostConnectionError)
            report = Report(self.rank, 2 if _is_users(error) else 1, error, traceback.format_exc(), lost)
        self._leave(report)
        return 0 if report.is_final else 1

    def _leave(self, report: Report) -> None:
        try:
            text = pickle.dumps(report)
            pickle.loads(text)  # an exception may be written and yet not be read
        except Exception:  # whatever a class of the user's raises
            text = pickle.dumps(Report(self.rank, 1, RuntimeError(f"{type(report.error).__name__}: {report.error}")))
        unfinished = self.place / f"unfinished_{self.rank}"
        unfinished.write_bytes(text)
        unfinished.replace(self.place / f"report_{self.rank}")

    def await_others(self) -> None:
        """Wait for what becomes of a run whose connection to another process broke.

        If that process was killed, this one is ended meanwhile, to begin again with the others; if it gave up, this
        returns, for the last things to be written.
        """
        if not self.alone:
            return
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if any(report.rank != self.rank for report in reports(self.place)):
                return
            time.sleep(_LOOK)
        os._exit(1)  # the network failed: begin again


class LostConnectionError(UserError):
    """The connection to another process of the run is lost."""


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """What this process was launched for; None if it was not."""
    if VARIABLE not in environment:
        return None
    place = Path(environment[VARIABLE])
    facts = _read_start(place)
    checkpoint = None if facts["checkpoint"] is None else Path(facts["checkpoint"])
    start = Start(Path(facts["folder"]), checkpoint)
    return Launched(start, place, int(environment["RANK"]), environment.get("GROUP_WORLD_SIZE", "1") == "1")


def join_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """If this process was launched, end it as soon as the one that did so is gone, since another run may go on then.

    Files appear whole or not at all, so nothing can tear. What libraries in C write to standard error, such as gloo
    about each attempt to reach a process that is gone, is kept for the launching process.
    """
    if VARIABLE not in environment:
        return
    place = Path(environment[VARIABLE])
    launcher = _read_start(place)["launcher"]

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with launcher").start()
    if sys.stderr is not None:
        shown = os.dup(2)
        with (place / f"{_SAID}{environment['RANK']}").open("wb") as file:
            os.dup2(file.fileno(), 2)
        sys.stderr = open(shown, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: PTH123, SIM115


def last_words(place: Path, rank: int) -> str:
    """The last line that a library in C said in a process, if there was one."""
    try:
        lines = (place / f"{_SAID}{rank}").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:200] if lines else ""


def _read_start(place: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((place / _START).read_text(encoding="utf-8"))
    except OSError:  # nobody waits for this process any more
        raise SystemExit(1) from None
    return facts


def reports(place: Path) -> list[Report]:
    """What launched processes have said of their end, by rank."""
    found = [pickle.loads(path.read_bytes()) for path in place.glob("report_*")]
    return sorted(found, key=lambda report: report.rank)


def all_begun(place: Path, processes: int) -> bool:
    """Whether all processes answer signals."""
    return len(list(place.glob("begun_*"))) == processes


def _is_users(error: Exception) -> bool:
    """Whether the command says it in one line and ends with exit code 2."""
    return isinstance(error, UserError) or (
        isinstance(error, OSError) and bool(error.strerror) and not isinstance(error, ConnectionError)
    )
