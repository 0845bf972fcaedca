"""The calls by which a process changes a folder: logged, refused, or the last thing that the process does.

All of them pass through `open` and `os` of Python, where these hooks sit; a log that holds everything can be told from
one that does not by making the same folder from it (see `powerloss.Disk`).
"""

from __future__ import annotations

import builtins
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Call(NamedTuple):
    """One call.

    Attributes:
        name: open (for reading), create, write, truncate, fsync, close, rename, link, unlink, mkdir or rmdir.
        path: What it is about, below the watched folder.
        other: The new name, for rename and link.
        offset: Where a write begins; the new length of a truncate.
        data: What is written.
    """

    name: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass
class Plan:
    """What shall happen at a call.

    Attributes:
        at: Its number, from 0.
        error: The errno that it fails with; None kills processes before it.
        on: Whether calls after it fail, too.
        same: Whether only calls of its name do.
        helper: A file with the number of another process, which is killed first.
        itself: Whether this one is killed.
    """

    at: int
    error: int | None = None
    on: bool = False
    same: bool = False
    helper: Path | None = None
    itself: bool = True


@dataclass
class Watch:
    """Hooks that watch a folder; a context."""

    root: Path
    plan: Plan | None = None
    calls: list[Call] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)  # of open files
    _name: str = ""
    _lock: Any = field(default_factory=threading.RLock)
    _before: dict[tuple[Any, str], Any] = field(default_factory=dict)

    def below(self, path: Any, folder: int | None = None) -> str | None:
        """A path below the watched folder as it lies there, or None for one elsewhere."""
        if isinstance(path, int):
            return self.paths.get(path)
        path = os.fsdecode(path)
        if folder is not None:
            if folder not in self.paths:
                return None
            path = self.root / self.paths[folder] / path
        path = Path.cwd() / path
        whole = Path(os.path.realpath(path.parent)) / path.name
        return str(whole.relative_to(self.root)) if whole.is_relative_to(self.root) else None

    def happens(self, call: Call) -> None:
        """Note a call that is about to be made, and do with it as planned."""
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
            if self.plan is None or number < self.plan.at:
                return
            if number == self.plan.at:
                self._name = call.name
            if self.plan.error is None:
                if number == self.plan.at:
                    self._kill(self.plan)
                return
            if number == self.plan.at or (self.plan.on and (not self.plan.same or call.name == self._name)):
                raise OSError(self.plan.error, os.strerror(self.plan.error), call.path)

    @staticmethod
    def _kill(plan: Plan) -> None:
        if plan.helper is not None:
            os.kill(int(plan.helper.read_text(encoding="ascii")), signal.SIGKILL)
        if plan.itself:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    def __enter__(self) -> Watch:
        """Begin."""
        self.root = Path(os.path.realpath(self.root))
        for name, kind in (("unlink", "unlink"), ("remove", "unlink"), ("mkdir", "mkdir"), ("rmdir", "rmdir")):
            self._put(os, name, self._of_one_path(name, kind))
        for name, kind in (("rename", "rename"), ("replace", "rename"), ("link", "link")):
            self._put(os, name, self._of_two_paths(name, kind))
        for name in ("fsync", "close"):
            self._put(os, name, self._of_open_file(name))
        self._put(os, "open", self._os_open)
        self._put(os, "write", self._os_write)
        self._put(io, "open", self._open)
        self._put(builtins, "open", self._open)
        return self

    def __exit__(self, *_: object) -> None:
        """Put everything back."""
        for (module, name), before in self._before.items():
            setattr(module, name, before)

    def _put(self, module: Any, name: str, hook: Callable[..., Any]) -> None:
        self._before[module, name] = getattr(module, name)
        setattr(module, name, hook)

    def _of_one_path(self, name: str, kind: str) -> Callable[..., Any]:
        def hook(path: Any, *args: Any, dir_fd: int | None = None, **options: Any) -> Any:
            below = self.below(path, dir_fd)
            if below is not None:
                self.happens(Call(kind, below))
            return self._before[os, name](path, *args, dir_fd=dir_fd, **options)

        return hook

    def _of_two_paths(self, name: str, kind: str) -> Callable[..., Any]:
        def hook(one: Any, other: Any, **options: Any) -> Any:
            below = self.below(one)
            if below is not None:
                self.happens(Call(kind, below, self.below(other) or ""))
            return self._before[os, name](one, other, **options)

        return hook

    def _of_open_file(self, name: str) -> Callable[..., Any]:
        def hook(number: int) -> Any:
            below = self.paths.get(number)
            try:
                if below is not None:
                    self.happens(Call(name, below))
            finally:
                if name == "close":  # an error of it leaves the file closed
                    self.paths.pop(number, None)
                    self._before[os, "close"](number)
            return None if name == "close" else self._before[os, name](number)

        return hook

    def _os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        below = self.below(path, dir_fd)
        if below is not None:
            made = flags & os.O_CREAT and not (self.root / below).exists()
            self.happens(Call("create" if made else "open", below))
        number: int = self._before[os, "open"](path, flags, mode, dir_fd=dir_fd)
        if below is not None:
            self.paths[number] = below
            if flags & os.O_TRUNC and not made:
                self.calls.append(Call("truncate", below))
        return number

    def _os_write(self, number: int, data: Any) -> Any:
        below = self.paths.get(number)
        if below is not None:
            self.happens(Call("write", below, "", os.lseek(number, 0, os.SEEK_CUR), bytes(data)))
        return self._before[os, "write"](number, data)

    def _open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """As `io.open` does it, but of a raw file whose calls are seen."""
        if isinstance(file, int) or opener is not None or self.below(file) is None:
            return self._before[io, "open"](file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        kind: Any = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
        buffered = kind(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _Raw(io.FileIO):
    """A file whose calls are seen."""

    def __init__(self, watch: Watch, file: Any, mode: str) -> None:
        below = watch.below(file)
        assert below is not None
        self._watch, self._below = watch, below
        made = "r" not in mode and not Path(file).exists()
        watch.happens(Call("create" if made else "open", below))
        super().__init__(file, mode)
        if "w" in mode and not made:
            watch.calls.append(Call("truncate", below))
        watch.paths[self.fileno()] = below

    def write(self, data: Any, /) -> int:
        held = bytes(data)
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        self._watch.happens(Call("write", self._watch.paths[self.fileno()], "", offset, held))
        return super().write(held)

    def truncate(self, size: int | None = None, /) -> int:
        size = self.tell() if size is None else size
        self._watch.happens(Call("truncate", self._watch.paths[self.fileno()], "", size))
        return super().truncate(size)

    def close(self) -> None:
        if self.closed:
            return
        below = self._watch.paths.pop(self.fileno(), None)
        try:
            if below is not None:
                self._watch.happens(Call("close", below))
        finally:
            super().close()
