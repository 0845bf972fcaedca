"""What is known of each picture, on the disk at every moment, so that a server that is killed goes on where it was."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from nst_lightning.files.atomic import replacing, sweep
from nst_lightning.files.folders import make_folder

Status = Literal["queued", "running", "stopping", "stopped", "finished", "failed"]
UNDER_WAY = ("queued", "running", "stopping")
_RECORD = "picture.json"
_GONE = ".gone"  # what folders end with that are being removed


@dataclass(frozen=True)
class Record:
    """A picture.

    Attributes:
        id: Its name, 16 hexadecimal digits.
        asked: What was asked for, as JSON.
        status: What it is doing.
        created: When it was asked for, in seconds since the epoch.
        turn: Pictures that wait are made in this order.
        evaluation: How many evaluations are made.
        evaluations: How many it will have; 0 if that is not known yet.
        loss: The last one.
        seconds: For which it has been computed.
        width: In pixels; 0 if that is not known yet.
        height: Likewise.
        parent: The picture that it began with.
        error: Why it failed.
        device: What it was made on last.
        more: Options of ``nst fit`` that follow those of what was asked for.
        planned: Whether these hold what was chosen when it was begun.
        plan: What it was to take, as it was foretold.
    """

    id: str
    asked: dict[str, Any]
    status: Status = "queued"
    created: float = 0.0
    turn: int = 0
    evaluation: int = 0
    evaluations: int = 0
    loss: float | None = None
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    parent: str | None = None
    error: str | None = None
    device: str = ""
    more: tuple[str, ...] = ()
    planned: bool = False
    plan: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def created_iso(self) -> str:
        """When it was asked for, in UTC."""
        return datetime.fromtimestamp(self.created, timezone.utc).isoformat(timespec="seconds")


class Records:
    """The folder of pictures, one folder each.

    Args:
        folder: Where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        for path in folder.glob(f"*{_GONE}"):
            shutil.rmtree(path, ignore_errors=True)

    def place(self, name: str) -> Path:
        """The folder of a picture."""
        return self.folder / name

    def read_all(self) -> list[Record]:
        """All of them, the oldest first; a folder without a whole record is no picture's."""
        found = []
        for place in self.folder.iterdir():
            with contextlib.suppress(OSError):
                sweep(place)
            record = _read(place / _RECORD)
            if record is None or record.id != place.name:
                continue
            found.append(record)
        return sorted(found, key=lambda record: (record.created, record.id))

    def write(self, record: Record) -> None:
        """Keep a record.

        Raises:
            OSError: The disk refuses it.
        """
        place = make_folder(self.place(record.id))
        with replacing(place / _RECORD) as file:
            file.write(json.dumps(asdict(record), indent=1).encode())

    def remove(self, name: str) -> None:
        """Remove a picture with all that belongs to it."""
        gone = self.folder / f"{name}{_GONE}"
        with contextlib.suppress(FileNotFoundError):
            self.place(name).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def new_record(name: str, asked: dict[str, Any], turn: int, **known: Any) -> Record:
    """A picture that waits."""
    return Record(name, asked, created=time.time(), turn=turn, **known)


def _read(path: Path) -> Record | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        known = {item.name for item in fields(Record)}
        record = Record(**{name: value for name, value in facts.items() if name in known})
        if record.status not in get_args(Status):
            return None
        return replace(record, more=tuple(record.more))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
