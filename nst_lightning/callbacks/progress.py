"""What the run is doing: a line before it starts, then a bar."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from nst_lightning.errors import UserError
from nst_lightning.estimate import in_bytes, in_words
from nst_lightning.hardware import describe
from nst_lightning.module import StyleTransfer

_SLOW = 2.0  # seconds after which the bar moves anyway; reading one loss then costs nothing that shows


class Progress(ProgressBar):
    """Say device, precision, sizes and weights before the first evaluation; then show rate, time left and loss.

    Args:
        every: Evaluations between two updates, fewer where they take long; each reads the loss once.
    """

    def __init__(self, every: int = 10) -> None:
        super().__init__()
        if every < 1:
            raise UserError(f"progress.every: must be at least 1, got {every}")
        self.every = every
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._last = time.monotonic()  # when the bar moved

    def disable(self) -> None:
        """See ProgressBar; Lightning calls it on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """See ProgressBar."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Print the line and open the bar; see Callback."""
        if not self._enabled:
            return
        total = pl_module.total_evaluations
        if trainer.max_steps >= 0:
            total = min(total, trainer.max_steps)
        print(start_line(trainer, pl_module), file=sys.stderr, flush=True)  # noqa: T201
        self._bar = tqdm(total=total, initial=trainer.global_step, unit="eval", file=sys.stderr, dynamic_ncols=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Move the bar every n evaluations, and when they take long; see Callback."""
        if self._bar is None:
            return
        if trainer.global_step % self.every == 0 or time.monotonic() - self._last > _SLOW:
            self._update(trainer, pl_module)

    def _update(self, trainer: Trainer, module: StyleTransfer) -> None:
        assert self._bar is not None
        self._last = time.monotonic()
        if module.evaluation is not None:
            self._bar.set_postfix_str(f"loss {float(module.evaluation.loss.detach()):.4g}", refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Close the bar; see Callback."""
        if self._bar is not None:
            self._update(trainer, pl_module)
            self._bar.close()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Close the bar, so that what follows starts on a line of its own; see Callback."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def start_line(trainer: Trainer, module: StyleTransfer) -> str:
    """One line: device, precision and reason, sizes, length, weights, time and memory, run folder."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    hardware = describe(module.device.type)
    reason = getattr(trainer, "precision_reason", "asked for")
    height, width = data.stage_size()
    styles = ", ".join(f"{w}x{h}" for h, w in data.style_sizes())
    stages = f" in {len(module.stages)} stages" if len(module.stages) > 1 else ""
    origins = ", then ".join(dict.fromkeys(module.extractor_of(stage).origin for stage in module.stages))
    tiles = sorted({plan.tile for plan in module.plans if plan.tile is not None})
    tiled = f" in tiles of {' and '.join(map(str, tiles))} px" if tiles else ""
    lean = [module.history_of(plan) for plan in module.plans if plan.choice]
    tiled += f", history of {lean[-1]} pairs in bfloat16 for want of memory" if lean else ""
    memory = max((plan.memory for plan in module.plans), default=0)
    needs = f"; takes about {in_words(module.estimated_seconds())}"
    needs += f" and {memory / 2**30:.1f} GiB" if memory else ""
    if trainer.checkpoint_callback is not None:
        needs += f"; checkpoints of about {in_bytes(module.checkpoint_bytes())}"
    return (
        f"{hardware.accelerator} ({hardware.name}), {trainer.precision} ({reason}); image {width}x{height} px{tiled}, "
        f"style {styles} px; {module.total_evaluations} evaluations{stages}; weights: {origins}{needs}; "
        f"run folder {trainer.default_root_dir}"
    )
