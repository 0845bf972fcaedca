"""Several processes on one picture."""

from __future__ import annotations

import contextlib
import csv
import io
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
from forked import Running, nst

from nst_lightning.cli import main
from nst_lightning.cli.fit import _run
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
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


KILLED = """
import os, signal
from pathlib import Path
from lightning.pytorch import Callback

class Killed(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.global_step == 5 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
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
    put_callbacks(place, monkeypatch)
    return place


def put_callbacks(place, monkeypatch):
    """Write callbacks to a folder, where this process and those that it starts find them."""
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(place))
    for name, text in (("hashes", CALLBACK), ("killed", KILLED), ("fault", FAULT)):
        (place / f"mine_{name}.py").write_text(text, encoding="utf-8")


def arguments(pair, evaluations, *more, precision="64-true", callback="mine_hashes.Hashes"):
    return [
        *("fit", "--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "128"),
        *("--model.tile", "64", "--model.evaluations", str(evaluations), "--trainer.accelerator", "cpu"),
        *("--trainer.precision", precision, f"--trainer.callbacks=[{callback}]", *more),
    ]


def losses(folder):
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return torch.tensor([float(row["loss"]) for row in csv.DictReader(file)], dtype=torch.float64)


@pytest.fixture(scope="module")
def undisturbed(pair, tiny_weights, tmp_path_factory):
    """The folder in which a program has let two processes make a picture, and what was said; all else is as it was."""
    place = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        put_callbacks(place, patch)
        patch.chdir(place)
        patch.setenv(ENVIRONMENT_VARIABLE, str(tiny_weights))
        environment, handlers = dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals()]
        assert main(arguments(pair, 9, "--checkpoint_every", "3", "--trainer.devices", "2")) == 0
        assert dict(os.environ) == environment
        assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
    return place, said.getvalue()


def the_run(root):
    """The one folder of a run in there; other processes than the first one write none."""
    (run,) = Path(root).iterdir()
    return run


def test_two_processes_make_the_picture_of_one(place, pair, undisturbed):
    assert main(arguments(pair, 9, "--checkpoint_every", "3")) == 0
    two, said = undisturbed
    both, alone = the_run(two / "runs"), the_run("runs")
    torch.testing.assert_close(losses(both), losses(alone), rtol=1e-6, atol=0)
    assert len(hashes(1, two)) == 9
    assert hashes(0, two) == hashes(1, two)  # bitwise the same image after each step
    assert sorted(p.name for p in both.iterdir()) == sorted(p.name for p in alone.iterdir())
    assert "wrote runs/content_style_001/result.png" in said  # what the first process says


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "32-true", "bf16-mixed"])
def test_two_processes_make_the_picture_of_one_in_all_precisions(place, pair, monkeypatch, precision):
    # Ten steps make 0.005 of a rounding error of float32, so the errors have to be the same.
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # two for one process, one for each of two
    alone = arguments(pair, 10, "--model.extractor", "CompactVGG19", precision=precision)
    for folder, more in (("alone", []), ("both", ["--trainer.devices", "2"])):
        args = [*alone, *more, "--trainer.default_root_dir", folder]
        subprocess.run([sys.executable, "-m", "nst_lightning", *args], check=True, capture_output=True, timeout=600)
    torch.testing.assert_close(losses(the_run("both")), losses(the_run("alone")), rtol=1e-6, atol=0)
    assert hashes(0)[-10:] == hashes(1)


def processes(run):
    """Those that work on the picture, by rank; none once the run is over."""
    found, children = {}, ""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text(encoding="ascii")
    for pid in children.split():
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found |= {int(line[5:]): int(pid) for line in lines if line.startswith(b"RANK=")}
    return found


def hashes(rank, place="."):
    path = Path(place) / f"hashes_{rank}"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def same_results(one, other):
    """Whether two runs have left the same, to the last bit."""
    assert read_image(one / "result.png").pixels.equal(read_image(other / "result.png").pixels)
    assert losses(one).equal(losses(other))
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    return True


def test_a_killed_process_costs_the_evaluations_since_the_newest_checkpoint(place, pair, undisturbed, capfd):
    callbacks = "mine_hashes.Hashes,mine_killed.Killed"
    args = arguments(pair, 9, "--checkpoint_every", "3", "--trainer.devices", "2", callback=callbacks)
    assert main([*args, "--log", "json"]) == 0
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "torch.distributed" not in said  # nor what its launcher logs
    (told,) = [event for event in map(json.loads, said.splitlines()) if event["event"] == "warning"]
    assert told["text"].startswith("process 2 of 2 ended by signal 9 (SIGKILL); the run goes on from evaluation ")
    assert (told["process"], told["code"], told["evaluation"]) == (2, -9, 3)
    assert hashes(0)[-6:] == hashes(0, undisturbed[0])[3:]
    assert same_results(the_run("runs"), the_run(undisturbed[0] / "runs"))


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_run_that_is_killed_at_a_random_moment_makes_the_picture_of_an_undisturbed_one(place, pair, number):
    args = arguments(pair, 30, "--model.extractor", "CompactVGG19", "--checkpoint_every", "4", "--trainer.devices", "2")
    begun = time.monotonic()
    run = Running(place, [*args, "--trainer.default_root_dir", "whole"])
    run.wait_for(lambda: len(processes(run)) == 2)
    before = time.monotonic() - begun
    assert run.wait().code == 0
    whole = time.monotonic() - begun
    disturbed = Running(place, args)
    disturbed.wait_for(lambda: len(processes(disturbed)) == 2)
    time.sleep(random.Random(number).random() * (whole - before))
    # A run that was faster than the undisturbed one, beside which something else ran, may be over by now.
    with contextlib.suppress(KeyError, ProcessLookupError):
        os.kill(processes(disturbed)[number % 2], signal.SIGKILL)
    ended = disturbed.wait()
    assert ended.code == 0
    assert "Traceback" not in ended.said
    assert same_results(the_run("runs"), the_run("whole"))


def test_a_mistake_that_a_process_finds_is_told_once_and_not_tried_again(place, pair, capfd):
    assert main(arguments(pair, 3, "--trainer.devices", "2", "--trainer.max_time", "1 day")) == 2
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith("nst: error: trainer")
    assert not (place / "runs").exists()


def test_a_fault_of_the_program_is_tried_once_more_and_then_told_with_its_traceback(place, pair):
    ended = nst(
        *(place, *arguments(pair, 9, "--trainer.devices", "2", callback="mine_fault.Fault")),
        *("--checkpoint_every", 2),
    )
    assert ended.code == 1
    assert ended.said.count("ended by RuntimeError: as it happens; the run goes on from evaluation 4") == 1
    assert ended.said.strip().splitlines()[-1] == "RuntimeError: as it happens"
    assert "mine_fault.py" in ended.said
    assert "ChildFailedError" not in ended.said


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
    assert main(arguments(pair, 2, "--trainer.devices", "2", "--trainer.strategy", "ddp")) == 2
    assert "trainer.strategy: must be auto, got ddp" in capsys.readouterr().err
