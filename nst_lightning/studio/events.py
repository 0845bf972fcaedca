"""Changes of pictures as a stream for each client: the newest state only, so that a slow one costs no memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

_PAUSE = 0.5  # seconds between two looks of one client's
_LOOKED = 5.0  # seconds for which a picture counts as watched after its preview was fetched


class Hub:
    """Those who watch.

    Args:
        state: Gives a picture's state as JSON text, or None if it is gone.
        names: Gives the names of all pictures, the oldest first.
    """

    def __init__(self) -> None:
        self.state: Callable[[str], str | None] = lambda name: None
        self.names: Callable[[], list[str]] = list
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: set[_Watcher] = set()
        self._looked: dict[str, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._watchers)

    def open(self) -> None:
        """Begin, in the loop of the server."""
        self._loop = asyncio.get_running_loop()

    def tell(self, name: str) -> None:
        """A picture has changed or is gone; any thread may say so."""
        loop = self._loop
        if loop is not None and self._watchers and not loop.is_closed():
            loop.call_soon_threadsafe(self._mark, name)

    def _mark(self, name: str) -> None:
        for watcher in self._watchers:
            watcher.mark(name)

    def look(self, name: str) -> None:
        """Somebody has fetched a preview."""
        with self._lock:
            self._looked[name] = time.monotonic()

    def is_watched(self, name: str) -> bool:
        """Whether somebody looks at a picture."""
        with self._lock:
            looked = self._looked.get(name, -_LOOKED)
        return time.monotonic() - looked < _LOOKED or any(item.only in {None, name} for item in list(self._watchers))

    async def stream(self, only: str | None = None, final: Callable[[str], bool] | None = None) -> AsyncIterator[Any]:
        """Events of all pictures, or of one until it has come to an end.

        Args:
            only: The one.
            final: Says of a state whether it is the end.
        """
        watcher = _Watcher(only)
        self._watchers.add(watcher)
        try:
            for name in self.names() if only is None else [only]:
                watcher.mark(name)
            while True:
                await watcher.wait()
                for name in watcher.take():
                    state = self.state(name)
                    if state is None:
                        yield {"event": "removed", "data": json.dumps({"id": name})}
                    else:
                        yield {"event": "picture", "data": state}
                    if only is not None and (state is None or (final is not None and final(state))):
                        return
                await asyncio.sleep(_PAUSE)
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    """One client."""

    def __init__(self, only: str | None) -> None:
        self.only = only
        self._changed: dict[str, None] = {}
        self._event = asyncio.Event()

    def mark(self, name: str) -> None:
        """A picture has changed."""
        if self.only in {None, name}:
            self._changed[name] = None
            self._event.set()

    async def wait(self) -> None:
        """Wait for a change."""
        await self._event.wait()

    def take(self) -> list[str]:
        """What has changed."""
        found = list(self._changed)
        self._changed.clear()
        self._event.clear()
        return found
