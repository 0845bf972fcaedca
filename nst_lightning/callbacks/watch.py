"""Notices a run that goes wrong, and keeps the best image it had."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from nst_lightning.engine.ledger import Reader, Row
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import check_at_least, notice

_WORSE = 0.1  # a last loss that is worse than the best one by more than this fraction means that the way led astray
_PROGRESS = 1e-5  # a best loss that falls by less than this fraction is no progress


class Watch(Reader):
    """Keep the image with the lowest loss of a stage, and warn when the loss does not do what it should.

    The image kept is the one that the loss was computed of, before the step that followed. It replaces the last
    one if that has gone astray; a run that converges ends with its last image, which is better still. Where memory
    is short, none is kept. Losses stay on the device and are read every n evaluations.

    Args:
        every: Evaluations between two looks.
        patience: Evaluations with a loss above the stage's first one, or without progress, before a warning.
    """

    def __init__(self, every: int = 25, patience: int = 50) -> None:
        super().__init__(every)
        check_at_least("watch.patience", patience, 1)
        self.patience = patience
        self._anew = False  # whether what a checkpoint knows is of another objective
        self._begin()

    def _begin(self) -> None:
        self._image: Tensor | None = None
        self._first, self._best, self._best_loss, self._last = float("inf"), float("inf"), torch.tensor(torch.inf), 0.0
        self._above = self._without = 0
        self._told: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Forget an earlier run, which may have been cut short."""
        super().setup(trainer, pl_module, stage)
        self._anew = False
        self._begin()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: StyleTransfer, optimizer: Any) -> None:  # type: ignore[override]
        """Compare the image that was just evaluated with the best one."""
        assert pl_module.evaluation is not None
        loss, image = pl_module.evaluation.loss.detach(), pl_module.image.detach()
        if pl_module.is_short_of_memory:
            return
        if self._image is None or self._image.shape != image.shape:
            self._image, self._best_loss = image.clone(), torch.full_like(loss, torch.inf)
        better = loss < self._best_loss  # false for NaN
        torch.where(better, image, self._image, out=self._image)
        self._best_loss = torch.where(better, loss, self._best_loss)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Go back to the best image if the last ones are much worse, before it is enlarged or written."""
        pl_module.settle()
        self.take_all(trainer, pl_module)
        has_best = math.isfinite(self._best)
        if self._image is not None and not (has_best and self._last <= self._best + _WORSE * abs(self._best)):
            if has_best:
                with torch.no_grad():
                    pl_module.image.copy_(self._image)
                pl_module.went_back = True
            self._warn(
                "end",
                f"the stage ends with loss {self._last:.4g} and had {self._best:.4g}; the image that had it is kept; "
                "lower model.optimizer.lr or max_step",
            )
        self._begin()

    def take(self, trainer: Trainer, module: StyleTransfer, rows: list[Row]) -> None:
        """Look at the losses."""
        self._compare([row.losses["loss"] for row in rows])
        where = f"at evaluation {trainer.global_step}"
        if self._above >= self.patience:
            self._warn(
                "diverging",
                f"{where} the loss has been above its start ({self._first:.4g}) for {self._above} evaluations; lower "
                "model.optimizer.lr or max_step",
            )
        elif self._without >= 2 * self.patience:
            self._warn(
                "stalled",
                f"{where} the loss has not fallen below {self._best:.4g} for {self._without} evaluations; fewer "
                "model.evaluations would do, or another model.optimizer would go on",
            )

    def _compare(self, losses: list[float]) -> None:
        for loss in losses:
            self._first = loss if self._first == float("inf") else self._first
            self._above = self._above + 1 if not loss <= self._first else 0
            least = _PROGRESS * abs(self._best) if math.isfinite(self._best) else 0.0
            self._without = 0 if loss < self._best - least else self._without + 1
            self._best = min(self._best, loss) if math.isfinite(loss) else self._best
            self._last = loss

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            notice(text)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to end as the uninterrupted one."""
        return {
            "image": self._image,
            "best_loss": self._best_loss,
            "counts": [self._first, self._best, self._last, self._above, self._without],
            "losses": [row.losses["loss"] for row in self.rows],  # not compared yet; up to version 0.1 they are tensors
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: StyleTransfer, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """See whether losses from before can be compared with those to come."""
        self._anew = pl_module.is_other_objective

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on watching, or begin anew where the objective is another one."""
        if self._anew:
            return
        self._image, self._best_loss = state_dict["image"], state_dict["best_loss"]
        self._first, self._best, self._last, self._above, self._without = state_dict["counts"]
        self._compare([float(loss) for loss in state_dict["losses"]])

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Bring what a checkpoint held to the device."""
        if self._image is not None:
            self._image = self._image.to(pl_module.image)
            self._best_loss = self._best_loss.to(pl_module.image)
