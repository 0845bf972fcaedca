"""The picture as it is just now, to look at while it grows."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from PIL import Image

from nst_lightning.callbacks.allowance import Allowance, wait_for
from nst_lightning.callbacks.frames import Array, as_bytes, write_jpeg
from nst_lightning.console.terminal import Screen, open_screen
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError
from nst_lightning.files.lenient import only_the_file

NAME = "preview.jpg"
_SHARE = 0.02  # of the run's time
_QUALITY = 90


class Preview(Callback):
    """Rewrite ``preview.jpg`` in the run folder every few seconds, and show a small picture in the terminal.

    The file is whole at every moment, so a viewer that looks again when it changes shows the picture grow. At the end
    it is the result. Both take at most a fiftieth of the run's time; where they would take more, they come less often.

    A terminal that can shows the picture above the progress bar: kitty, and those that know sixel (iTerm2, WezTerm,
    foot, xterm, Windows Terminal and others). That needs the extra ``terminal``, and a bar.

    Args:
        seconds: Seconds between two, at least; 0 shows none.
        longest: Long side of the file's picture in pixels.
        terminal: Whether to show it in the terminal, too.

    Raises:
        UserError: An argument is out of its range.

    Example:
        >>> Preview(seconds=2, terminal=False).longest
        1024
    """

    def __init__(self, seconds: float = 5.0, longest: int = 1024, terminal: bool = True) -> None:
        if not seconds >= 0:
            raise UserError(f"preview.seconds: must be at least 0, got {seconds}; 0 shows none")
        if longest < 16:
            raise UserError(f"preview.longest: must be at least 16 px, got {longest}; 1024 is the default")
        self.seconds, self.longest, self.terminal = seconds, longest, terminal
        self._allowance = Allowance(_SHARE)
        self._writer: ThreadPoolExecutor | None = None
        self._pending: Future[float | None] | None = None  # gives the seconds that it takes, or None if it failed
        self._screen: Screen | None = None
        self._due = float("inf")  # seconds after the start at which the next one comes
        self._failed = False

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Start the clock."""
        self._due = self.seconds if self.seconds and trainer.is_global_zero else float("inf")
        self._failed, self._screen = False, None
        self._allowance.begin()

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Show the picture if it is time, and there is time for it."""
        if self._allowance.elapsed < self._due or self._allowance.left < 0:
            return
        if self._pending is not None and not self._pending.done():
            return
        self._wait()
        wait_for(pl_module)
        with self._allowance.spending():
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, thread_name_prefix="preview")
                self._screen = open_screen() if self.terminal else None
            picture = as_bytes(pl_module.picture(self.longest))
            if not self._failed:
                self._pending = self._writer.submit(_write, Path(trainer.default_root_dir) / NAME, picture)
            self._show(picture)
        self._due = self._allowance.elapsed + self.seconds

    def _show(self, picture: Array) -> None:
        if self._screen is None:
            return
        try:
            self._screen.show(Image.fromarray(picture))
        except Exception:  # a terminal that is gone, or a package that does not cope, must not cost the run
            self._screen = None

    def _wait(self) -> None:
        """Wait for the writer."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            taken = pending.result()
            self._failed = taken is None
            self._allowance.spent += taken or 0.0

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Leave the result in the file."""
        self._finish()
        if self.seconds and trainer.is_global_zero and not self._failed:
            _write(Path(trainer.default_root_dir) / NAME, as_bytes(pl_module.picture(self.longest)))

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Wait for the last one."""
        self._finish()

    def _finish(self) -> None:
        self._due = float("inf")
        with contextlib.ExitStack() as stack:
            if self._writer is not None:
                stack.callback(self._writer.shutdown)
            self._writer = self._screen = None
            self._wait()


def _write(path: Path, picture: Array) -> float | None:
    """Write the file; returns the seconds of computing that it took, or None if that failed, which is told of."""
    begin = time.thread_time()
    with only_the_file(path):
        write_jpeg(path, picture, _QUALITY)
        return time.thread_time() - begin
    return None
