"""The losses of a run: noted after each evaluation, left on the device, and read once for all callbacks."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from nst_lightning.errors import check_at_least

if TYPE_CHECKING:  # the module brings the ledger along
    from nst_lightning.engine.module import StyleTransfer
    from nst_lightning.objective.objective import Objective


@dataclass(eq=False)
class Row:
    """One evaluation."""

    step: int  # its number, from 1
    stage: int  # index of its stage
    time: float  # when it was over, or handed to an accelerator, by `time.perf_counter`
    _objective: Objective
    _unread: WeakKeyDictionary[Row, Tensor]  # (1 + K,): loss and parts of rows that somebody still holds
    _read: list[float] = field(default_factory=list)  # the same, once it is known

    @property
    def losses(self) -> dict[str, float]:
        """Weighted losses by name, as in `Objective.loss_names`; all that wait on the device are read together."""
        if not self._read:
            rows, values = zip(*self._unread.items(), strict=True)
            for row, read in zip(rows, torch.stack(values).tolist(), strict=True):
                row._read = read
            self._unread.clear()
        loss, *parts = self._read
        grouped = list(zip(self._objective.part_groups, parts, strict=True))
        sums = [sum((part for group, part in grouped if group == name), 0.0) for name in self._objective.group_names]
        return dict(zip(self._objective.loss_names, [loss, *sums, *parts], strict=True))


class Ledger(Callback):
    """Note each evaluation, and give the row to each `Reader` among the callbacks; it is kept while one of them does.

    After the step, because going backward may evaluate again in smaller tiles.
    """

    def __init__(self) -> None:
        self._unread: WeakKeyDictionary[Row, Tensor] = WeakKeyDictionary()

    def on_fit_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Come before the readers."""
        trainer.callbacks = [self, *(other for other in trainer.callbacks if other is not self)]  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Note an evaluation."""
        assert pl_module.evaluation is not None
        loss, parts = pl_module.evaluation
        step, stage, now = trainer.global_step, pl_module.current_stage, time.perf_counter()
        row = Row(step, stage, now, pl_module.objective, self._unread)
        self._unread[row] = torch.cat([loss.detach().view(1), parts])
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Reader):
                callback.rows.append(row)


class Reader(Callback):
    """A callback that takes rows of the `Ledger`, many at a time, and all before a checkpoint and when a run ends.

    Args:
        every: Evaluations after which it takes them.
        seconds: Seconds after which it takes them, however few.
    """

    def __init__(self, every: int, seconds: float = 30.0) -> None:
        super().__init__()
        check_at_least(f"{type(self).__name__.lower()}.every", every, 1)
        self.every, self._at_most = every, seconds
        self.rows: list[Row] = []  # not taken yet
        self._taken = 0.0  # when the last ones were

    @abstractmethod
    def take(self, trainer: Trainer, module: StyleTransfer, rows: list[Row]) -> None:
        """Do something with rows, in order; there may be none."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run, which may have been cut short."""
        super().setup(trainer, pl_module, stage)
        self.rows, self._taken = [], time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Take rows if it is time."""
        if len(self.rows) >= self.every or time.perf_counter() - self._taken > self._at_most:
            self.take_all(trainer, pl_module)

    def take_all(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Take what there is, before a checkpoint, too: who continues from it does not come by it again."""
        rows, self.rows = self.rows, []
        self._taken = time.perf_counter()
        self.take(trainer, pl_module, rows)

    on_train_end = on_exception = on_save_checkpoint = take_all  # type: ignore[assignment]
