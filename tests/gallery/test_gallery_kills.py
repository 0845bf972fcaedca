"""Killed at any moment and made again, a gallery has every picture, none made twice, bitwise as without a kill.

``pytest -m slow tests/gallery/test_gallery_kills.py`` kills galleries of sixteen pictures at ten random moments, and a
small one before every call that touches its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from forked import Running, nst
from painter import put_picture
from systemcalls import Plan

from nst_lightning.images import read_image

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

SIDE = int(os.environ.get("NST_KILLED_GALLERY_SIZE", "48"))  # pixels of the sixteen pictures


def make_place(place: Path, count: int) -> Path:
    """A folder with as many photographs as paintings."""
    for kind in ("photos", "paintings"):
        for index in range(count):
            put_picture(place / kind / f"{index}.png", (40 * index, 30, 200 - 40 * index), (SIDE, SIDE * 3 // 4))
    return place


def command(evaluations: int, side: int = 32) -> list[object]:
    return [
        *("gallery", "photos", "--styles", "paintings", "-o", "out", "--size", side, "--json"),
        *("--model.evaluations", evaluations, "--checkpoint_every", 3),
    ]


def pictures_of(place: Path) -> dict[str, torch.Tensor]:
    return {path.name: read_image(path).pixels for path in sorted((place / "out").glob("*.png"))}


def events_of(said: str) -> list[dict[str, object]]:
    """The events that were said; a kill may have cut the last line."""
    found = []
    for line in said.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def made_in(said: str) -> list[object]:
    return [event["picture"] for event in events_of(said) if event["event"] == "picture"]


def hidden(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "out/.gallery").iterdir() if path.suffix != ".json")


def differences(place: Path, whole: dict[str, torch.Tensor]) -> list[str]:
    """What is not as in a gallery that nobody killed."""
    found = pictures_of(place)
    wrong = sorted(found.keys() ^ whole.keys())
    wrong += [name for name in found.keys() & whole.keys() if not torch.equal(found[name], whole[name])]
    return wrong + [name for name in hidden(place) if name != ".lock"] + [
        str(path) for path in place.rglob(".nst-*")
    ]  # fmt: skip


def wait_for_plan(running: Running) -> float:
    """Wait until a gallery is about to make its first picture; returns how long that took, in seconds."""
    begin = time.monotonic()
    said = running.number.with_suffix(".said")
    while not said.exists() or '"plan"' not in said.read_text(encoding="utf-8"):
        assert time.monotonic() < begin + 300
        time.sleep(0.02)
    return time.monotonic() - begin


@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path, use_tiny_weights):
    whole, place = make_place(tmp_path / "whole", 4), make_place(tmp_path / "place", 4)
    running = Running(whole, command(30, SIDE))
    start_up, begin = wait_for_plan(running), time.monotonic()
    assert running.wait().code == 0
    longest = (time.monotonic() - begin) / 7
    expected = pictures_of(whole)
    assert len(expected) == 16
    moments = random.Random()
    made: list[object] = []
    identities: dict[str, tuple[int, int]] = {}
    went_on = 0
    for kill in range(10):
        running = Running(place, command(30, SIDE))
        if kill % 5 == 4:  # while it looks what is finished
            time.sleep(moments.uniform(0, start_up))
        else:
            wait_for_plan(running)
            time.sleep(moments.uniform(0, longest))
        with contextlib.suppress(ProcessLookupError):  # on a machine that has become faster, it may be at its end
            os.kill(int(running.number.read_text(encoding="ascii")), signal.SIGKILL)
        said = running.wait().said
        first = next((event for event in events_of(said) if event["event"] == "progress"), None)
        went_on += first is not None and first["evaluation"] > 3
        made += made_in(said)
        now = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (place / "out").glob("*.png")}
        assert now.items() >= identities.items()  # what is there is not touched again
        identities = now
    ended = nst(place, *command(30, SIDE))
    assert ended.code == 0, ended.said
    made += made_in(ended.said)
    print(f"{len(identities)} of 16 pictures after ten kills; {went_on} runs began with one that went on")
    assert identities
    assert sorted(made) == sorted(set(made))
    assert not differences(place, expected)
    assert made_in(nst(place, *command(30, SIDE)).said) == []


def what_is_lost(place: Path, at: int, whole: dict[str, torch.Tensor]) -> list[str]:
    """Kill a gallery before a call, make it again, and tell what is not as it should be."""
    make_place(place, 1)
    put_picture(place / "photos/1.png", (90, 200, 10), (SIDE, SIDE))
    killed = nst(place, *command(7), plan=Plan(at))
    assert killed.code in {-9, 0}, killed.said
    before = {path: path.stat().st_ino for path in (place / "out").glob("*.png")}
    again = nst(place, *command(7))
    twice = [str(path) for path, number in before.items() if path.stat().st_ino != number]
    return [*twice, *differences(place, whole), *([] if again.code == 0 else [again.said])]


@pytest.fixture
def undisturbed(tmp_path, use_tiny_weights):
    """Pictures of a gallery of two that nobody killed, and how many calls touched its folder."""
    place = make_place(tmp_path / "whole", 1)
    put_picture(place / "photos/1.png", (90, 200, 10), (SIDE, SIDE))
    ended = nst(place, *command(7))
    assert ended.code == 0, ended.said
    changing = [number for number, call in enumerate(ended.calls) if call.name not in {"open", "fsync", "close"}]
    return pictures_of(place), changing


def test_killed_before_some_calls(tmp_path, undisturbed):
    whole, points = undisturbed
    # In the first picture's run, and when record, picture and page of the second one are written.
    for at in [points[len(points) // 3], *points[-12::6]]:
        assert not what_is_lost(tmp_path / str(at), at, whole)


@pytest.mark.slow
def test_killed_before_every_call(tmp_path, undisturbed):
    whole, points = undisturbed
    lost = {at: what_is_lost(tmp_path / str(at), at, whole) for at in points}
    print(f"{len(points)} points tried")
    assert not {at: what for at, what in lost.items() if what}
