"""Signals: of one process, of several, and of a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from forked import Running
from lightning.pytorch import Callback

from nst_lightning.cli import main
from nst_lightning.images import read_image
from nst_lightning.runs.checkpoint import read_checkpoint
from nst_lightning.runs.finding import Pictures, find_requeued, job_name


@pytest.fixture
def place(place, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return place


def start(pair, *more, environment=None):
    args = [
        *("fit", "--data.content", pair[0], "--data.style", pair[1], "--data.size", 64),
        *("--trainer.accelerator", "cpu", *more),
    ]
    return Running(Path.cwd(), args, environment=environment)


def quiet(ended):
    assert "Traceback" not in ended.said
    return ended


def checkpoints(place):
    return sorted((place / "runs").glob("*/checkpoints/*.ckpt"))


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def children(pid):
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in task.read_text(encoding="ascii").split()] if task.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once_with_the_last_checkpoint_whole(place, pair, number):
    run = start(pair, "--checkpoint_every", 5, "--model.evaluations", 100_000)
    run.wait_for(lambda: checkpoints(place))
    os.kill(run.pid, signal.SIGSTOP)  # so that both are there before either is answered
    os.kill(run.pid, signal.SIGTERM if number == signal.SIGINT else signal.SIGINT)
    os.kill(run.pid, number)
    assert quiet(run.end(signal.SIGCONT)).code in {130, 143}
    for path in checkpoints(place):
        assert read_checkpoint(path)["global_step"] == int(path.stem)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("who", ["launcher", "first", "second"])
def test_several_processes_stop_together_whoever_is_told(place, pair, who):
    options = ("--trainer.devices", 2, "--model.tile", 64, "--data.size", 128, "--model.evaluations", 100_000)
    run = start(pair, *options, "--checkpoint_every", 3)
    run.wait_for(lambda: checkpoints(place))
    workers = children(run.pid)
    os.kill({"launcher": run.pid, "first": workers[0], "second": workers[1]}[who], signal.SIGTERM)
    stopped = quiet(run.wait())
    assert stopped.code == 143
    assert not any(map(is_running, workers))
    assert stopped.said.count("nst: stopped by SIGTERM after") == 1
    last = checkpoints(place)[-1]
    assert read_checkpoint(last)["global_step"] == int(last.stem)
    assert read_image(last.parent.parent / "result.png").pixels.shape[0] == 1
    more = start(pair, *options, "--ckpt_path", "last", "--trainer.max_steps", int(last.stem) + 2)
    assert quiet(more.wait()).code == 0
    assert int(checkpoints(place)[-1].stem) == int(last.stem) + 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_several_processes_that_are_stopped_before_they_have_begun_leave_nothing(place, pair, number, code):
    run = start(pair, "--trainer.devices", 2, "--model.tile", 64, "--data.size", 128)
    run.wait_for(lambda: len(children(run.pid)) == 2)
    workers = children(run.pid)
    stopped = run.end(number)
    assert (stopped.code, stopped.said) == (code, "")
    assert not any(map(is_running, workers))
    assert not (place / "runs").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_no_process_is_left_when_the_one_that_launched_them_is_killed(place, pair):
    run = start(pair, "--trainer.devices", 2, "--model.tile", 64, "--data.size", 128, "--model.evaluations", 100_000)
    run.wait_for(lambda: list(place.glob("runs/*/metrics.csv")))
    workers = children(run.pid)
    run.end()
    end = time.monotonic() + 600
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_job_that_is_requeued_goes_on_where_it_was(place, pair):
    """SLURM announces the end with SIGUSR1; Lightning writes a checkpoint and asks for another turn."""
    tools = place / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text('#!/bin/sh\necho "$@" >> "$ASKED"\n', encoding="utf-8")
    (tools / "scontrol").chmod(0o755)
    job = {
        **{"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        **{"SLURM_NODEID": "0", "SLURM_JOB_NAME": "pictures", "SLURM_NODELIST": "localhost"},
        **{"ASKED": str(place / "asked"), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
    }
    options = ("--model.evaluations", 300, "--checkpoint_seconds", 0)
    run = start(pair, *options, environment=job)
    run.wait_for(lambda: list(place.glob("runs/*/metrics.csv")))
    os.kill(run.pid, signal.SIGUSR1)
    run.wait_for((place / "asked").exists)
    quiet(run.end())  # the machine is given to others
    assert (place / "asked").read_text(encoding="utf-8") == "requeue 77\n"
    (folder,) = (place / "runs").iterdir()
    assert folder.name.endswith("_job77_001")
    (written,) = folder.glob("hpc_ckpt_*.ckpt")
    step = read_checkpoint(written)["global_step"]
    assert 0 < step < 300
    again = quiet(start(pair, *options, environment=job | {"SLURM_RESTART_COUNT": "1"}).wait())
    assert f"continuing from {written.relative_to(place)}" in again.said
    assert again.code == 0
    assert list((place / "runs").iterdir()) == [folder]
    once_more = quiet(start(pair, *options, environment=job | {"SLURM_RESTART_COUNT": "2"}).wait())
    assert "this job has made the picture before it was requeued, so nothing is left to do" in once_more.said
    assert once_more.code == 0  # what comes behind it in the script is made
    assert quiet(start(pair, *options).wait()).code == 0
    (other,) = [path for path in (place / "runs").iterdir() if path != folder]
    assert torch.equal(*(read_image(path / "result.png").pixels for path in (folder, other)))
    rows = [(path / "metrics.csv").read_text(encoding="utf-8").splitlines() for path in (folder, other)]
    assert len(rows[0]) == len(rows[1]) == 301
    assert [row.rsplit(",", 1)[0] for row in rows[0]] == [row.rsplit(",", 1)[0] for row in rows[1]]


def test_jobs_find_only_their_own(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert not job_name()
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert job_name() == "_job8"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert find_requeued(tmp_path, Pictures()) is None  # it left nothing: start anew
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert job_name() == "_job7_2"


class SendTwice(Callback):
    """Sends this process a signal twice after the second evaluation."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            os.kill(os.getpid(), self.number)
            os.kill(os.getpid(), self.number)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminal closes")
@pytest.mark.parametrize(("number", "ignored"), [("SIGHUP", False), ("SIGHUP", True), ("SIGINT", True)])
def test_a_closed_terminal_ends_a_run_in_good_order_unless_it_is_to_be_ignored(place, pair, number, ignored, capsys):
    number = getattr(signal, number)
    given = signal.SIG_IGN if ignored else signal.SIG_DFL  # under nohup the tests themselves ignore one of them
    before = signal.signal(number, given)
    sender = f"[{{class_path: {__name__}.SendTwice, init_args: {{number: {int(number)}}}}}]"
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size=48", "--model.evaluations=4"]
    try:
        with contextlib.nullcontext() if ignored else pytest.raises(SystemExit) as ended:
            code = main(["fit", *pictures, "--trainer.accelerator=cpu", f"--trainer.callbacks={sender}"])
        assert signal.getsignal(number) == given
    finally:
        signal.signal(number, before)
    code = code if ignored else ended.value.code
    (last,) = checkpoints(place)
    assert read_image(last.parent.parent / "result.png").pixels.shape == (1, 3, 36, 48)
    assert (code, int(last.stem)) == ((0, 4) if ignored else (128 + number, 2))
    if not ignored:
        assert "stopped by SIGHUP after 2 of 4 evaluations; go on with --ckpt_path last" in capsys.readouterr().err
