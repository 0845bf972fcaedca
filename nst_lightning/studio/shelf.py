"""All pictures that the server knows: in memory, on the disk, and told to those who watch."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nst_lightning.callbacks.curves import read_table
from nst_lightning.studio.growth import Growth
from nst_lightning.studio.maker import Place
from nst_lightning.studio.records import UNDER_WAY, Record, Records
from nst_lightning.studio.refusals import UnknownError

Tell = Callable[[str], None]  # is called with a picture's name when it has changed or is gone


class Shelf:
    """Pictures by their names; threads may use it at once.

    Args:
        records: Their folder.
        tell: Hears of each change.
        pause: Says how many seconds there are to be between two previews of a picture.
    """

    def __init__(self, records: Records, tell: Tell, pause: Callable[[str], float]) -> None:
        self._records, self._tell, self._pause = records, tell, pause
        self._lock = threading.RLock()
        self._known: dict[str, Record] = {}
        self._growing: dict[str, Growth] = {}
        self._revisions: defaultdict[str, int] = defaultdict(int)
        for record in records.read_all():
            self._known[record.id] = record

    def place(self, name: str) -> Place:
        """Where a picture's files lie."""
        return Place(self._records.place(name))

    def get(self, name: str) -> Record:
        """What is known of a picture.

        Raises:
            UnknownError: If there is none.
        """
        with self._lock:
            if name not in self._known:
                raise UnknownError("picture", "see GET /api/pictures")
            return self._known[name]

    def status(self, name: str) -> str | None:
        """What a picture is doing; None if there is none."""
        with self._lock:
            return self._known[name].status if name in self._known else None

    def all(self) -> list[Record]:
        """All pictures, the newest first."""
        with self._lock:
            return sorted(self._known.values(), key=lambda record: (record.created, record.turn), reverse=True)

    def with_status(self, *states: str) -> list[Record]:
        """Pictures that do something, in the order of their turns."""
        with self._lock:
            return sorted((one for one in self._known.values() if one.status in states), key=lambda one: one.turn)

    def next_turn(self) -> int:
        """A number after all others."""
        with self._lock:
            return 1 + max((record.turn for record in self._known.values()), default=0)

    def used_images(self) -> set[str]:
        """Uploads that pictures were made of."""
        with self._lock:
            asked = [record.asked for record in self._known.values()]
        found = {one for wish in asked for one in (wish.get("content"), wish.get("content_mask")) if one}
        styles = [style for wish in asked for style in wish.get("styles", [])]
        return found | {one for style in styles for one in (style.get("image"), style.get("mask")) if one}

    def put(self, record: Record, *, kept: bool = True) -> Record:
        """Know a picture, or know it anew.

        Args:
            record: It.
            kept: Whether to write it to the disk; what changes many times a second is in the checkpoints anyway.
        """
        with self._lock:
            if kept:
                self._records.write(record)
            before = self._known.get(record.id)
            self._known[record.id] = record
            self._revisions[record.id] += 1
            moved = before is None or before.status != record.status
        self._tell(record.id)
        if moved:
            self._tell_queue()
        return record

    def _tell_queue(self) -> None:
        """Those that wait may have other places now."""
        for record in self.with_status("queued"):
            self._revisions[record.id] += 1
            self._tell(record.id)

    def change(self, name: str, *, kept: bool = True, when: str | None = None, **facts: Any) -> Record:
        """Change what is known of a picture.

        Args:
            name: It.
            kept: As for `put`.
            when: The status in which it has to be; in another one nothing is changed.
            facts: What is to be known.

        Returns:
            What is known now.

        Raises:
            UnknownError: If there is none.
        """
        with self._lock:
            known = self.get(name)
            return known if when not in {None, known.status} else self.put(replace(known, **facts), kept=kept)

    def remove(self, name: str) -> None:
        """Forget a picture, and remove its files."""
        with self._lock:
            self._known.pop(name, None)
            self._growing.pop(name, None)
            self._revisions[name] += 1
        self._records.remove(name)
        self._tell(name)
        self._tell_queue()

    def revision(self, name: str) -> int:
        """A number that grows with each change."""
        return self._revisions[name]

    def growth(self, name: str) -> Growth:
        """What is to be shown of a picture, also of one that was made before the server was started."""
        with self._lock:
            found = self._growing.get(name)
            if found is None:
                found = self._growing[name] = Growth(lambda: self._pause(name))
                self._recall(name, found)
            return found

    def _recall(self, name: str, growth: Growth) -> None:
        place = self.place(name)
        try:
            table = read_table(place.run / "metrics.csv")
            if table is not None:
                growth.recall(zip(table.steps, table.losses["loss"], strict=True))
        except (OSError, ValueError, KeyError):
            pass  # a curve that is not shown
        record = self._known.get(name)
        if record is not None and record.status not in UNDER_WAY and place.preview.is_file():
            growth.preview, growth.version = place.preview.read_bytes(), record.evaluation
