"""A process of this machine that makes pictures for a gallery in another one, by a session of its own."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

import torch
from filelock import FileLock

from nst_lightning.errors import UserError
from nst_lightning.gallery.engine import Step
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.local_crew import STOP
from nst_lightning.gallery.session_engine import SessionEngine
from nst_lightning.gallery.shift import Failure, Notice, notices_to
from nst_lightning.session import Session

_SECONDS = 0.5  # between two steps that are told of, at least


def work(connection: Connection, cores: int, lock: Path) -> None:
    """Make the pictures that come through a connection, until STOP, or until the other end is gone.

    A picture that is under way at a STOP keeps its checkpoint. Ctrl-C in a terminal reaches all processes of the
    command; here it waits for the other end, which says STOP once.

    Args:
        connection: Brings pairs of a task and where its run keeps its checkpoints; takes what is told.
        cores: Number of threads.
        lock: A file that stays locked as long as this process is there.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(cores)
    held = FileLock(lock)
    with contextlib.suppress(OSError, NotImplementedError):  # a file system that knows no locks
        held.acquire()
    tasks: SimpleQueue[tuple[Task, Path] | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    try:
        worker = _Worker(connection)
        connection.send("ready")
        while (task := tasks.get()) is not None:
            worker.make(*task)
    except (KeyboardInterrupt, OSError):  # told to stop, or nobody listens
        return
    finally:
        held.release()


def _receive(connection: Connection, tasks: SimpleQueue[tuple[Task, Path] | None]) -> None:
    """Take what comes, also while a picture is made."""
    while True:
        try:
            said = connection.recv()
        except (EOFError, OSError):  # killed: whoever makes the gallery again shall find nobody at work here
            os._exit(1)
        if said == STOP:
            _thread.interrupt_main()  # heard by a run, but not by somebody who waits
            tasks.put(None)
        else:
            tasks.put(said)


class _Worker:
    def __init__(self, connection: Connection) -> None:
        self._connection, self._session = connection, Session()
        self._told = 0.0

    def make(self, task: Task, run_folder: Path) -> None:
        engine = SessionEngine(self._session)
        engine.begin(lambda _: run_folder)
        self._told = 0.0
        try:
            with notices_to(self._notice):
                made = engine.make(task, self._step)
        except UserError as error:
            self._connection.send(Failure(str(error)))
        except Exception as error:
            self._connection.send(Failure(f"{type(error).__name__}: {error}"))
        else:
            self._connection.send(made)

    def _notice(self, notice: Notice) -> None:
        self._connection.send(notice)

    def _step(self, task: Task, step: Step) -> None:
        if time.monotonic() - self._told >= _SECONDS:
            self._told = time.monotonic()
            self._connection.send(step)
