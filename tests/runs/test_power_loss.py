"""Whatever is left of a run's files when the machine loses its power, the run goes on from it.

The long form is ``pytest -m slow tests/runs/test_power_loss.py``.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from forked import nst
from powerloss import Disk, State
from systemcalls import Call
from test_kills import RICH, VARIANTS, Left, command, go_on, make_place, went_wrong

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def states_of(calls: Sequence[Call], most: int) -> Iterator[tuple[int, State]]:
    """What the disk may hold after each call of a run, each state once, with the number of the call."""
    chance, disk, seen = random.Random(0), Disk(), set[State]()
    for number, call in enumerate(calls):
        disk.make(call)
        for state in disk.after_power_loss(chance, most):
            if state not in seen:
                seen.add(state)
                yield number, state


def what_is_lost(place: Path, pair: tuple[Path, Path], options: Sequence[object], state: State, whole: Left) -> str:
    """Go on from what a disk holds, and tell what is not as it should be; nothing if all is well."""
    state.put(make_place(place))
    ended = go_on(place, pair, *options)
    left = Left.of(place)
    if "nothing is left to do" in ended.said:  # older checkpoints may be there again, and no run goes on to remove them
        left.checkpoints = left.checkpoints[-len(whole.checkpoints) :]
    return went_wrong(ended) or ", ".join(left.differs(whole))


def record(place: Path, pair: tuple[Path, Path], *options: object) -> tuple[Left, list[Call]]:
    """A run and its calls, which are all that it did to its folder."""
    place.mkdir()
    ended = nst(place, *command(pair, *options))
    assert ended.code == 0, ended.said
    disk = Disk()
    for call in ended.calls:
        disk.make(call)
    assert disk.seen() == {
        str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }
    return Left.of(place), ended.calls


def lost_in(place: Path, pair: tuple[Path, Path], options: Sequence[object], every: int) -> dict[str, str]:
    """Go on from what the disk may hold, every so many of it, and give what goes wrong."""
    whole, calls = record(place, pair, *options)
    found, tried = {}, 0
    for number, (call, state) in enumerate(states_of(calls, 16)):
        if number % every == 0:
            shutil.rmtree(place)  # the configuration names it, so all states are in one place
            found[f"{number} after {calls[call].name} {calls[call].path}"] = what_is_lost(
                place, pair, options, state, whole
            )
            tried += 1
    print(f"{tried} states tried")
    return {state: what for state, what in found.items() if what}


def test_some_of_what_may_be_left(tmp_path, pair, use_tiny_weights):
    assert not lost_in(tmp_path / "place", pair, RICH, every=120)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["output", "averaging in two stages", "rich"])
def test_all_that_may_be_left(tmp_path, pair, use_tiny_weights, variant):
    """Some 700 states each, from at most 16 choices of names after each call; half an hour each."""
    assert not lost_in(tmp_path / "place", pair, VARIANTS[variant], every=1)


def test_what_a_run_has_written_stays(tmp_path, pair, use_tiny_weights):
    """Once it is over; checkpoints that it removed may still be there."""
    place = tmp_path / "place"
    whole, calls = record(place, pair, "--output", "out/mine.png")
    disk, chance = Disk(), random.Random(0)
    for call in calls:
        disk.make(call)
    for number, state in enumerate(disk.after_power_loss(chance, 16)):
        again = tmp_path / str(number)
        again.mkdir()
        state.put(again)
        found = Left.of(again)
        found.checkpoints = found.checkpoints[-1:]
        assert not found.differs(whole)


class TestDisk:
    """The model by hand."""

    @staticmethod
    def after(*calls: Call) -> set[frozenset[tuple[str, bytes | None]]]:
        disk = Disk()
        for call in calls:
            disk.make(call)
        states = disk.after_power_loss(random.Random(0), 1000)
        return {frozenset((path, data) for path, data, _ in state.entries) for state in states}

    def test_what_is_not_flushed_may_be_there_or_not(self):
        found = self.after(Call("create", "a"), Call("write", "a", data=b"1234"))
        assert found == {frozenset(), *(frozenset({("a", data)}) for data in (b"", b"12", b"1234", b"\0\0\0\0"))}

    def test_a_file_needs_its_folder_flushed_too(self):
        calls = Call("create", "a"), Call("write", "a", data=b"1"), Call("fsync", "a")
        assert self.after(*calls) == {frozenset(), frozenset({("a", b"1")})}
        assert self.after(*calls, Call("fsync", ".")) == {frozenset({("a", b"1")})}

    def test_a_rename_is_made_whole_or_not_at_all(self):
        before = Call("create", "a"), Call("write", "a", data=b"1"), Call("fsync", "a"), Call("fsync", ".")
        calls = (
            *before,
            Call("create", "b"),
            Call("write", "b", data=b"2"),
            Call("fsync", "b"),
            Call("rename", "b", "a"),
        )
        assert self.after(*calls) == {
            frozenset({("a", b"1")}),
            frozenset({("a", b"1"), ("b", b"2")}),
            frozenset({("a", b"2")}),
        }

    def test_names_in_several_folders_come_in_any_order(self):
        found = self.after(Call("mkdir", "x"), Call("mkdir", "y"))
        assert found == {
            frozenset(),
            frozenset({("x", None)}),
            frozenset({("y", None)}),
            frozenset({("x", None), ("y", None)}),
        }
