"""Two grey pictures make a grey one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import QUIET
from lightning.pytorch import Trainer
from PIL import Image

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.cli import main
from nst_lightning.features import VGG19
from nst_lightning.images.recolor import as_grey, is_grey


@pytest.fixture
def pictures(pair, tmp_path, monkeypatch):
    """Grey and coloured versions of content and style."""
    monkeypatch.chdir(tmp_path)
    for name, path in zip(("photo", "art"), pair, strict=True):
        with Image.open(path) as image:
            image.save(f"{name}.png")
            image.convert("L").save(f"{name}_l.png")
            image.convert("L").convert("RGB").save(f"{name}_rgb.jpg", quality=80)
            image.convert("LA").save(f"{name}_la.png")
    return tmp_path


def run(*options):
    command = ["fit", "--data.size", "48", "--model.evaluations", "6", "--trainer.accelerator", "cpu", *options]
    assert main([*command, "--output", "out.png"]) == 0
    with Image.open("out.png") as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--data.init", "noise"],
        ["--data.init", "photo.png"],
        ["--data.init", "white", "--model.terms", "[Content, Wasserstein]"],
        ["--model.terms", "[Content, NNFM, {class_path: TotalVariation, init_args: {weight: 0.1}}]"],
        ["--data.color", "match"],
        ["--data.color", "histogram"],
        ["--data.color", "recolor"],
        ["--data.color", "luminance"],
        ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.05"],
        ["--model.tile", "64", "--model.strength", "0.3"],
    ],
)
def test_greys_stay_grey(options, pictures, use_tiny_weights):
    result = run("--data.content", "photo_l.png", "--data.style", "[art_rgb.jpg, art_la.png]", *options)
    assert np.ptp(result, axis=2).max() == 0
    assert result.std() > 5  # there is a picture


def test_a_grey_texture(pictures, use_tiny_weights):
    result = run(
        "--data.content", "null", "--data.style", "art_l.png", "--model.terms", "[Gram]", "--data.init", "noise"
    )
    assert np.ptp(result, axis=2).max() == 0


@pytest.mark.parametrize(
    ("content", "style"),
    [("photo_l.png", "art.png"), ("photo.png", "art_l.png"), ("photo_l.png", "[art_l.png, art.png]")],
)
def test_one_colour_is_enough_for_colours(content, style, pictures, use_tiny_weights):
    """A grey photograph takes on the painting's colours as ever."""
    assert np.ptp(run("--data.content", content, "--data.style", style), axis=2).max() > 15


def test_what_is_grey(pictures):
    rng = np.random.default_rng(0)
    grey = torch.from_numpy(rng.random((1, 1, 700, 5), dtype=np.float32)).repeat(1, 3, 1, 1)
    assert is_grey(grey)
    assert is_grey(grey + torch.from_numpy(rng.uniform(-1, 1, (1, 3, 700, 5)).astype(np.float32)) / 255)
    coloured = grey.clone()
    coloured[0, 0, 650, 2] += 4 / 255
    assert not is_grey(coloured)
    torch.testing.assert_close(as_grey(grey), grey)


def test_the_optimisation_itself_stays_grey(pictures, tiny_weights):
    """Not only the picture that is written: the steps are made for a grey one."""
    model = StyleTransfer(evaluations=8, extractor=VGG19(str(tiny_weights)))
    data = StyleTransferData("photo_l.png", "art_l.png", size=48)
    Trainer(**QUIET).fit(model, datamodule=data)
    image = model.image.detach()
    assert float((image.amax(1) - image.amin(1)).max()) < 1e-4
    assert float((image - data.start_image()).abs().max()) > 0.02
