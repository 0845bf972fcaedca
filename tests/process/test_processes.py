"""Several processes on one picture."""

from __future__ import annotations

import csv
import os
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
from nst_lightning.errors import UserError
from nst_lightning.images import read_image
from nst_lightning.runs.checkpoint import read_checkpoint

CALLBACK = """
import hashlib, os
from pathlib import Path
from lightning.pytorch import Callback

class Hashes(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        digest = hashlib.sha256(module.image.detach().numpy().tobytes()).hexdigest()
        with Path(f"hashes_{trainer.global_rank}").open("a") as file:
            file.write(f"{digest}\\n")
        Path(f"pid_{trainer.global_rank}").write_text(str(os.getpid()))
"""


@pytest.fixture
def place(place, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(place))
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
    hashes = [Path(f"hashes_{rank}").read_text(encoding="utf-8").split() for rank in (0, 1)]
    assert len(hashes[1]) == 10
    assert hashes[0][-10:] == hashes[1]  # bitwise the same image after each step
    assert sorted(p.name for p in runs[0].iterdir()) == sorted(p.name for p in runs[1].iterdir())


def test_a_process_that_dies_ends_the_run_with_the_picture_and_one_line(place, pair):
    args = command(
        *arguments(pair, 100_000, "--trainer.devices", "2", "--snapshot_every", "5", "--checkpoint_every", "3")
    )
    run = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 600
    while not (place / "pid_1").exists():
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1)
    os.kill(int((place / "pid_1").read_text(encoding="utf-8")), signal.SIGKILL)
    _, said = run.communicate(timeout=600)
    assert run.returncode == 2
    last = said.strip().splitlines()[-1]
    assert "nst: error: trainer.devices: process 1 of 2 ended with code -9" in last
    assert "Traceback" not in said
    (folder,) = (place / "runs").iterdir()
    for picture in [folder / "result.png", *(folder / "snapshots").iterdir()]:
        assert read_image(picture).pixels.shape == (1, 3, 96, 128)
    checkpoints = sorted((folder / "checkpoints").iterdir())
    assert checkpoints
    assert [read_checkpoint(path)["global_step"] for path in checkpoints] == [int(path.stem) for path in checkpoints]


def test_a_lost_connection_is_told_of_by_the_process_that_ended(monkeypatch):
    """Lightning waits for the others as the objective does: what breaks there is no fault of its strategy."""
    lightnings = {"__name__": "lightning.pytorch.strategies.ddp"}
    place = str(Path(torch.__file__).parent / "x.py")
    source = "def fit(*arguments, **options): raise RuntimeError('[/gloo/transport/tcp/pair.cc:545] Read error')"
    exec(compile(source, place, "exec"), lightnings)
    trainer = SimpleNamespace(fit=lightnings["fit"], global_step=7, world_size=2)
    config = SimpleNamespace(ckpt_path=None)
    job = SimpleNamespace(trainer=trainer, model=None, data=None, config=config, make_trainer=lambda: None)
    workers = SimpleNamespace(failure=lambda: "process 1 of 2 ended with code -9")
    with pytest.raises(UserError, match=r"^trainer\.devices: process 1 of 2 ended .* -9; stopped at evaluation 7"):
        _run(job, workers)


def test_other_strategies_are_refused(place, pair, capsys):
    args = arguments(pair, 2, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    args = [arg for arg in args if "mine_hashes" not in arg]
    assert main(["fit", *args]) == 2
    assert "trainer.strategy: must be auto, got ddp" in capsys.readouterr().err
