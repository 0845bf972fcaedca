"""How much of a run's time may be spent on showing it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from nst_lightning.engine.module import StyleTransfer


class Allowance:
    """A share of a run's time, and what has been spent of it.

    A part of what the whole run will allow may be spent early, when the picture changes most.

    Args:
        share: Of the run's time, from 0 to 1.

    Attributes:
        spent: Seconds so far.
        planned: Seconds that the whole run will take, as far as is known.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.begin()

    def begin(self) -> None:
        """Begin with nothing spent."""
        self.spent = self.planned = 0.0
        self._start = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._start

    @property
    def left(self) -> float:
        """Seconds that may be spent now; below 0 if too many were."""
        return self.share * max(self.elapsed, self.planned / 2) - self.spent

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time that the body takes."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.spent += time.perf_counter() - begin


def wait_for(module: StyleTransfer) -> None:
    """Wait for what the device is still doing, which is the run's own time and not that of who looks at the picture."""
    module.image.detach().flatten()[0].item()
