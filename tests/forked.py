"""The command in processes of its own, each begun in a hundredth of the time that Python needs to load it.

A process that has loaded it, and nothing else, is forked for each run (multiprocessing's fork server).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

import forked_with
from systemcalls import Call, Plan, Watch

_PATIENCE = 300.0  # seconds


@dataclass
class Ended:
    """A run that is over.

    Attributes:
        code: Its exit code; minus the signal's number if one killed it.
        said: What it wrote on standard output and standard error.
        calls: Those that touched its folder, unless it was killed.
    """

    code: int
    said: str
    calls: list[Call]


class Running:
    """A run of ``nst`` that has begun.

    Args:
        folder: Where it runs; calls that touch it are watched.
        args: Command line after ``nst``.
        plan: What shall happen at a call.
        environment: Variables that it has besides those of this process.
        terminal: Path of a terminal that is its own; else its standard input is this one's, and what it says is kept.
        first: Python that it runs before.

    Attributes:
        number: A file that holds the number of the process.
        pid: That number.
    """

    def __init__(
        self,
        folder: Path,
        args: Sequence[object],
        plan: Plan | None = None,
        environment: Mapping[str, str] | None = None,
        terminal: str | None = None,
        first: str = "",
    ) -> None:
        self._said = folder.with_name(f"{folder.name}.{len(list(folder.parent.iterdir()))}.said")
        variables = {**os.environ, **(environment or {})}
        begin = (str(folder), variables, str(self._said), terminal, first)
        self._process = _context().Process(  # type: ignore[attr-defined]
            target=_run, args=(begin, [str(arg) for arg in args], plan)
        )
        self._process.start()
        self.pid = self._process.pid
        self.number = self._said.with_suffix(".number")
        self.number.write_text(str(self.pid), encoding="ascii")

    @property
    def said(self) -> str:
        """What it has written until now."""
        return self._said.read_text(encoding="utf-8") if self._said.exists() else ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.exitcode is not None

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something is so, while it runs."""
        end = time.monotonic() + _PATIENCE
        while not condition():
            assert not self.is_over, self.wait().said
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def end(self, number: int = signal.SIGKILL) -> Ended:
        """Send it a signal, unless it is over by then, and wait until it is."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> Ended:
        """Wait until it is over."""
        self._process.join(_PATIENCE)
        assert self.is_over, f"still running: {self.said}"
        log = self._said.with_suffix(".calls")
        # The process says itself how it ends, if it can: multiprocessing may not hear of it where threads wait.
        code, calls = pickle.loads(log.read_bytes()) if log.exists() else (self._process.exitcode, [])
        said = self.said
        for path in (self._said, self.number, log):
            path.unlink(missing_ok=True)
        return Ended(code, said, calls)


def nst(folder: Path, *args: object, plan: Plan | None = None) -> Ended:
    """Run ``nst`` in a folder, to its end."""
    return Running(folder, args, plan).wait()


@cache
def _context() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([forked_with.__name__])
    before = os.environ.get("PYTHONPATH")
    # Where the server finds it; before Python 3.14 it does not look where this process does.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def _run(begin: tuple[str, dict[str, str], str, str | None, str], args: list[str], plan: Plan | None) -> None:
    """What the new process does."""
    from nst_lightning.cli import entry_point

    folder, _, said, *_ = begin
    _begin(*begin)
    sys.argv = ["nst", *args]
    watch, code = Watch(Path(folder), plan), 1
    try:
        with watch:
            entry_point()
    except SystemExit as end:
        code = int(end.code or 0)
        raise
    finally:
        Path(said).with_suffix(".calls").write_bytes(pickle.dumps((code, watch.calls)))


def _begin(folder: str, environment: dict[str, str], said: str, terminal: str | None, first: str) -> None:
    """Make the process one that a shell would have started."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.append(folder)  # as ``python -m nst_lightning`` does
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has put the tests into the background
    os.close(os.open(said, os.O_WRONLY | os.O_CREAT))
    if terminal:
        os.setsid()  # so that the terminal is its own once it is opened
        file = os.open(terminal, os.O_RDWR)
        os.dup2(file, 0)
        sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)  # type: ignore[misc]
    else:
        file = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    exec(first, {})
