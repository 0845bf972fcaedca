"""Threads that want the same device, and what they change for the whole process: one run after the other."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

_devices: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_devices_lock = threading.Lock()


@contextlib.contextmanager
def turn_on(device: str) -> Iterator[None]:
    """Have a device for oneself; other threads of this process wait.

    Args:
        device: Its name, such as ``cpu`` or ``cuda:0``.
    """
    with _devices_lock:
        lock = _devices[device]
    with lock:
        yield


class Together:
    """A context that several threads may be in at once: the first one enters what it stands for, the last one leaves.

    Args:
        make: Makes the context that is entered.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0
        self._context: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        """Enter, if nobody has."""
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        """Leave, if nobody else is inside."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                assert self._context is not None
                self._context.__exit__(None, None, None)
                self._context = None
