"""Numbered pictures of the run."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError, check_at_least
from nst_lightning.files.folders import make_folder
from nst_lightning.files.lenient import only_the_file
from nst_lightning.images.io import write_image


def _write(path: Path, picture: Tensor) -> None:
    with only_the_file(path):
        make_folder(path.parent)
        write_image(path, picture)


class Snapshots(Callback):
    """Write the picture every n evaluations, as ``snapshots/000020.png`` in the run folder.

    The loop waits only for a copy of the image; a thread encodes and writes it. Large pictures are scaled down.

    Args:
        every: Evaluations between two snapshots; 0 writes none.
        format: File format, png, jpg, webp, tif, avif or jxl.
        checkpoint: Also write a Lightning checkpoint beside each picture, to resume from.
        longest: Longest side of a snapshot in pixels.
    """

    def __init__(
        self,
        every: int = 20,
        format: Literal["png", "jpg", "webp", "tif", "avif", "jxl"] = "png",
        checkpoint: bool = False,
        longest: int = 2048,
    ) -> None:
        check_at_least("snapshots.every", every, 0, "0 writes none")
        if longest < 1:
            raise UserError(f"snapshots.longest: must be at least 1 px, got {longest}; 2048 is the default")
        self.every = every
        self.longest = longest
        self.format = format
        self.checkpoint = checkpoint
        self._writer: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Hand a copy to the writer."""
        step = trainer.global_step
        if not self.every or step % self.every:
            return
        path = Path(trainer.default_root_dir) / "snapshots" / f"{step:06d}.{self.format}"
        if trainer.is_global_zero:
            self._wait()  # at most one picture waits in memory
            self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="snapshots")
            self._pending = self._writer.submit(_write, path, pl_module.picture(self.longest))
        if self.checkpoint:  # all processes join in
            trainer.save_checkpoint(path.with_suffix(".ckpt"))

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: StyleTransfer, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Wait for the last picture: who continues shall find all before it in the folder."""
        self._wait()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Wait for the last picture, also after an exception."""
        self._wait()
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    on_exception = teardown
