"""Killed before any call that touches its files, a run goes on to the picture of one that nobody killed.

The long form (``pytest -m slow tests/runs/test_kills.py``) kills before every call that leaves another state on the
disk, of every variant, and takes half an hour on two cores.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from forked import Ended, Running, nst
from PIL import Image
from systemcalls import Call, Plan

from nst_lightning.images import read_image
from nst_lightning.runs.checkpoint import read_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

_TWO_STAGES = "[{evaluations: 3, scale: 0.5}, {evaluations: 3}]"
RICH = (
    *("--trainer.callbacks", "[Averaging]", "--model.stages", _TWO_STAGES),
    *("--data.init", "noise", "--output", "out/mine.png"),
)
VARIANTS: dict[str, tuple[object, ...]] = {
    "plain": (),
    "output": ("--output", "out/mine.png"),
    "two stages": ("--model.stages", _TWO_STAGES),
    "two even stages": ("--model.stages", "[{evaluations: 4, scale: 0.5}, {evaluations: 4}]", "--model.evaluations", 8),
    "averaging": ("--trainer.callbacks", "[Averaging]"),
    "averaging in two stages": ("--trainer.callbacks", "[Averaging]", "--model.stages", _TWO_STAGES),
    "Adam": ("--model.optimizer", "Adam", "--model.optimizer.lr", 0.02),
    "noise": ("--data.init", "noise"),
    "double precision": ("--trainer.precision", "64-true"),
    "masks": ("--data.content_mask", "mask.png"),
    "tiles": ("--data.size", 96, "--model.tile", 64),
    "by time": ("--checkpoint_every", 0, "--checkpoint_seconds", 0.001),
    "a limit": ("--trainer.max_steps", 4),
    "stopped early": (
        "--trainer.callbacks",
        "[{class_path: EarlyStopping, init_args: {monitor: loss, patience: 3, min_delta: 100}}]",
    ),
    "looked at where stages end": (
        "--trainer.callbacks",
        "[{class_path: EarlyStopping, init_args: {monitor: loss, check_on_train_epoch_end: true}}]",
        *("--model.stages", _TWO_STAGES),
    ),
    "rich": RICH,
}


def command(pair: tuple[Path, Path], *more: object) -> list[object]:
    """Make a small picture, with many files on the way."""
    return [
        *("fit", "--data.content", pair[0], "--data.style", pair[1], "--data.size", 48, "--model.evaluations", 6),
        *("--trainer.accelerator", "cpu", "--checkpoint_every", 2, "--snapshot_every", 2, *more),
    ]


def make_place(place: Path) -> Path:
    """A folder to run in, with a mask."""
    place.mkdir()
    Image.frombytes("L", (4, 3), bytes([0, 0, 255, 255] * 3)).save(place / "mask.png")
    return place


@dataclass
class Left:
    """What a run leaves behind.

    Attributes:
        pictures: Their pixels by the name of the file, of result, figure, snapshots and output.
        image: Of the newest checkpoint.
        checkpoints: Their names.
        rows: Of the table, but for seconds.
        state: What the run's record says.
        unfinished: Files that were begun.
    """

    pictures: dict[str, torch.Tensor]
    image: torch.Tensor
    checkpoints: list[str]
    rows: list[list[str]]
    state: dict[str, object]
    unfinished: list[str]

    @classmethod
    def of(cls, place: Path) -> Left:
        """Read it, from the newest run in a folder."""
        run = max((place / "runs").iterdir())
        pictures = {str(path.relative_to(run)): read_image(path).pixels for path in run.rglob("*.png")}
        pictures |= {path.name: read_image(path).pixels for path in (place / "out").glob("*.png")}
        checkpoints = sorted(run.glob("checkpoints/*.ckpt"))
        image = read_checkpoint(checkpoints[-1])["state_dict"]["image"] if checkpoints else torch.empty(0)
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = [row[:-1] for row in csv.reader(file)]
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        state = {name: record[name] for name in ("state", "reason", "evaluations", "of")}
        unfinished = [path.name for path in run.rglob(".nst-*")]
        return cls(pictures, image, [path.name for path in checkpoints], rows, state, unfinished)

    def differs(self, other: Left, *, but: Sequence[str] = ()) -> list[str]:
        """In what it does, but for some pictures."""
        names = sorted(self.pictures.keys() ^ other.pictures.keys())
        found = [f"only one has {', '.join(names)}"] if names else []
        both = (self.pictures.keys() & other.pictures.keys()) - set(but)
        found += sorted(name for name in both if not torch.equal(self.pictures[name], other.pictures[name]))
        found += [] if torch.equal(self.image, other.image) else ["image"]
        found += [name for name in ("rows", "state", "unfinished") if getattr(self, name) != getattr(other, name)]
        # One that was to be removed next may stay where a run did not come to its end.
        kept = slice(-1, None) if other.state["state"] == "cut short" else slice(None)
        return found + (["checkpoints"] if self.checkpoints[kept] != other.checkpoints[kept] else [])


def go_on(place: Path, pair: tuple[Path, Path], *options: object, plan: Plan | None = None) -> Ended:
    """Continue what there is, or begin anew where that is nothing."""
    if any(place.glob("runs/*/checkpoints/*.ckpt")):
        return nst(place, "fit", "--ckpt_path", "last", plan=plan)
    return nst(place, *command(pair, *options), plan=plan)


def went_wrong(ended: Ended) -> str:
    """What a run that goes on did that it should not; that nothing is left to do is true, if nothing differs."""
    if ended.code == 0 or "nothing is left to do" in ended.said:
        return ""
    return f"exit code {ended.code}: {ended.said.strip().splitlines()[-1:]}"


def what_is_lost(place: Path, pair: tuple[Path, Path], options: Sequence[object], at: int, whole: Left) -> str:
    """Kill a run before a call, go on, and tell what is not as it should be; nothing if all is well."""
    killed = nst(make_place(place), *command(pair, *options), plan=Plan(at))
    assert killed.code in {-9, 0}, killed.said
    return went_wrong(go_on(place, pair, *options)) or ", ".join(Left.of(place).differs(whole))


def what_is_lost_in_two_kills(place: Path, pair: tuple[Path, Path], at: int, whole: Left) -> str:
    """Kill a run in its middle, and the one that goes on before a call."""
    nst(make_place(place), *command(pair, *RICH), plan=Plan(130))
    assert any(place.glob("runs/*/checkpoints/*.ckpt"))
    assert go_on(place, pair, *RICH, plan=Plan(at)).code in {-9, 0}
    return went_wrong(go_on(place, pair, *RICH)) or ", ".join(Left.of(place).differs(whole))


def what_is_lost_with_more(place: Path, pair: tuple[Path, Path], at: int, whole: Left) -> str:
    """Kill a run before a call and go on with more evaluations than it was to have."""
    nst(make_place(place), *command(pair), plan=Plan(at))
    more = "--model.evaluations", 8
    if any(place.glob("runs/*/checkpoints/*.ckpt")):
        ended = nst(place, "fit", "--ckpt_path", "last", *more)
    else:
        ended = nst(place, *command(pair, *more))
    # The strip of the figure shows other evaluations of a longer run.
    return went_wrong(ended) or ", ".join(Left.of(place).differs(whole, but=["figure.png"]))


def start_two(place: Path, args: Sequence[object], plan: Callable[[Path], Plan] | None = None) -> list[Running]:
    """Start two processes on one picture, as a launcher does; what is planned is the first one's."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1]), "WORLD_SIZE": "2"}
    more = "--trainer.devices", 2
    second = Running(place, [*args, *more], None, {**meet, "LOCAL_RANK": "1"})
    planned = None if plan is None else plan(second.number)
    return [Running(place, [*args, *more], planned, {**meet, "LOCAL_RANK": "0"}), second]


def what_two_lose(place: Path, pair: tuple[Path, Path], at: int, which: str, whole: Left) -> str:
    """Kill one of two processes, or both, before a call of the first one, and go on with two."""
    options = command(pair, "--data.size", 96, "--model.tile", 64)
    kills: dict[str, Callable[[Path], Plan]] = {
        "the first": lambda number: Plan(at),
        "the other": lambda number: Plan(at, helper=number, itself=False),
        "both": lambda number: Plan(at, helper=number),
    }
    for ended in [run.wait() for run in start_two(make_place(place), options, kills[which])]:
        assert "Traceback" not in ended.said, ended.said
    last = ["fit", "--ckpt_path", "last"] if any(place.glob("runs/*/checkpoints/*.ckpt")) else options
    ended, _ = (run.wait() for run in start_two(place, last))
    return went_wrong(ended) or ", ".join(Left.of(place).differs(whole))


def lost_at(points: Sequence[int], place: Path, look: Callable[[Path, int], str]) -> dict[int, str]:
    """Look at each point, several at once, and give those at which something is lost."""

    def at(point: int) -> str:
        folder = place / f"{point}" / "place"
        folder.parent.mkdir()
        try:
            return look(folder, point)
        except (AssertionError, FileNotFoundError, KeyError, ValueError) as error:
            return f"{type(error).__name__}: {str(error)[-300:]}"
        finally:
            shutil.rmtree(folder.parent)

    with ThreadPoolExecutor(os.cpu_count() or 1) as several:
        found = dict(zip(points, several.map(at, points), strict=True))
    print(f"{len(points)} points tried")
    return {point: what for point, what in found.items() if what}


def undisturbed(place: Path, pair: tuple[Path, Path], *options: object) -> tuple[Left, list[int]]:
    """A run that nobody kills, and the numbers of calls before which the disk is in another state."""
    ended = nst(make_place(place), *command(pair, *options))
    assert ended.code == 0, ended.said
    return Left.of(place), points_of(ended.calls)


def points_of(calls: Sequence[Call]) -> list[int]:
    """Calls that find another state on the disk than the one before them did, and the end.

    To open, flush and close changes nothing for a process that is killed; of several writes to one file in a row, which
    has no name of its own yet, the second and those after the last one are taken.
    """
    points = [0]
    for number, (before, call) in enumerate(pairwise(calls), start=1):
        changes = before.name not in {"open", "fsync", "close"}
        row = before.name == call.name == "write" and before.path == call.path
        if changes and not (row and number > 1 and calls[number - 2].name == "write"):
            points.append(number)
    return points


def test_killed_before_some_calls(tmp_path, pair, use_tiny_weights):
    whole, points = undisturbed(tmp_path / "whole", pair, *RICH)
    points = [*points[3:-30:36], *points[-30::10]]
    assert not lost_at(points, tmp_path, lambda place, at: what_is_lost(place, pair, RICH, at, whole))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_before_every_call(tmp_path, pair, use_tiny_weights, variant):
    options = VARIANTS[variant]
    whole, points = undisturbed(tmp_path / "whole", pair, *options)
    if whole.state["state"] == "cut short":  # when all is written, it goes on to more evaluations
        points = points[:-1]
    assert not lost_at(points, tmp_path, lambda place, at: what_is_lost(place, pair, options, at, whole))


@pytest.mark.slow
def test_killed_twice(tmp_path, pair, use_tiny_weights):
    whole, _ = undisturbed(tmp_path / "whole", pair, *RICH)
    once = make_place(tmp_path / "once")
    nst(once, *command(pair, *RICH), plan=Plan(130))
    points = points_of(go_on(once, pair, *RICH).calls)
    assert not lost_at(points, tmp_path, lambda place, at: what_is_lost_in_two_kills(place, pair, at, whole))


@pytest.mark.slow
def test_killed_and_given_more_evaluations(tmp_path, pair, use_tiny_weights):
    whole, _ = undisturbed(tmp_path / "whole", pair, "--model.evaluations", 8)
    _, points = undisturbed(tmp_path / "shorter", pair)
    assert not lost_at(points, tmp_path, lambda place, at: what_is_lost_with_more(place, pair, at, whole))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["the first", "the other", "both"])
def test_one_of_two_processes_is_killed(tmp_path, pair, use_tiny_weights, which):
    place = make_place(tmp_path / "whole")
    first, _ = (run.wait() for run in start_two(place, command(pair, "--data.size", 96, "--model.tile", 64)))
    assert first.code == 0, first.said
    # Before they have met, the other one waits for the first as long as PyTorch lets it; a launcher would end it.
    met = next(number for number, call in enumerate(first.calls) if call.other.endswith("run.json"))
    whole, points = Left.of(place), [number for number in points_of(first.calls) if number > met]
    assert not lost_at(points, tmp_path, lambda place, at: what_two_lose(place, pair, at, which, whole))
