"""A table with one row for every evaluation."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError
from nst_lightning.files.appending import append
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder
from nst_lightning.files.lenient import only_the_file

_SLOW = 30.0  # seconds after which rows are written, however few


class Metrics(Callback):
    """Write ``metrics.csv``: step, stage, weighted losses by group and by layer, and seconds.

    Values stay on the device and are read together every n evaluations, so the loop never waits for one number. On an
    accelerator ``seconds`` is when the evaluation was handed over; it is exact where values are read.

    Args:
        every: Evaluations between two writes, at most; they are also written every 30 seconds.
    """

    def __init__(self, every: int = 25) -> None:
        if every < 1:
            raise UserError(f"metrics.every: must be at least 1, got {every}")
        self.every = every
        self._rows: list[tuple[int, int, float, Tensor]] = []
        self._pending = ""  # rows that the file does not hold yet
        self._first = 0  # step of the first of them
        self._length: int | None = None  # bytes of the file, once it holds nothing from there on but what we wrote
        self._begin = 0.0
        self._written = time.perf_counter()  # when the file was
        self._before = 0.0  # seconds of the runs that this one continues

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Forget an earlier run, which may have been cut short."""
        self._rows.clear()
        self._begin = self._before = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the clock with the first evaluation."""
        if not self._begin:
            self._begin = time.perf_counter() - self._before

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Keep a row, and write the rows kept every n evaluations."""
        assert pl_module.evaluation is not None
        loss, parts = pl_module.evaluation
        values = torch.cat([loss.detach().view(1), parts])
        self._before = time.perf_counter() - self._begin
        self._rows.append((trainer.global_step, pl_module.current_stage, self._before, values))
        if len(self._rows) >= self.every or time.perf_counter() - self._written > _SLOW:
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, module: StyleTransfer) -> None:
        if not trainer.is_global_zero:
            self._rows.clear()
        if not self._rows and not self._pending:
            return
        path = Path(trainer.default_root_dir) / "metrics.csv"
        groups, columns = module.objective.part_groups, module.objective.group_names
        values = torch.stack([row[-1] for row in self._rows]).tolist() if self._rows else []  # the one read
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        for (step, stage, seconds, _), (loss, *parts) in zip(self._rows, values, strict=True):
            sums = [sum((p for p, g in zip(parts, groups, strict=True) if g == column), 0.0) for column in columns]
            writer.writerow([step, stage, loss, *sums, *parts, f"{seconds:.6f}"])
        self._first = self._rows[0][0] if self._rows and not self._pending else self._first
        self._rows.clear()
        self._written = time.perf_counter()
        self._pending += text.getvalue()  # what cannot be written now is written next time
        with only_the_file(path):
            if self._length is not None and path.exists() and path.stat().st_size >= self._length:
                self._length = append(path, self._pending.encode(), self._length)
            else:
                make_folder(path.parent)
                header = ",".join(["step", "stage", *module.objective.loss_names, "seconds"]) + "\r\n"
                table = ((_rows_before(path, self._first) or header) + self._pending).encode()
                with replacing(path) as file:
                    file.write(table)
                self._length = len(table)
            self._pending = ""

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Begin a new table, or go on with a resumed run's."""
        self._pending, self._length = "", None

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Write the rest."""
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Write the rest: what was computed is kept."""
        self._write(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: StyleTransfer, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Write the rows: who continues from the checkpoint shall find all before it in the file."""
        self._write(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far, so that a continued run counts on."""
        return {"seconds": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._before = state_dict["seconds"]


def _rows_before(path: Path, step: int) -> str:
    """What the file of a run that is now continued holds: header and the rows of evaluations before one.

    Its end may be missing, or hold anything, where the machine lost its power while rows were added.

    Raises:
        OSError: If it cannot be read just now; then it is not to be replaced.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return ""
    columns = lines[0].count(b",") if lines else 0
    kept = lines[:1]
    for line in lines[1:]:
        if not line.endswith(b"\n") or line.count(b",") != columns or not line.split(b",", 1)[0].isdigit():
            break
        if int(line.split(b",", 1)[0]) < step:
            kept.append(line)
    return b"".join(kept).decode(errors="replace") if columns else ""
