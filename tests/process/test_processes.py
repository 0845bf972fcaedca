"""Several processes on one picture."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nst_lightning.cli import main
from nst_lightning.cli.fit import _run
from nst_lightning.images import read_image
from nst_lightning.process.launched import LostConnectionError

CALLBACK = """
import hashlib
from pathlib import Path
from lightning.pytorch import Callback

class Hashes(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        digest = hashlib.sha256(module.image.detach().numpy().tobytes()).hexdigest()
        with Path(f"hashes_{trainer.global_rank}").open("a") as file:
            file.write(f"{digest}\\n")
"""


FAULT = """
from lightning.pytorch import Callback

class Fault(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5:
            raise RuntimeError("as it happens")
"""

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


@pytest.fixture
def place(place, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
    (place / "mine_hashes.py").write_text(CALLBACK, encoding="utf-8")
    return place


def arguments(pair, evaluations, *more, precision="64-true"):
    return [
        *("--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "128", "--model.tile", "64"),
        *("--model.evaluations", str(evaluations), "--trainer.accelerator", "cpu", "--trainer.precision", precision),
        *("--trainer.callbacks=[{class_path: mine_hashes.Hashes}]", *more),
    ]


def losses(folder):
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def command(*args):
    return [sys.executable, "-m", "nst_lightning", "fit", *args]


@pytest.mark.parametrize(
    "precision", ["64-true", *(pytest.param(name, marks=pytest.mark.slow) for name in ("32-true", "bf16-mixed"))]
)
def test_two_processes_make_the_picture_of_one(place, pair, monkeypatch, precision):
    # In all precisions: ten steps make 0.005 of a rounding error of float32, so the errors have to be the same.
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # two for one process, one for each of two
    network = ["--model.extractor", "CompactVGG19"]
    alone = arguments(pair, 10, *network, precision=precision)
    both = arguments(pair, 10, *network, "--trainer.devices", "2", precision=precision)
    for args in (alone, both):
        subprocess.run(command(*args), check=True, capture_output=True, timeout=600)
    runs = sorted((place / "runs").iterdir())
    assert len(runs) == 2  # and the second process of the second run wrote nothing
    one, two = (torch.tensor(losses(run), dtype=torch.float64) for run in runs)
    torch.testing.assert_close(two, one, rtol=1e-6, atol=0)
    assert len(hashes(1)) == 10
    assert hashes(0)[-10:] == hashes(1)  # bitwise the same image after each step
    assert sorted(p.name for p in runs[0].iterdir()) == sorted(p.name for p in runs[1].iterdir())


def processes(run):
    """Those that work on the picture, by rank."""
    found = {}
    for pid in (Path(f"/proc/{run.pid}/task/{run.pid}/children")).read_text(encoding="ascii").split():
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found |= {int(line[5:]): int(pid) for line in lines if line.startswith(b"RANK=")}
    return found


def wait_for(condition, run, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


def hashes(rank):
    path = Path(f"hashes_{rank}")
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def start(*args):
    return subprocess.Popen(command(*args), stderr=subprocess.PIPE, text=True)


def finish(run):
    said = run.communicate(timeout=600)[1]
    assert "Traceback" not in said
    assert "torch.distributed" not in said  # nor what its launcher logs
    return said


@needs_proc
def test_a_killed_process_costs_the_evaluations_since_the_newest_checkpoint(place, pair):
    args = arguments(pair, 9, "--model.extractor", "CompactVGG19", "--checkpoint_every", "3", "--trainer.devices", "2")
    subprocess.run(command(*args), check=True, capture_output=True, timeout=600)
    undisturbed = hashes(0)
    Path("hashes_0").unlink()
    run = start(*args, "--trainer.default_root_dir", "more", "--log", "json")
    wait_for(lambda: len(hashes(0)) >= 5, run)
    os.kill(processes(run)[1], signal.SIGKILL)
    events = [json.loads(line) for line in finish(run).splitlines()]
    assert run.returncode == 0
    (told,) = [event for event in events if event["event"] == "warning"]
    assert told["text"].startswith("process 2 of 2 ended by signal 9 (SIGKILL); the run goes on from evaluation ")
    assert (told["process"], told["code"], told["evaluation"] % 3) == (2, -9, 0)
    assert told["evaluation"] >= 3
    assert hashes(0)[-(9 - told["evaluation"]) :] == undisturbed[told["evaluation"] :]
    one, two = (next(Path(root).iterdir()) for root in ("runs", "more"))
    assert read_image(two / "result.png").pixels.equal(read_image(one / "result.png").pixels)
    assert losses(two) == losses(one)
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_run_that_is_killed_at_a_random_moment_makes_the_picture_of_an_undisturbed_one(place, pair, number):
    args = arguments(pair, 30, "--model.extractor", "CompactVGG19", "--checkpoint_every", "4", "--trainer.devices", "2")
    begun = time.monotonic()
    run = start(*args, "--trainer.default_root_dir", "whole")
    wait_for(lambda: len(processes(run)) == 2, run)
    before = time.monotonic() - begun
    finish(run)
    whole = time.monotonic() - begun
    disturbed = start(*args)
    wait_for(lambda: len(processes(disturbed)) == 2, disturbed)
    time.sleep(random.Random(number).random() * (whole - before))
    with contextlib.suppress(KeyError):  # it has just ended
        os.kill(processes(disturbed)[number % 2], signal.SIGKILL)
    finish(disturbed)
    assert (run.returncode, disturbed.returncode) == (0, 0)
    one, two = (next(Path(root).iterdir()) for root in ("whole", "runs"))
    assert read_image(two / "result.png").pixels.equal(read_image(one / "result.png").pixels)
    assert losses(two) == losses(one)
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())


def test_a_mistake_that_a_process_finds_is_told_once_and_not_tried_again(place, pair):
    run = start(*arguments(pair, 3, "--trainer.devices", "2", "--trainer.max_time", "1 day"))
    said = finish(run)
    assert run.returncode == 2
    assert said.count("\n") == 1
    assert said.startswith("nst: error: trainer")
    assert not (place / "runs").exists()


def test_a_fault_of_the_program_is_tried_once_more_and_then_told_with_its_traceback(place, pair):
    (place / "mine_fault.py").write_text(FAULT, encoding="utf-8")
    args = [arg for arg in arguments(pair, 9, "--trainer.devices", "2") if "mine_hashes" not in arg]
    run = start(*args, "--checkpoint_every", "2", "--trainer.callbacks=[{class_path: mine_fault.Fault}]")
    said = run.communicate(timeout=600)[1]
    assert run.returncode == 1
    assert said.count("ended by RuntimeError: as it happens; the run goes on from evaluation 4") == 1
    assert said.strip().splitlines()[-1] == "RuntimeError: as it happens"
    assert "mine_fault.py" in said
    assert "ChildFailedError" not in said


def test_a_program_that_calls_main_sees_what_the_first_process_says(place, pair, capsys):
    args = [arg for arg in arguments(pair, 2) if "mine_hashes" not in arg]
    environment, handlers = dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]
    assert main(["fit", *args, "--trainer.devices", "2"]) == 0
    assert "wrote runs/content_style_001/result.png" in capsys.readouterr().err
    assert dict(os.environ) == environment
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers


def test_a_lost_connection_is_no_complaint_of_lightnings(monkeypatch):
    """Lightning waits for the others as the objective does: what breaks there is no fault of its strategy."""
    lightnings = {"__name__": "lightning.pytorch.strategies.ddp"}
    place = str(Path(torch.__file__).parent / "x.py")
    source = "def fit(*arguments, **options): raise RuntimeError('[/gloo/transport/tcp/pair.cc:545] Read error')"
    exec(compile(source, place, "exec"), lightnings)
    trainer = SimpleNamespace(fit=lightnings["fit"], global_step=7, world_size=2)
    config = SimpleNamespace(ckpt_path=None)
    job = SimpleNamespace(trainer=trainer, model=None, data=None, config=config, make_trainer=lambda: None)
    with pytest.raises(LostConnectionError, match=r"^trainer\.devices: the connection .* Read error; stopped at .* 7,"):
        _run(job)


def test_other_strategies_are_refused(place, pair, capsys):
    args = arguments(pair, 2, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    args = [arg for arg in args if "mine_hashes" not in arg]
    assert main(["fit", *args]) == 2
    assert "trainer.strategy: must be auto, got ddp" in capsys.readouterr().err
