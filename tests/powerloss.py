"""What a disk may hold after the machine has lost its power, made from the log of a run's calls.

A file's data is sure to be there only up to what was flushed by ``fsync``; a name that a folder was given, or lost,
only once the folder was flushed. What was not may be there all the same, each of it by itself, in whatever order the
kernel wrote it (fsync(2); Pillai et al. 2014, "All File Systems Are Not Created Equal", sections 2 and 3). A name that
was changed twice goes through its changes in their order.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from systemcalls import Call


@dataclass
class _File:
    """A file's data: as it is, and as it was when it was last flushed."""

    data: bytes = b""
    flushed: bytes = b""
    changed: int = 0  # the call that wrote to it last

    def kept(self, how: str) -> bytes:
        """What is left of it: what was flushed, all, half of what was added, or nothing but the length."""
        if how == "all" or self.data == self.flushed:
            return self.data
        if how == "flushed":
            return self.flushed
        both = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self.data, self.flushed, strict=False))
        common = sum(1 for _ in both)
        if how == "half":
            return self.data[: (common + len(self.data)) // 2]
        return self.data[:common].ljust(len(self.data), b"\0")


_WAYS = ("flushed", "all", "half", "zeros")


class _Change(NamedTuple):
    """Names that appear or go together, in one folder or between two.

    Attributes:
        gone: Path that is no longer there.
        path: Path that is.
        node: What is there: a file, or None for a folder.
    """

    gone: str | None
    path: str | None
    node: _File | None

    def touches(self, other: _Change) -> bool:
        """Whether two changes are about the same name, or one about the folder of the other."""
        mine, others = ({p for p in (c.gone, c.path) if p is not None} for c in (self, other))
        return any(a == b or Path(a).is_relative_to(b) or Path(b).is_relative_to(a) for a in mine for b in others)

    def folders(self) -> set[str]:
        """The folders that hold the names."""
        return {str(Path(path).parent) for path in (self.gone, self.path) if path is not None}


Names = dict[str, "_File | None"]


def _apply(names: Names, change: _Change) -> None:
    if change.gone is not None:
        names.pop(change.gone, None)
    if change.path is not None:
        names[change.path] = change.node


@dataclass
class Disk:
    """A disk on which calls are made one after another."""

    names: Names = field(default_factory=dict)  # as a program sees them
    lasting: Names = field(default_factory=dict)  # as they are sure to be
    pending: list[_Change] = field(default_factory=list)
    made: int = 0

    def make(self, call: Call) -> None:
        """Make a call."""
        self.made += 1
        file = self.names.get(call.path)
        if call.name == "create":
            self._change(_Change(None, call.path, _File()))
        elif call.name == "mkdir" and call.path not in self.names:
            self._change(_Change(None, call.path, None))
        elif call.name in {"unlink", "rmdir"} and call.path in self.names:
            self._change(_Change(call.path, None, None))
        elif call.name == "rename":
            self._change(_Change(call.path, call.other, file))
        elif call.name == "link" and call.other not in self.names:
            self._change(_Change(None, call.other, file))
        elif call.name == "write" and file is not None:
            before, after = file.data[: call.offset], file.data[call.offset + len(call.data) :]
            file.data = before.ljust(call.offset, b"\0") + call.data + after
            file.changed = self.made
        elif call.name == "truncate" and file is not None:
            file.data = file.data[: call.offset].ljust(call.offset, b"\0")
            file.changed = self.made
        elif call.name == "fsync" and file is not None:
            file.flushed = file.data
        elif call.name == "fsync":
            self._flush(call.path)

    def _change(self, change: _Change) -> None:
        _apply(self.names, change)
        self.pending.append(change)

    def _flush(self, folder: str) -> None:
        """Make last what a folder's names have become, and what that depends on."""
        wanted = [number for number, change in enumerate(self.pending) if folder in change.folders()]
        for number in reversed(range(len(self.pending))):
            if any(number < later and self.pending[number].touches(self.pending[later]) for later in wanted):
                wanted.append(number)
        for number in sorted(set(wanted)):
            _apply(self.lasting, self.pending[number])
        self.pending = [change for number, change in enumerate(self.pending) if number not in wanted]

    def seen(self) -> dict[str, bytes]:
        """What a program finds if the power does not fail."""
        return {path: file.data for path, file in self.names.items() if file is not None}

    def after_power_loss(self, chance: random.Random, most: int) -> Iterator[State]:
        """What the disk may hold then.

        Args:
            chance: Draws some choices of names where there are too many.
            most: How many of them at most.
        """
        count = len(self.pending)
        choices: Iterable[Sequence[int]] = itertools.product((0, 1), repeat=count)
        if 2**count > most:
            drawn = ([chance.randrange(2) for _ in range(count)] for _ in range(most - 2))
            choices = itertools.chain([[0] * count, [1] * count], drawn)
        for choice in choices:
            names, left_out = dict(self.lasting), list[_Change]()
            for change, made in zip(self.pending, choice, strict=True):
                if made and not any(change.touches(other) for other in left_out):
                    _apply(names, change)
                else:
                    left_out.append(change)
            for way in _WAYS:
                yield State(
                    frozenset(
                        (path, None if file is None else file.kept(way), 0 if file is None else file.changed)
                        for path, file in names.items()
                    )
                )


class State(NamedTuple):
    """What a disk holds.

    Attributes:
        entries: Path, data (None for a folder) and when it was written last.
    """

    entries: frozenset[tuple[str, bytes | None, int]]

    def put(self, place: Path) -> None:
        """Make an empty folder hold it; what lies in a folder that is not there cannot be found."""
        for path, data, changed in sorted(self.entries, key=lambda entry: (entry[0].count("/"), entry[2])):
            if not (place / path).parent.is_dir():
                continue
            if data is None:
                (place / path).mkdir()
            else:
                (place / path).write_bytes(data)
                os.utime(place / path, ns=(changed * 1_000_000_000,) * 2)
