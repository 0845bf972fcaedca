"""Runs: one at a time on each device, others wait for their turn, and none depends on who looks at it."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nst_lightning.callbacks import Update
from nst_lightning.console import log
from nst_lightning.errors import UserError
from nst_lightning.session import Outcome, Session
from nst_lightning.studio.asked import Asked
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.maker import make
from nst_lightning.studio.metrics import Metrics
from nst_lightning.studio.recipe import arguments
from nst_lightning.studio.records import Record
from nst_lightning.studio.shelf import Shelf
from nst_lightning.studio.uploads import Uploads

_TRIES = 3  # to go on with a run that somebody else's signal has ended without a new evaluation


@dataclass
class _Run:
    """What is being made."""

    name: str
    stop: threading.Event = field(default_factory=threading.Event)


class Workshop:
    """Makes pictures, a thread for each device.

    Args:
        shelf: The pictures.
        uploads: What they are made of.
        devices: Such as ``cpu`` or ``cuda:1``.
        metrics: Counts what is done.
        limits: How large a picture may be, and the seconds between two checkpoints of a run.
    """

    def __init__(
        self, shelf: Shelf, uploads: Uploads, devices: Sequence[str], metrics: Metrics, limits: Limits
    ) -> None:
        self._shelf, self._uploads, self._metrics, self._limits = shelf, uploads, metrics, limits
        self.devices = list(devices)
        self._turn = threading.Condition()
        self._running: dict[str, _Run] = {}
        self._to_stop: set[str] = set()  # what was being stopped: one more evaluation, and its files are written
        self._closing = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Go on with what was under way when the server ended, and begin what waits."""
        for record in self._shelf.with_status("running", "stopping", "queued"):
            if record.status == "stopping":
                self._to_stop.add(record.id)
            self._shelf.change(record.id, status="queued")
        for device in self.devices:
            thread = threading.Thread(target=self._work, args=(device,), name=f"studio {device}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self) -> None:
        """Look whether something waits."""
        with self._turn:
            self._turn.notify_all()

    def stop(self, name: str) -> bool:
        """Let a run end after its evaluation; says whether it was running."""
        with self._turn:
            run = self._running.get(name)
            if run is None:
                return False
            run.stop.set()
            return True

    def wait_for_end(self, name: str, seconds: float) -> bool:
        """Wait until a picture is not being made; says whether that is so."""
        with self._turn:
            return self._turn.wait_for(lambda: name not in self._running, seconds)

    def close(self) -> None:
        """Let runs write their checkpoints and end; they go on when the server is started again."""
        with self._turn:
            self._closing = True
            for run in self._running.values():
                run.stop.set()
            self._turn.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, device: str) -> None:
        session = Session()
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._closing or self._shelf.with_status("queued"))
                if self._closing:
                    return
                record = self._shelf.with_status("queued")[0]
                facts: dict[str, Any] = {"status": "running", "device": device, "error": None}
                if self._shelf.change(record.id, when="queued", **facts).status != "running":
                    continue  # stopped just now
                run = self._running[record.id] = _Run(record.id)
                if record.id in self._to_stop:
                    self._to_stop.discard(record.id)
                    run.stop.set()
            try:
                self._run(session, run, device)
            finally:
                with self._turn:
                    del self._running[run.name]
                    self._turn.notify_all()

    def _run(self, session: Session, run: _Run, device: str) -> None:
        """Make a picture, and say how it ended."""
        begin = time.monotonic()
        try:
            outcome = self._make(session, run, device)
        except UserError as error:
            self._fail(run.name, str(error))
        except Exception as error:  # a fault of the program's; the server goes on
            log.say("error", f"{run.name}: {type(error).__name__}: {error}", traceback=traceback.format_exc())
            self._fail(run.name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        else:
            self._end(run, outcome)
        self._metrics.seconds.inc(time.monotonic() - begin)

    def _make(self, session: Session, run: _Run, device: str) -> Outcome:
        record = self._prepared(session, run.name, device)
        place, growth, spent = self._shelf.place(run.name), self._shelf.growth(run.name), record.seconds
        growth.begin()
        made = record.evaluation

        def progress(update: Update) -> None:
            nonlocal made
            growth.see(update)
            self._metrics.evaluations.inc(max(0, update.evaluation - made))
            made = update.evaluation
            facts: dict[str, Any] = {"evaluation": made, "evaluations": update.total, "loss": update.loss}
            self._shelf.change(run.name, kept=False, seconds=spent + update.seconds, **facts)

        words = [*arguments(Asked(**record.asked), self._path), *record.more, *device_words(device)]
        for _ in range(_TRIES):
            outcome = make(session, words, place, progress, run.stop, self._limits.checkpoint_seconds)
            if outcome.evaluations >= outcome.total or run.stop.is_set():
                break
        return outcome

    def _path(self, image: str) -> str:
        return str(self._uploads.path(image))

    def _prepared(self, session: Session, name: str, device: str) -> Record:
        """Settle what is chosen when a picture begins, so that it is the same if it has to go on."""
        record = self._shelf.get(name)
        asked = Asked(**record.asked)
        if record.planned or asked.seconds is None:
            return record
        words = [*arguments(asked, self._path), *record.more, *device_words(device)]
        chosen = session.within(words, asked.seconds, time.perf_counter(), self._limits.max_size)
        return self._shelf.change(name, more=(*record.more, *chosen), planned=True)

    def _fail(self, name: str, line: str) -> None:
        with contextlib.suppress(UserError):  # it may have been removed
            self._shelf.change(name, status="failed", error=line)
            self._metrics.ended.labels("failed").inc()

    def _end(self, run: _Run, outcome: Outcome) -> None:
        whole = outcome.evaluations >= outcome.total
        asked_to_stop = self._shelf.status(run.name) == "stopping"
        status = "finished" if whole else "stopped" if asked_to_stop or not self._closing else "running"
        width, height = outcome.size
        growth = self._shelf.growth(run.name)
        with contextlib.suppress(OSError):
            growth.preview, growth.version = self._shelf.place(run.name).preview.read_bytes(), outcome.evaluations
        growth.seconds_left = None
        facts: dict[str, Any] = {
            "evaluation": outcome.evaluations,
            "evaluations": outcome.total,
            "width": width,
            "height": height,
        }
        with contextlib.suppress(UserError):
            self._shelf.change(run.name, status=status, loss=outcome.losses.get("loss"), **facts)
            self._metrics.ended.labels(status).inc()


def device_words(device: str) -> list[str]:
    """Options of ``nst fit`` for one device, such as ``cuda:1``; of a kind without a number, the first."""
    kind, _, index = device.partition(":")
    words = [f"--trainer.accelerator={kind}"]
    return [*words, f"--trainer.devices=[{index}]"] if index else words
