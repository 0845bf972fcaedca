"""Processes of this machine that make pictures, each with some of its cores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nst_lightning.errors import UserError
from nst_lightning.gallery.engine import Made
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.shift import Crew, Failure, Lost, Told
from nst_lightning.process.forking import worker_context

STOP = "stop"  # said in place of a task
_LOCK = ".worker"  # what names of files begin with that workers keep locked
_LAST_STEP = 10.0  # seconds in which a worker ends that nobody listens to any more
_PATIENCE = 1.0  # seconds for which workers are listened to at a time
_STARTS = 3  # of processes in a row that end before they say a word


class LocalMember:
    """A process that makes pictures."""

    def __init__(self, index: int, process: BaseProcess, connection: Connection) -> None:
        self.index, self.process, self.connection = index, process, connection
        self.task: Task | None = None
        self.ready = False

    @property
    def where(self) -> str:
        """Its number, for messages."""
        return f"worker {self.index + 1}"


class LocalCrew(Crew[LocalMember]):
    """All processes of a gallery.

    Args:
        workers: How many there are at most.
        cores: Of each.
        folder: Where run folders lie; nobody else makes a gallery there now.
        run_folder: Where the run of a task keeps its checkpoints.

    Raises:
        UserError: If processes of a gallery that was killed do not end.
    """

    def __init__(self, workers: int, cores: int, folder: Path, run_folder: Callable[[Task], Path]) -> None:
        self._most, self._cores, self._folder, self._run_folder = workers, cores, folder, run_folder
        self._context = worker_context()
        self._members: dict[int, LocalMember] = {}
        self._ends = 0  # of processes that have not said a word
        for lock in folder.glob(f"{_LOCK}*"):
            _wait_for(lock)

    @property
    def members(self) -> list[LocalMember]:
        """All that are there."""
        return list(self._members.values())

    def recruit(self, most: int) -> None:
        """Begin processes in the places of those that are not there.

        Raises:
            UserError: If several have ended before they said a word.
        """
        if self._ends >= _STARTS:
            raise UserError(
                f"--cores: must leave processes the means to begin, got the end of {self._ends} at once; memory may "
                "have run out: set --cores higher"
            )
        for index in range(min(self._most, most)):
            if index not in self._members:
                self._members[index] = self._start(index)

    def _start(self, index: int) -> LocalMember:
        from nst_lightning.gallery.local_worker import work  # noqa: PLC0415 - takes seconds

        ours, theirs = self._context.Pipe()
        lock = self._folder / f"{_LOCK}{index}"
        process: BaseProcess = self._context.Process(target=work, args=(theirs, self._cores, lock), daemon=True)
        process.start()
        theirs.close()
        return LocalMember(index, process, ours)

    def begin(self, member: LocalMember, task: Task) -> None:
        """Send a task to a worker."""
        member.task = task
        with contextlib.suppress(OSError):  # it is gone, which `listen` finds
            member.connection.send((task, self._run_folder(task)))

    def listen(self) -> list[tuple[LocalMember, Task, Told | Lost]]:
        """What workers say."""
        by_connection = {member.connection: member for member in self._members.values()}
        heard: list[tuple[LocalMember, Task, Told | Lost]] = []
        for connection in wait(list(by_connection), timeout=_PATIENCE):
            heard += self._hear(by_connection[connection])  # type: ignore[index]
        return heard

    def _hear(self, member: LocalMember) -> list[tuple[LocalMember, Task, Told | Lost]]:
        task = member.task
        try:
            said: Any = member.connection.recv()
        except (EOFError, OSError):
            return self._lose(member)
        self._ends = 0
        if task is None:
            member.ready = True
            return []
        if isinstance(said, (Made, Failure)):
            member.task = None
        return [(member, task, said)]

    def _lose(self, member: LocalMember) -> list[tuple[LocalMember, Task, Told | Lost]]:
        del self._members[member.index]
        member.connection.close()
        member.process.join()
        self._ends += not member.ready
        reason = f"exit code {member.process.exitcode}"
        return [] if member.task is None else [(member, member.task, Lost(reason))]

    def dismiss(self) -> None:
        """Let all end; a picture that is under way finishes its evaluation and keeps a checkpoint."""
        try:
            for member in self._members.values():
                with contextlib.suppress(OSError):
                    member.connection.send(STOP)
            for member in self._members.values():
                with contextlib.suppress(EOFError, OSError):
                    while True:  # or it would wait for somebody to hear its last words
                        member.connection.recv_bytes()
                member.process.join()
        except BaseException:  # Ctrl-C once more
            for member in self._members.values():
                member.process.kill()
            raise
        finally:
            self._members.clear()
        for lock in self._folder.glob(f"{_LOCK}*"):
            lock.unlink(missing_ok=True)


def _wait_for(lock: Path) -> None:
    """Wait until a process has noticed that the gallery that it worked for was killed."""
    try:
        FileLock(lock, timeout=_LAST_STEP).acquire().lock.release()
    except Timeout:
        raise UserError(
            f"--output: must be a folder in which no other gallery is being made, got '{lock.parent.parent}', where a "
            "process of one that was killed is still at work; end it"
        ) from None
    except (OSError, NotImplementedError):  # a file system that knows no locks
        return
