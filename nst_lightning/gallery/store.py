"""What lies in a gallery's folder: its pictures, and in ``.gallery`` records, and runs that are under way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from nst_lightning.errors import UserError
from nst_lightning.files.atomic import keeping, sweep
from nst_lightning.files.folders import make_folder
from nst_lightning.gallery.engine import Made
from nst_lightning.gallery.judging import Task
from nst_lightning.runs.folder import check_folder
from nst_lightning.runs.overwriting import may_be_replaced

HIDDEN = ".gallery"
OWNER = "gallery"  # whose files are unfinished
_GONE = ".gone"  # what run folders end with that are being removed
_PATIENCE = 1.0  # seconds: whoever only looks is soon done


@dataclass(frozen=True)
class Record:
    """What is known of a finished picture beside its pixels.

    Attributes:
        evaluations: After how many it was finished.
        seconds: How long the last part of its run took; None if that is not known.
        width: In pixels.
        height: In pixels.
        loss: The last one; None if that is not known.
        continued: Whether its run went on from a checkpoint.
        device: What it was made on.
        made: When, in UTC, as ISO 8601 has it.
    """

    evaluations: int
    seconds: float | None = None
    width: int = 0
    height: int = 0
    loss: float | None = None
    continued: bool = False
    device: str = ""
    made: str = ""


class Store:
    """A gallery's folder.

    Args:
        folder: Where; it is made when something is written.

    Raises:
        UserError: If it cannot be written to, or is a file.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--output: must be a folder, got the file '{folder}'; give another, for all pictures")
        check_folder(folder, "--output")
        self.folder = folder

    @contextlib.contextmanager
    def held(self, names: Iterable[str]) -> Iterator[None]:
        """Keep the folder for this process until the body ends, or the process does in whatever way.

        What a process that was killed has left unfinished is removed.

        Args:
            names: Of the pictures, which may lie in folders below.

        Raises:
            UserError: If another process works in it.
        """
        make_folder(self.folder / HIDDEN)
        lock = FileLock(self.folder / HIDDEN / ".lock")
        with contextlib.suppress(OSError, NotImplementedError):  # a file system that knows no locks
            try:
                lock.acquire(timeout=_PATIENCE)
            except Timeout:
                raise UserError(
                    f"--output: must be a folder in which no other gallery is being made, got '{self.folder}'; wait "
                    "for that, or choose another"
                ) from None
        try:
            for folder in {self.folder, self.folder / HIDDEN, *((self.folder / name).parent for name in names)}:
                sweep(folder, OWNER)
            for folder in (self.folder / HIDDEN).glob(f"*{_GONE}"):  # what a killed process was removing
                shutil.rmtree(folder, ignore_errors=True)
            yield
        finally:
            lock.release()

    def path(self, task: Task) -> Path:
        """Where a picture goes."""
        return self.folder / task.row.name

    def run_folder(self, task: Task) -> Path:
        """Where the run of a picture keeps what it needs to go on."""
        return self.folder / HIDDEN / task.fingerprint

    def finished(self, task: Task) -> Record | None:
        """What is known of a picture, if it is there and finished."""
        record = self._record(task)
        if not task.is_made_by(self.path(task), record.evaluations if record else None):
            return None
        return record or Record(task.evaluations)

    def _record(self, task: Task) -> Record | None:
        try:
            found = json.loads(self._place_of_record(task).read_text(encoding="utf-8"))
            return Record(**found)
        except (OSError, ValueError, TypeError):  # none, or damaged
            return None

    def _place_of_record(self, task: Task) -> Path:
        return self.folder / HIDDEN / f"{task.fingerprint}.json"

    def write(self, task: Task, made: Made) -> tuple[Record, Path | None]:
        """Write a picture, and forget its run; another picture that is in its place is moved aside.

        Whatever happens in between, what is there afterwards is enough to go on without another evaluation.

        Returns:
            The record, and where the other picture has gone, if there was one.

        Raises:
            OSError: The folder cannot be written to, or the disk is full.
        """
        width, height = made.size
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = Record(made.evaluations, made.seconds, width, height, made.loss, made.continued, made.device, now)
        before = self._record(task)
        if made.seconds is None and before is not None:  # killed when the record was written, and the picture not yet
            record = before
        with keeping(self._place_of_record(task), None, OWNER) as new:
            new.file.write((json.dumps(asdict(record)) + "\n").encode())
        path = self.path(task)
        make_folder(path.parent)
        settings = {"Fingerprint": task.fingerprint, "Evaluations": str(made.evaluations)}
        with keeping(path, lambda other: may_be_replaced(other, settings), OWNER) as new:
            new.file.write(made.picture)
        self.forget_run(task)
        return record, new.aside

    def forget_run(self, task: Task) -> None:
        """Remove the folder of a run whose picture is there."""
        folder = self.run_folder(task)
        if folder.exists():
            # Away under one name at once: half a run folder must not be taken for a run.
            gone = folder.with_name(folder.name + _GONE)
            with contextlib.suppress(OSError):
                shutil.rmtree(gone, ignore_errors=True)
                os.replace(folder, gone)  # noqa: PTH105
                shutil.rmtree(gone, ignore_errors=True)
