"""A picture as it grows: what is to be shown of it, taken in a small share of its time."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable

from PIL import Image

from nst_lightning.callbacks import Update
from nst_lightning.callbacks.frames import as_bytes

LONGEST = 1024  # pixels of a preview's long side
_SHARE = 0.02  # of the run's time
_AHEAD = 0.5  # seconds of computing that may be spent before the run has earned them
_POINTS = 500
_QUALITY = 88


class Growth:
    """The latest preview, the curve of losses, and how fast a run is.

    Args:
        pause: Says how many seconds there are to be between two previews.
    """

    def __init__(self, pause: Callable[[], float]) -> None:
        self._pause, self._lock = pause, threading.Lock()
        self.preview: bytes | None = None  # JPEG
        self.version = 0  # the evaluation that it is of
        self._curve: list[tuple[int, float]] = []
        self._every = 1  # evaluations between two points
        self._begin = self._taken = 0.0
        self._spent = 0.0
        self._pace: tuple[int, float] | None = None  # first evaluation of this part of the run, and when
        self.seconds_left: float | None = None

    def begin(self) -> None:
        """A run begins, or goes on."""
        self._begin, self._taken, self._spent, self._pace = time.monotonic(), 0.0, 0.0, None
        self.seconds_left = None

    def see(self, update: Update) -> None:
        """Take what an update says, and a preview if it is time."""
        now = time.monotonic()
        if self._pace is None:
            self._pace = update.evaluation, now
        elif update.evaluation > self._pace[0]:
            rate = (update.evaluation - self._pace[0]) / max(now - self._pace[1], 1e-6)
            self.seconds_left = (update.total - update.evaluation) / rate
        self._add(update.evaluation, update.loss)
        if now - self._taken >= self._pause() and self._spent <= _AHEAD + _SHARE * (now - self._begin):
            self._taken = now
            # The run waits for it; its thread's own time alone would leave out what the device does.
            picture = as_bytes(update.preview(LONGEST))
            self.show(picture, update.evaluation)
            self._spent += time.monotonic() - now

    def show(self, picture: object, evaluation: int) -> None:
        """Make the preview of a picture, (H, W, 3) of bytes, after an evaluation."""
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=_QUALITY)  # type: ignore[arg-type]
        with self._lock:
            self.preview, self.version = out.getvalue(), evaluation

    def _add(self, evaluation: int, loss: float) -> None:
        with self._lock:
            if self._curve and evaluation < self._curve[-1][0] + self._every:
                return
            self._curve.append((evaluation, loss))
            if len(self._curve) > _POINTS:
                self._curve, self._every = self._curve[::2], 2 * self._every

    def recall(self, points: Iterable[tuple[int, float]]) -> None:
        """Know a curve from before."""
        for evaluation, loss in points:
            self._add(evaluation, loss)

    def curve(self) -> list[tuple[int, float]]:
        """Evaluations and losses, at most `_POINTS` of them."""
        with self._lock:
            return list(self._curve)
