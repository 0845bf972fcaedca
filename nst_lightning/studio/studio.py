"""What the studio can do, whoever asks for it: the page, a program or a test."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nst_lightning.errors import UserError
from nst_lightning.files.folders import make_folder
from nst_lightning.files.yaml_text import load_yaml
from nst_lightning.runs.folder import check_folder
from nst_lightning.studio.asked import Asked, More
from nst_lightning.studio.configuration import BEGINNING
from nst_lightning.studio.estimate import Estimator
from nst_lightning.studio.events import Hub
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.maker import Place
from nst_lightning.studio.metrics import Metrics
from nst_lightning.studio.records import Record, Records, new_record
from nst_lightning.studio.refusals import RefusedError
from nst_lightning.studio.shelf import Shelf
from nst_lightning.studio.uploads import Uploads
from nst_lightning.studio.views import Views
from nst_lightning.studio.workshop import Workshop

_LEAST, _MOST = 10, 100  # evaluations of a picture that begins with another one of half its size
_PATIENCE = 600.0  # seconds in which an evaluation is over
_SWEEP = 600.0  # seconds between two looks for old uploads
_COUNT = "--model.evaluations="
_STRENGTH = "--model.strength="
_LENGTH = (_COUNT, "--model.stages=")


class Studio:
    """Uploads, pictures and what makes them, in a folder.

    Args:
        folder: Where all of it lies; one server at a time works there.
        devices: Such as ``cpu`` or ``cuda:1``.
        limits: What is taken from outside.

    Raises:
        UserError: If the folder cannot be written to, or another server works there.
    """

    def __init__(self, folder: Path, devices: Sequence[str], limits: Limits | None = None) -> None:
        check_folder(folder, "--folder")
        self.folder, self.limits, self.metrics, self.hub = make_folder(folder), limits or Limits(), Metrics(), Hub()
        self._hold = FileLock(self.folder / ".lock", thread_local=False)  # a thread of the loop closes
        try:
            self._hold.acquire(timeout=1.0)
        except Timeout:
            raise UserError(
                f"--folder: must be one in which no other studio works, got '{folder}'; end that, or choose another"
            ) from None
        except (OSError, NotImplementedError):  # a file system that knows no locks
            pass
        self.uploads = Uploads(self.folder / "uploads", self.limits)
        self.shelf = Shelf(Records(self.folder / "pictures"), self.hub.tell, self.hub.pause_of_previews)
        self.workshop = Workshop(self.shelf, self.uploads, devices, self.metrics, self.limits)
        self.estimator = Estimator(self.uploads, self.limits, devices[0])
        self.views = Views(self.shelf, self.uploads)
        self.hub.state, self.hub.names = self.views.text, self.views.names
        self._submitting = threading.Lock()
        self._closed = threading.Event()
        self._show_figures()

    def _show_figures(self) -> None:
        states = ("queued", "running", "stopping", "stopped", "finished", "failed")
        self.metrics.states(states, lambda state: len(self.shelf.with_status(state)))
        self.metrics.gauge("nst_queue_length", "Pictures that wait", lambda: len(self.shelf.with_status("queued")))
        self.metrics.gauge("nst_uploads_kept", "Uploads that are kept", lambda: len(self.uploads))
        self.metrics.gauge("nst_watchers", "Clients that watch", lambda: len(self.hub))

    def open(self) -> None:
        """Go on with what was under way."""
        self.workshop.start()
        threading.Thread(target=self._sweep, name="studio sweep", daemon=True).start()

    def close(self) -> None:
        """Let runs write their checkpoints, and give the folder back."""
        self._closed.set()
        self.workshop.close()
        self._hold.release()

    def _sweep(self) -> None:
        while True:
            self.uploads.sweep(self.shelf.used_images())
            if self._closed.wait(_SWEEP):
                return

    def submit(self, asked: Asked) -> Record:
        """Ask for a picture.

        Raises:
            UserError: If it cannot be made, or too many wait.
        """
        with self._submitting:
            self._check_room()
            plan = self.estimator.plan(asked, measured=False)
            return self._put(_new(asked.model_dump(), self.shelf.next_turn(), plan))

    def _check_room(self) -> None:
        if len(self.shelf.with_status("queued")) >= self.limits.queued:
            raise RefusedError(
                f"queue: must hold at most {self.limits.queued} pictures, got one more; wait", 429, "queue"
            )

    def _put(self, record: Record) -> Record:
        record = self.shelf.put(record)
        self.workshop.wake()
        return record

    def stop(self, name: str) -> Record:
        """Let a picture be as it is; one that waits is not begun."""
        record = self.shelf.change(name, when="queued", status="stopped")
        if record.status == "stopped":
            return record
        record = self.shelf.change(name, when="running", status="stopping")
        if record.status not in {"stopping", "finished"}:
            raise RefusedError(
                f"picture: must be running or queued, it is {record.status}; continue it first", 409, "picture"
            )
        self.workshop.stop(name)
        return self.shelf.get(name)

    def go_on(self, name: str, more: More) -> Record:
        """Go on with a picture from where it is, with the same state of the optimiser.

        Raises:
            UserError: If it is under way, or there is nothing to go on from.
        """
        with self._submitting:
            record = self.shelf.get(name)
            if record.status not in {"stopped", "finished", "failed"}:
                raise RefusedError(f"picture: must have ended, it is {record.status}; stop it first", 409, "picture")
            self._check_room()
            asked, words = dict(record.asked), list(record.more)
            if more.strength is not None:
                asked["strength"] = more.strength
                words = [word for word in words if not word.startswith(_STRENGTH)]
                if more.strength == 1:  # which goes without saying, but for the checkpoint's own
                    words.append(f"{_STRENGTH}1.0")
            count = more.evaluations
            if count is None and record.status == "finished":
                count = max(1, record.evaluations // 2)
            total = record.evaluations
            if count is not None:
                begun = self.shelf.place(name).goes_on
                if not begun:
                    asked["seconds"] = None  # which the number takes the place of
                total = record.evaluation + count if begun else count
                # One that has not begun keeps the stages that it was to have, in which its evaluations are shared out.
                words = [word for word in words if not word.startswith(_LENGTH if begun else _COUNT)]
                if begun:
                    words.append("--model.stages=null")
                words.append(f"{_COUNT}{total}")
            turn = self.shelf.next_turn()
            changed = replace(record, asked=asked, more=tuple(words), status="queued", turn=turn, error=None)
            return self._put(replace(changed, evaluations=total))

    def larger(self, name: str) -> Record:
        """Ask for a picture twice as large, which begins with the one that is there.

        Raises:
            UserError: If there is none yet, or it would be too large.
        """
        with self._submitting:
            self._check_room()
            parent, place = self.shelf.get(name), self.shelf.place(name)
            if not place.fine.is_file():
                raise RefusedError(
                    "picture: must have a result, got none yet; stop it, or wait for its end", 409, "picture"
                )
            wish, length = _enlarged(parent, place)
            child = secrets.token_hex(8)
            beginning = make_folder(self.shelf.place(child).folder) / BEGINNING
            try:
                shutil.copyfile(place.fine, beginning)
                words = (f"--data.init={beginning}", *length)
                plan = self.estimator.plan(Asked(**wish), words, measured=False)
            except BaseException:
                shutil.rmtree(beginning.parent, ignore_errors=True)
                raise
            record = _new(wish, self.shelf.next_turn(), plan, child)
            return self._put(replace(record, parent=name, more=words))

    def remove(self, name: str) -> None:
        """Stop a picture, and remove it with its files."""
        self.shelf.change(name, when="queued", status="stopped")
        self.workshop.stop(name)
        if not self.workshop.wait_for_end(name, _PATIENCE):
            raise RefusedError("picture: must come to its end first, it has not; try again", 409, "picture")
        self.shelf.remove(name)


def _enlarged(parent: Record, place: Place) -> tuple[dict[str, Any], list[str]]:
    """What is asked for and the options for the length, for one stage with the network of the parent's last."""
    made = load_yaml(place.settings.read_text(encoding="utf-8")) if place.settings.is_file() else {}
    wish = dict(parent.asked)
    leave_out = {"data.init", "model.stages", "model.evaluations"}
    wish["options"] = {key: value for key, value in wish["options"].items() if key not in leave_out}
    style_size = (made.get("data") or {}).get("style_size")  # which the preset may have said
    if style_size is not None:
        wish["options"]["data.style_size"] = 2 * style_size
    short = wish["options"].get("data.side") or (made.get("data") or {}).get("side")  # which the preset may have said
    side = min if short == "short" else max
    wish |= {"size": 2 * side(parent.width, parent.height), "evaluations": None, "seconds": None}
    counts = (parent.plan or {}).get("stages") or [parent.evaluations]
    count = min(_MOST, max(_LEAST, int(counts[-1]) // 2))
    stages = (made.get("model") or {}).get("stages") or [{}]
    if not stages[-1].get("extractor"):
        return wish, ["--model.stages=null", f"--model.evaluations={count}"]
    stage = {"evaluations": count, "extractor": stages[-1]["extractor"]}
    return wish, [f"--model.stages={json.dumps([stage])}", "--model.evaluations=null"]


def _new(asked: dict[str, Any], turn: int, plan: dict[str, Any], name: str = "") -> Record:
    size = {key: plan[key] for key in ("width", "height", "evaluations")}
    return new_record(name or secrets.token_hex(8), asked, turn, plan=plan, **size)
