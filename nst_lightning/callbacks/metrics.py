"""A table with one row for every evaluation."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from nst_lightning.engine.ledger import Reader, Row
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.files.appending import append
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder
from nst_lightning.files.lenient import only_the_file


class Metrics(Reader):
    """Write ``metrics.csv``: step, stage, weighted losses by group and by layer, and seconds.

    A run that goes on with another objective may have other losses: the table then has the columns of both, with empty
    cells where one of them has no such loss.

    Values stay on the device and are read together every n evaluations, so the loop never waits for one number. On an
    accelerator ``seconds`` is when the evaluation was handed over; it is exact where values are read.

    Args:
        every: Evaluations between two writes, at most; they are also written every 30 seconds.
    """

    def __init__(self, every: int = 25) -> None:
        super().__init__(every)
        self._pending: list[dict[str, Any]] = []  # rows that the file does not hold yet
        self._columns: list[str] = []  # of the file, once it holds nothing but what we wrote
        self._length: int | None = None  # bytes of the file, once it holds nothing from there on but what we wrote
        self._begin = 0.0
        self._before = 0.0  # seconds up to the last row taken, with those of runs that this one continues

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Forget an earlier run, which may have been cut short."""
        super().setup(trainer, pl_module, stage)
        self._begin = self._before = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the clock with the first evaluation."""
        if not self._begin:
            self._begin = time.perf_counter() - self._before

    def take(self, trainer: Trainer, module: StyleTransfer, rows: list[Row]) -> None:
        """Write rows, and those that could not be written before."""
        self._before = self._seconds(rows)
        if not trainer.is_global_zero or not (rows or self._pending):
            return
        path = Path(trainer.default_root_dir) / "metrics.csv"
        self._pending += [  # what cannot be written now is written next time
            {"step": row.step, "stage": row.stage, **row.losses, "seconds": f"{row.time - self._begin:.6f}"}
            for row in rows
        ]
        with only_the_file(path):
            if self._length is not None and path.exists() and path.stat().st_size >= self._length:
                self._length = append(path, _text(self._columns, self._pending), self._length)
            else:
                make_folder(path.parent)
                own = ["step", "stage", *module.objective.loss_names, "seconds"]
                before = _rows_before(path, self._pending[0]["step"])
                self._columns, table = _table(before, own, self._pending)
                with replacing(path) as file:
                    file.write(table)
                self._length = len(table)
            self._pending = []

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Begin a new table, or go on with a resumed run's."""
        self._pending, self._length = [], None

    def _seconds(self, rows: list[Row]) -> float:
        return rows[-1].time - self._begin if rows else self._before

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far, from which the clock of a continued run goes on."""
        return {"seconds": self._seconds(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from these seconds."""
        self._before = state_dict["seconds"]


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of a table."""
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="").writerows(rows)
    return text.getvalue().encode()


def _table(before: bytes, own: list[str], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], bytes]:
    """The rows of before and those that follow, under the columns of both; the columns, and the table."""
    header = (",".join(own) + "\r\n").encode()
    if not before or before.startswith(header):
        return own, (before or header) + _text(own, rows)
    known = csv.DictReader(io.StringIO(before.decode(errors="replace"), newline=""))
    others = [name for name in known.fieldnames or () if name not in own]
    columns = [*own[:-1], *others, own[-1]]
    return columns, (",".join(columns) + "\r\n").encode() + _text(columns, [*known, *rows])


def _rows_before(path: Path, step: int) -> bytes:
    """What the file of a run that is now continued holds: header and the rows of evaluations before one.

    Its end may be missing, or hold anything, where the machine lost its power while rows were added.

    Raises:
        OSError: If it cannot be read just now; then it is not to be replaced.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return b""
    columns = lines[0].count(b",") if lines else 0
    before = lines[:1]
    for line in lines[1:]:
        if not line.endswith(b"\n") or line.count(b",") != columns or not line.split(b",", 1)[0].isdigit():
            break
        if int(line.split(b",", 1)[0]) < step:
            before.append(line)
    return b"".join(before) if columns else b""
