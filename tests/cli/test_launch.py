"""Where several processes begin, and when a run is given up; what a launched process reports."""

from __future__ import annotations

import json
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import __version__ as lightning_version

from nst_lightning.cli.launch import _Beginnings
from nst_lightning.errors import UserError
from nst_lightning.process.launched import VARIABLE, LostConnectionError, Report, Start, launched, reports
from nst_lightning.process.launcher import Failure, _code

KILLED = Failure(2, 2, -9)


def checkpoint(folder, step):
    path = folder / "checkpoints" / f"{step:06d}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"global_step": step, "epoch": 0, "state_dict": {"image": torch.zeros(1, 3, 2, 2)}, "loops": {}}
    optimizer = [{"param_groups": [{}]}]
    torch.save({**content, "optimizer_states": optimizer, "pytorch-lightning_version": lightning_version}, path)
    return path


def beginnings(folder, given=None, machines=1):
    resumed = None if given is None else SimpleNamespace(path=given)
    config = SimpleNamespace(output=None)
    return _Beginnings(
        SimpleNamespace(folder=folder, resumed=resumed, config=config, processes=2, all_processes=2 * machines)
    )


def test_a_run_without_a_checkpoint_begins_anew_in_its_folder(tmp_path, capsys):
    plan = beginnings(tmp_path)
    assert plan(None) == Start(tmp_path)
    (tmp_path / "snapshots").mkdir()
    for name in (".lock", "metrics.csv", "snapshots/000005.png"):
        (tmp_path / name).touch()
    assert plan(KILLED) == Start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert capsys.readouterr().err == "nst: warning: process 2 of 2 ended by signal 9 (SIGKILL); the run begins anew\n"


def test_it_goes_on_from_the_newest_that_it_wrote_and_that_is_whole(tmp_path, capsys):
    given, later = checkpoint(tmp_path, 10), checkpoint(tmp_path, 20)  # of a run that went on from there, then
    plan = beginnings(tmp_path, given)
    assert plan(None) == Start(tmp_path, given)
    assert plan(KILLED) == Start(tmp_path, given)
    newer = checkpoint(tmp_path, 15)
    os.utime(newer, ns=(later.stat().st_mtime_ns + 10**9,) * 2)
    assert plan(KILLED) == Start(tmp_path, newer)
    damaged = checkpoint(tmp_path, 17)
    damaged.write_bytes(damaged.read_bytes()[:100])
    os.utime(damaged, ns=(later.stat().st_mtime_ns + 2 * 10**9,) * 2)
    assert plan(KILLED) == Start(tmp_path, newer)
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition("; ")[2] for line in said] == [
        f"the run goes on from evaluation {number}" for number in (10, 15, 15)
    ]


def test_a_run_is_given_up_after_three_beginnings_without_a_new_checkpoint(tmp_path):
    plan = beginnings(tmp_path)
    for _ in range(3):
        plan(KILLED)
    newest = checkpoint(tmp_path, 5)
    for _ in range(3):
        assert plan(KILLED) == Start(tmp_path, newest)
    words = (
        r"^trainer\.devices: process 2 of 2 ended by signal 9 \(SIGKILL\) after 3 new beginnings without .*ckpt_path"
    )
    with pytest.raises(UserError, match=words):
        plan(KILLED)
    assert not plan.has_made_nothing()


def test_an_error_that_comes_again_is_not_tried_a_third_time(tmp_path):
    error = Report(1, 1, ValueError("no"), "Traceback of process 2")
    plan = beginnings(tmp_path)
    plan(Failure(2, 2, 1, error))
    with pytest.raises(ValueError, match=r"^no$") as raised:
        plan(Failure(1, 2, 1, error))  # whichever is seen first
    assert "Traceback of process 2" in str(raised.value.__cause__)


def test_of_several_machines_none_begins_again(tmp_path):
    with pytest.raises(UserError, match="ended by signal 9"):
        beginnings(tmp_path, machines=2)(KILLED)


def test_a_run_that_was_killed_when_all_was_written_is_at_its_end(tmp_path):
    for name in ("result.png", "run.json"):
        (tmp_path / name).write_text(json.dumps({"state": "cut short", "all_written": True}), encoding="utf-8")
    plan = beginnings(tmp_path, checkpoint(tmp_path, 5))
    assert plan(KILLED) is not None  # what is there is of the run that this one goes on from
    (tmp_path / "run.json").write_text(json.dumps({"state": "finished", "all_written": True}), encoding="utf-8")
    assert plan(KILLED) is None


@pytest.fixture
def worker(tmp_path):
    Start(tmp_path / "run", tmp_path / "5.ckpt").write(tmp_path)
    return launched({VARIABLE: str(tmp_path), "RANK": "1"})


def raising(error):
    def run():
        raise error

    return run


class UnreadableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (UserError("x: must be y"), 2, 0),
        (LostConnectionError("gone"), 2, 0),
        (FileNotFoundError(2, "No such file", "a.png"), 2, 0),
        (KeyboardInterrupt(), 130, 0),
        (SystemExit(143), 143, 0),
        (ConnectionResetError(104, "reset"), 1, 1),
        (ValueError("a fault"), 1, 1),
        (UnreadableError(1, 2), 1, 1),
    ],
)
def test_a_process_reports_how_it_ended(worker, tmp_path, error, code, exit_code):
    assert worker.arguments(["--log", "json"]) == ["--log", "json", f"--ckpt_path={tmp_path / '5.ckpt'}"]
    assert worker.report(raising(error)) == exit_code
    (report,) = reports(tmp_path)
    assert (report.rank, report.code, report.lost) == (1, code, isinstance(error, LostConnectionError))
    if isinstance(error, Exception):
        assert str(error) in str(report.error)


def test_a_process_whose_work_is_done_reports_it(worker, tmp_path):
    assert worker.report(lambda: 0) == 0
    assert reports(tmp_path) == [Report(1, 0)]
    Start(tmp_path).write(tmp_path)
    assert reports(tmp_path) == []


def test_what_processes_report_is_how_the_run_ends():
    lost, mistaken = Report(0, 2, LostConnectionError("gone"), lost=True), Report(1, 2, UserError("x: must be y"))
    assert _code([Report(0, 0), Report(1, 0)]) == 0
    assert _code([Report(0, 0), Report(1, 2, LostConnectionError("gone"), lost=True)]) == 0
    with pytest.raises(LostConnectionError):
        _code([lost])
    with pytest.raises(UserError, match="x: must be y"):
        _code([lost, mistaken])


def test_who_was_not_launched_has_nothing_to_report(tmp_path):
    assert launched({}) is None
    with pytest.raises(SystemExit):
        launched({VARIABLE: str(tmp_path / "gone"), "RANK": "0"})
    assert pickle.loads(pickle.dumps(LostConnectionError("gone"))).args == ("gone",)
