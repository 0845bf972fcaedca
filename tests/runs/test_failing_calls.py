"""Calls that fail cost a file at most; where nothing could be made at all, one line says so before any work.

The long form (``pytest -m slow tests/runs/test_failing_calls.py``) fails every call with every error and takes an hour
on two cores.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from forked import Ended, nst
from systemcalls import Call, Plan
from test_kills import command, go_on

from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.images import read_image
from nst_lightning.runs.checkpoint import read_checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

NAMES = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ESTALE", "EMFILE")
ERRORS = [getattr(errno, name) for name in NAMES]
OPTIONS = ("--output", "out/mine.png", "--fallback", "../safe")  # on another disk, as it were


def pictures(place: Path) -> list[Path]:
    """Where the final picture was written."""
    return [*place.glob("runs/*/result.png"), *place.glob("out/*.png"), *place.parent.glob("safe/*.png")]


def what_is_wrong(place: Path, ended: Ended, plan: Plan) -> str:
    """What a run with calls that failed did that it should not; nothing if all is well."""
    last = " ".join(ended.said.strip().splitlines()[-1:])
    if "Traceback" in ended.said or ended.code not in {0, 2}:
        return f"exit code {ended.code}: {last}"
    left = [path.name for path in place.rglob(".nst-*")]
    if left and not plan.on:
        return f"left {left}: {last}"
    if ended.code == 2:
        lines = ended.said.strip().splitlines()
        if not lines[-1].startswith("nst: error: "):
            return f"no line: {last}"
        return f"after work: {lines}" if any("evaluation " in line for line in lines) else ""
    found = pictures(place)
    if not found:
        return f"no picture: {ended.said}"
    for path in found:
        read_image(path)
    for path in place.glob("runs/*/checkpoints/*.ckpt"):
        read_checkpoint(path)
    return ""


def fail(folder: Path, pair: tuple[Path, Path], plan: Plan, *options: object) -> tuple[Path, Ended]:
    """Run with calls that fail, in a folder of its own."""
    place = folder / f"{plan.at}-{plan.error}-{plan.on}-{plan.same}" / "place"
    place.mkdir(parents=True)
    return place, nst(place, *command(pair, *OPTIONS, *options), plan=plan)


def wrong_with(folder: Path, pair: tuple[Path, Path], plans: Iterable[Plan]) -> dict[str, str]:
    """Run with each plan, several at once, and give those with which something goes wrong."""

    def look(plan: Plan) -> str:
        place, ended = fail(folder, pair, plan)
        try:
            return what_is_wrong(place, ended, plan)
        finally:
            shutil.rmtree(place.parent)

    plans = list(plans)
    with ThreadPoolExecutor(os.cpu_count() or 1) as several:
        found = dict(zip(map(str, plans), several.map(look, plans), strict=True))
    print(f"{len(plans)} failing calls tried")
    return {plan: what for plan, what in found.items() if what}


def undisturbed(place: Path, pair: tuple[Path, Path], *options: object) -> list[Call]:
    """The calls of a run in which none fails."""
    place.mkdir()
    ended = nst(place, *command(pair, *OPTIONS, *options))
    assert ended.code == 0, ended.said
    return ended.calls


def target(calls: Sequence[Call], number: int) -> str:
    """The file that a call is about, by the name that it gets in the end."""
    named = {call.path: call.other for call in calls if call.name in {"rename", "link"}}
    return named.get(calls[number].path, calls[number].path)


ALONE = ("--snapshot_every", 0, "--preview_seconds", 0)
"""Without what is written beside the rest, so that calls have the same numbers in each run."""


@pytest.fixture(scope="module")
def calls_alone(pair, tiny_weights, tmp_path_factory):
    """The calls of a run that writes nothing beside the rest, and in which none fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT_VARIABLE, str(tiny_weights))
        return undisturbed(tmp_path_factory.mktemp("alone") / "whole", pair, *ALONE)


SITES = (
    "config.yaml",
    "metrics.csv",
    "snapshots/",
    "checkpoints/",
    "/result.png",
    "mine.png",
    "figure.png",
    "report.html",
)


@pytest.mark.parametrize("site", SITES)
def test_some_calls_of_every_file(tmp_path, pair, use_tiny_weights, calls_alone, site):
    """One fails, and what it was about is named; all else is there."""
    alone, calls = ALONE, calls_alone
    if site == "snapshots/":
        alone = ("--checkpoint_every", 0, "--checkpoint_seconds", 0, "--preview_seconds", 0)
        calls = undisturbed(tmp_path / "whole", pair, *alone)
    ours = [n for n in range(len(calls)) if site in target(calls, n) and ".tmp" in calls[n].path]
    # Of checkpoints each kind of call; of the rest two, for they are written by the same code.
    for kind in ("create", "write", "fsync", "close", "rename") if site == "checkpoints/" else ("write", "rename"):
        number = next((n for n in ours if calls[n].name == kind), None)
        if number is None:  # pictures get their names by links; where there are none, by renaming
            assert kind == "rename"
            continue
        plan = Plan(number, ERRORS[number % len(ERRORS)])
        place, ended = fail(tmp_path, pair, plan, *alone)
        assert not what_is_wrong(place, ended, plan)
        (line,) = (line for line in ended.said.splitlines() if "nst: warning: " in line)
        assert site in line
        assert os.strerror(ERRORS[number % len(ERRORS)]) in line
        (run,) = (place / "runs").iterdir()
        for name in ("config.yaml", "figure.png", "report.html", "result.png"):
            assert (run / name).exists() == (site.strip("/") != name), plan


@pytest.mark.parametrize("same", [True, False], ids=["calls of one kind", "all calls"])
def test_some_calls_and_all_after_them(tmp_path, pair, use_tiny_weights, calls_alone, same):
    points = range(3, len(calls_alone), 50)
    plans = [Plan(at, ERRORS[turn % len(ERRORS)], on=True, same=same) for turn, at in enumerate(points)]
    assert not wrong_with(tmp_path, pair, plans)


def test_a_run_folder_that_cannot_be_made(tmp_path, pair, use_tiny_weights, calls_alone):
    made = [n for n, call in enumerate(calls_alone) if call.name == "mkdir" and call.path.startswith("runs")][:2]
    for number in made:
        place, ended = fail(tmp_path, pair, Plan(number, errno.EDQUOT))
        assert ended.code == 2
        (line,) = ended.said.strip().splitlines()
        assert line.startswith(
            "nst: error: trainer.default_root_dir: must be a folder that can be written, got 'runs' ("
        )
        assert os.strerror(errno.EDQUOT) in line
        assert not list(place.glob("runs/*"))


def _each(count: int, *, on: bool, same: bool) -> list[Plan]:
    return [Plan(at, error, on=on, same=same) for at in range(count) for error in ERRORS]


@pytest.mark.slow
@pytest.mark.parametrize("way", [(False, False), (True, True), (True, False)], ids=["once", "of one kind", "all"])
def test_every_call_with_every_error(tmp_path, pair, use_tiny_weights, way):
    count = len(undisturbed(tmp_path / "whole", pair))
    assert not wrong_with(tmp_path, pair, _each(count, on=way[0], same=way[1]))


@pytest.mark.slow
def test_every_call_of_a_run_that_goes_on(tmp_path, pair, use_tiny_weights):
    """It finds its files there already, reads some of them and puts others in their places."""

    def begun(name: str) -> Path:
        place = tmp_path / name / "place"
        place.mkdir(parents=True)
        assert nst(place, *command(pair, *OPTIONS), plan=Plan(150)).code == -9
        return place

    count = len(go_on(begun("whole"), pair, *OPTIONS).calls)
    found = {}
    for turn, plan in enumerate(_each(count, on=False, same=False)[::3]):
        place = begun(str(turn))
        found[str(plan)] = what_is_wrong(place, go_on(place, pair, *OPTIONS, plan=plan), plan)
        shutil.rmtree(place.parent)
    assert not {plan: what for plan, what in found.items() if what}
