"""Every preset runs, overlays override in order, and the presets mean what their headers say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml
from terms import Alone

from nst_lightning.cli import main
from nst_lightning.config.options import FitCLI
from nst_lightning.config.parser import OneLineParser
from nst_lightning.config.presets import find_config, preset_names, presets_folder
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.losses import Content, Gram, Layer

OVERLAYS = {name for name in preset_names() if name.startswith("hardware/")}
AVAILABLE = {
    "hardware/cpu": True,
    "hardware/cuda": torch.cuda.is_available(),
    "hardware/mps": torch.backends.mps.is_available(),
    "hardware/xpu": torch.xpu.is_available(),
}


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_weights):
    """An empty working folder, and weights: real ones where they are at hand."""
    monkeypatch.chdir(tmp_path)
    if not os.environ.get(ENVIRONMENT_VARIABLE):
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tiny_weights))
    return tmp_path


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_runs_two_evaluations(preset, place, pair):
    if not AVAILABLE.get(preset, True):
        pytest.skip(f"{preset} needs a device that this machine lacks")
    first = ["--config", "article"] if preset in OVERLAYS else []
    sizes = ["--data.size", "64", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    sizes = sizes[:4] if preset in OVERLAYS else sizes
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1])]
    assert main(["fit", *first, "--config", preset, *pictures, *sizes, "--output", "out.png"]) == 0
    assert (place / "out.png").is_file()
    (folder,) = (place / "runs").iterdir()
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_parses_against_the_real_signatures(preset, pair):
    """Also the overlays whose device is not here."""
    config = FitCLI(["--config", preset, "--data.content", str(pair[0]), "--data.style", str(pair[1])]).config
    wanted = yaml.safe_load(find_config(preset).read_text(encoding="utf-8"))
    if preset in OVERLAYS:
        assert config.trainer.accelerator == wanted["trainer"]["accelerator"]
    else:
        assert config.data.size == wanted["data"]["size"]


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_says_in_two_lines_what_it_is_for(preset):
    lines = find_config(preset).read_text(encoding="utf-8").splitlines()
    assert [line.startswith("# ") and line.endswith(".") for line in lines[:2]] == [True, True]


def test_the_released_presets_are_there():
    assert {"gatys", "gatys_paper", "article", "quickstart", *AVAILABLE} <= set(preset_names())
    assert presets_folder().is_dir()


def test_a_file_wins_over_a_preset_of_its_name(place):
    Path("gatys").write_text("data: {size: 32}\n", encoding="utf-8")
    assert find_config("gatys") == Path("gatys")


def test_later_configurations_override_earlier_ones(place, pair, use_tiny_weights):
    Path("a.yaml").write_text("data: {size: 32}\nmodel: {evaluations: 2, strength: 2.0}\n", encoding="utf-8")
    Path("b.yaml").write_text("data: {size: 48}\n", encoding="utf-8")
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--trainer.accelerator", "cpu"]
    assert main(["fit", "--config", "gatys", "--config", "a.yaml", "--config=b.yaml", *pictures]) == 0
    (folder,) = (place / "runs").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert (config["data"]["size"], config["model"]["evaluations"], config["model"]["strength"]) == (48, 2, 2.0)
    assert config["data"]["side"] == "short"  # from gatys


def test_gatys_is_the_released_setting(pair, use_tiny_weights):
    """Weights 1 and 1000 / C² on mean squares, L-BFGS of history 100 in pixels, short side 512, from the content."""
    cli = FitCLI(["--config", "gatys", "--data.content", str(pair[0]), "--data.style", str(pair[1])])
    assert isinstance(cli.parser, OneLineParser)
    model, data = cli.config.model, cli.config.data
    content, gram = (term.init_args for term in model.terms)
    assert (content.layers, content.weight, content.normalization) == (["relu4_2"], 1.0, "released")
    assert gram.layers == [f"relu{block}_1" for block in range(1, 6)]
    assert (gram.weight, gram.normalization) == (1000.0, "released")
    assert model.extractor.init_args.pooling == "max"
    optimiser = model.optimizer.init_args
    assert (optimiser.history_size, optimiser.spectral_exponent) == (100, 0.0)
    assert (data.size, data.side, data.init, data.resample) == (512, "short", "content", "bilinear")
    features, target = torch.rand(1, 4, 3, 5), torch.rand(4, 4)
    term = Gram(["relu1_1"], 1000.0, "released")
    layer = Layer("relu1_1")
    flat = features[0].view(4, 15)
    by_hand = 1e3 / 4**2 * torch.nn.MSELoss()(flat @ flat.T / 15, target)
    torch.testing.assert_close(1000.0 * term.loss(layer, flat @ flat.T / 15, (target, torch.ones(()))), by_hand)
    value = Alone(Content(["relu4_2"], 1.0, "released"), target[None, None], []).value(target[None, None] * 2)
    torch.testing.assert_close(value, torch.nn.MSELoss()(target * 2, target))


def test_the_published_setting_warns_about_other_weights(place, pair, use_tiny_weights, capsys):
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--trainer.accelerator", "cpu"]
    assert main(["fit", "--config", "gatys", *pictures, "--data.size", "32", "--trainer.max_steps", "1"]) == 0
    assert "nst: warning: the published numbers belong to the caffe weights" in capsys.readouterr().err
