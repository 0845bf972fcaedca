"""Files of version 0.1.0: a checkpoint in the middle of a run's second stage, and the run's configuration.

That version made them, and ``result.png``, of the pictures beside them, with the compact encoder on a processor; only
the folder that it worked in is called ``/home/me/pictures`` now.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.cli import main
from nst_lightning.images import read_image

OLD = Path(__file__).parent.parent / "data" / "old"
STEP = 1.01 / 255  # of rounding to 8 bits


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The pictures, the configuration, and the run's folder with its checkpoint."""
    monkeypatch.chdir(tmp_path)
    for name in ("content.png", "style.png", "mask.png", "config.yaml"):
        shutil.copy(OLD / name, name)
    folder = tmp_path / "runs" / "content_style_001"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(OLD / "000005.ckpt", folder / "checkpoints")
    shutil.copy(OLD / "config.yaml", folder)
    return tmp_path


def assert_same_picture(path):
    torch.testing.assert_close(read_image(path).pixels, read_image(OLD / "result.png").pixels, rtol=0, atol=STEP)


@pytest.mark.parametrize("given", [["--ckpt_path=last"], ["--config=config.yaml", "--ckpt_path=last"]])
def test_a_run_goes_on_from_a_checkpoint(place, given):
    assert main(["fit", *given]) == 0
    (folder,) = (place / "runs").iterdir()
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [6, 7]
    assert_same_picture(folder / "result.png")


def test_a_configuration_makes_its_picture_again(place):
    """With the optimiser of then."""
    same = "--model.optimizer.opponent_colors=false"
    assert main(["fit", "--config=config.yaml", same, "--output=again.png"]) == 0
    assert_same_picture("again.png")


def test_a_program_loads_a_checkpoint(place):
    path = OLD / "000005.ckpt"
    module = StyleTransfer.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    assert [stage.evaluations for stage in module.stages] == [3, 4]
    assert [term.name for term in module.objective.terms] == ["content", "gram", "totalvariation"]
    assert torch.equal(module.image.detach(), torch.load(path, weights_only=True)["state_dict"]["image"])
    module.check(StyleTransferData("content.png", "style.png", size=30))
