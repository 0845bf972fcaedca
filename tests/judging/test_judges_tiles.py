"""Judges that look at large pictures tile by tile: the cells are those of the whole."""

from __future__ import annotations

import pytest
import torch
from helpers import rand_image
from judge_networks import random_alexnet, random_vgg16

from nst_lightning.judging import panel, tiles
from nst_lightning.judging.backbones import stride_of, vgg16
from nst_lightning.judging.panel import Panel
from nst_lightning.judging.style import sliced_closed
from nst_lightning.judging.tiles import AROUND, cells, make_tiles

NAMES = ["lpips_vgg", "gram", "sliced"]
SIZES = [(64, 48), (331, 250), (256, 128), (67, 300)]


@pytest.fixture
def small(monkeypatch):
    """Tiles of at most 128 px, and networks of few channels."""
    monkeypatch.setattr(tiles, "CORE", 128)
    monkeypatch.setattr(panel, "backbone_weights", lambda name: random_vgg16() if name == "vgg16" else random_alexnet())


@pytest.mark.parametrize("size", [*SIZES, (129, 144), (1, 400)])
def test_each_pixel_counts_once(small, size):
    counts = torch.zeros(size)
    for tile in make_tiles(*size):
        core, crop = tile.core, tile.crop
        counts[core.slices] += 1
        assert max(core.bottom - core.top, core.right - core.left) <= 128 + 15
        assert core.top % 16 == core.left % 16 == crop.top % 16 == crop.left % 16 == 0
        assert crop[::2] == (max(0, core.top - AROUND), max(0, core.left - AROUND))
        assert crop[1::2] == (min(size[0], core.bottom + AROUND), min(size[1], core.right + AROUND))
    assert counts.unique().tolist() == [1]


@pytest.mark.parametrize("size", SIZES)
def test_cells_are_those_of_the_whole_picture(small, size):
    weights, picture = random_vgg16(), rand_image(*size, 1).double()
    weights = {name: values.double() for name, values in weights.items()}
    whole = dict(vgg16(weights, picture))
    joined = {layer: torch.full_like(features, torch.nan) for layer, features in whole.items()}
    for tile in make_tiles(*size):
        for layer, features in vgg16(weights, picture[(..., *tile.crop.slices)]):
            window = tile.window(stride_of(layer))
            joined[layer][..., window.rows, window.columns] = cells(tile, features, stride_of(layer))
    assert len(make_tiles(*size)) > 1 or max(size) <= 128
    for layer, features in whole.items():
        assert torch.allclose(joined[layer], features, rtol=1e-12, atol=1e-12), layer


def test_less_around_would_not_do(small, monkeypatch):
    monkeypatch.setattr(tiles, "AROUND", 80)
    with pytest.raises(AssertionError, match="relu5_3"):
        test_cells_are_those_of_the_whole_picture(None, (331, 250))


@pytest.mark.parametrize("names", [NAMES, ["gram"], ["sliced"], ["lpips_vgg"]])
def test_judges_say_what_they_say_of_the_whole(small, monkeypatch, names):
    pictures = rand_image(331, 250, 3) ** 2, rand_image(331, 250, 1), rand_image(200, 331, 2) ** 3
    found = Panel(names).judge(*pictures)
    monkeypatch.setattr(tiles, "CORE", 1024)
    assert found == pytest.approx(Panel(names).judge(*pictures), rel=1e-4)


def test_sampled_cells_lie_on_one_grid(small, monkeypatch):
    monkeypatch.setattr("nst_lightning.judging.style._CELLS", 600)
    pictures = rand_image(200, 250, 3) ** 2, rand_image(200, 250, 1), rand_image(160, 250, 2) ** 3
    weights, layers = random_vgg16(), panel.LAYERS
    ours, start, goal = (dict(vgg16(weights, picture)) for picture in pictures)
    expected = sum(sliced_closed(ours[layer], start[layer], goal[layer]) for layer in layers) / len(layers)
    assert Panel(["sliced"]).judge(*pictures)["sliced"] == pytest.approx(expected, rel=1e-5)
