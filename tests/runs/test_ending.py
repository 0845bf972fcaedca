"""A run whose last evaluation is made owes its picture, its figure and its record until they are written."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from helpers import QUIET
from lightning.pytorch import Callback, Trainer

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Averaging, Checkpoints, Export, Figure, Metrics, Snapshots, snapshots
from nst_lightning.cli import main
from nst_lightning.images import read_image
from nst_lightning.runs.ending import is_written

LAST = ("fit", "--ckpt_path", "last")


@pytest.fixture
def finished(place, pair):
    """The folder of a run that is over."""

    def run(*options):
        pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
        assert main(["fit", *pictures, "--trainer.accelerator=cpu", "--model.evaluations=4", *options]) == 0
        (folder,) = (place / "runs").iterdir()
        return folder

    return run


def forget(folder):
    """Let a run look as if it had been killed after its last checkpoint."""
    result = read_image(folder / "result.png").pixels
    for name in ("result.png", "figure.png"):
        (folder / name).unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "state": "running", "all_written": False}))
    return result, record


def test_what_is_missing_is_written_and_said(place, finished, capsys):
    folder = finished()
    result, record = forget(folder)
    rows = (folder / "metrics.csv").read_bytes()
    capsys.readouterr()
    assert main(list(LAST)) == 0
    assert "nst: the run is at its end; writing what is missing, from " in capsys.readouterr().err
    assert torch.equal(read_image(folder / "result.png").pixels, result)
    assert (folder / "figure.png").exists()
    assert (folder / "metrics.csv").read_bytes() == rows
    now = json.loads((folder / "run.json").read_text())
    assert {**now, "changed": ""} == {**record, "changed": ""}
    assert main(list(LAST)) == 2
    assert "nothing is left to do" in capsys.readouterr().err


def test_a_finished_picture_goes_to_another_place(place, finished, capsys):
    folder = finished("--output", "one.png")
    assert main(list(LAST)) == 2
    assert main([*LAST, "--output", "other.tif", "--bits", "16"]) == 0
    assert torch.allclose(read_image("other.tif").pixels, read_image(folder / "result.png").pixels, atol=1 / 255)
    assert main([*LAST, "--output", "one.png"]) == 2


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (("--trainer.max_steps", "2"), "trainer.max_steps"),
        (("--trainer.limit_train_batches", "2"), "trainer.limit_train_batches"),
        (
            ("--trainer.max_epochs", "1", "--model.stages=[{evaluations: 2, scale: 0.5}, {evaluations: 2}]"),
            "trainer.max_epochs",
        ),
        (
            (
                "--trainer.callbacks",
                "[{class_path: EarlyStopping, init_args: {monitor: loss, patience: 1, min_delta: 99}}]",
            ),
            "the callback EarlyStopping",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_at_a_limit_too_and_only_then_it_is_lifted(place, finished, capsys, limit, reason):
    folder = finished(*limit)
    result, record = forget(folder)
    assert (record["state"], record["reason"], record["evaluations"]) == ("cut short", reason, 2)
    capsys.readouterr()
    assert main(list(LAST)) == 0
    said = capsys.readouterr().err
    assert "writing what is missing" in said
    assert f"stopped by {reason} after 2 of 4 evaluations" in said
    assert torch.equal(read_image(folder / "result.png").pixels, result)
    now = json.loads((folder / "run.json").read_text())
    assert {**now, "changed": ""} == {**record, "changed": ""}
    assert main(list(LAST)) == 0
    assert json.loads((folder / "run.json").read_text())["evaluations"] > 2


def test_a_checkpoint_in_no_run_folder_gives_its_picture(place, finished):
    folder = finished()
    (checkpoint,) = (folder / "checkpoints").iterdir()
    checkpoint.rename(place / "mine.ckpt")
    assert main(["fit", "--ckpt_path", "mine.ckpt"]) == 0
    _, other = sorted((place / "runs").iterdir())
    assert torch.equal(*(read_image(run / "result.png").pixels for run in (folder, other)))


def test_records_of_earlier_versions_and_none(tmp_path):
    (tmp_path / "result.png").write_bytes(b"")
    assert is_written(tmp_path)
    for record, expected in (
        ('{"state": "finished"}', True),
        ('{"state": "running"}', False),
        ('{"state": "failed", "all_written": false}', False),
        ("", True),
        ("[]", True),
    ):
        (tmp_path / "run.json").write_text(record)
        assert is_written(tmp_path) == expected
    (tmp_path / "run.json").write_text('{"state": "finished", "all_written": true}')
    assert not is_written(tmp_path, tmp_path / "mine.png")
    (tmp_path / "result.png").unlink()
    assert not is_written(tmp_path)
    assert not is_written(None)


@pytest.mark.parametrize("limit", [{}, {"max_steps": 2}], ids=str)
def test_in_a_program(place, pair, limit):
    """Lightning calls no callback in a fit that begins at its end; here all of them see that end."""

    def fit(ckpt_path=None):
        module = StyleTransfer(evaluations=4)
        callbacks = [Export(), Figure(), Metrics(), Checkpoints(every=2), Averaging()]
        quiet = {**QUIET, "enable_checkpointing": None}
        trainer = Trainer(callbacks=callbacks, default_root_dir="run", **quiet, **limit)
        trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=48), ckpt_path=ckpt_path)
        assert trainer.global_step == limit.get("max_steps", 4)
        assert trainer.max_steps == limit.get("max_steps", -1)
        assert trainer.limit_train_batches == 1.0
        return module.final_picture()

    whole = fit()
    for name in ("result.png", "figure.png"):
        (place / "run" / name).rename(place / name)
    checkpoint = max((place / "run" / "checkpoints").iterdir())
    assert torch.equal(fit(str(checkpoint)), whole)
    for name in ("result.png", "figure.png"):
        assert torch.equal(*(read_image(folder / name).pixels for folder in (place, place / "run")))


def test_a_checkpoint_waits_for_the_pictures_before_it(place, pair, monkeypatch):
    """A run that is killed and goes on from it does not come by them again."""

    def slow(path, picture):
        time.sleep(0.3)
        write(path, picture)

    class Seen(Callback):
        def __init__(self):
            self.there = []

        def on_save_checkpoint(self, trainer, module, checkpoint):
            self.there.append((trainer.global_step, len(list(Path("run/snapshots").iterdir()))))

    write = snapshots._write
    monkeypatch.setattr(snapshots, "_write", slow)
    seen = Seen()
    callbacks = [Snapshots(1), Checkpoints(every=1), seen]
    trainer = Trainer(callbacks=callbacks, default_root_dir="run", **{**QUIET, "enable_checkpointing": None})
    trainer.fit(StyleTransfer(evaluations=2), datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=48))
    assert seen.there == [(1, 1), (2, 2)]
