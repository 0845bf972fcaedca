"""Changes of pictures as a stream for each client: the newest state only, so that a slow one costs no memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

_PAUSE = 0.5  # seconds between two looks of one client's, and between two previews
_EACH = 0.075  # seconds of it for each client: what all of them are sent must not take the run's time
_UNSEEN = 5.0  # seconds between two previews that nobody looks at
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

    def pause(self) -> float:
        """Seconds between two states that a client is sent: the more there are, the longer."""
        return max(_PAUSE, _EACH * len(self._watchers))

    def pause_of_previews(self, name: str) -> float:
        """Seconds between two previews of a picture."""
        with self._lock:
            looked = self._looked.get(name, -_LOOKED)
        watched = time.monotonic() - looked < _LOOKED or any(one.only in {None, name} for one in list(self._watchers))
        return self.pause() if watched else _UNSEEN

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
                await asyncio.sleep(self.pause())
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
