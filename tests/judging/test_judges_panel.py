"""All judges together, with networks of few channels."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import rand_image
from judge_networks import SMALL_VGG16, random_alexnet, random_vgg16

from nst_lightning.errors import UserError
from nst_lightning.judging import panel
from nst_lightning.judging.backbones import vgg16
from nst_lightning.judging.lpips import VGG_LAYERS, layer_distance
from nst_lightning.judging.panel import JUDGES, Panel
from nst_lightning.judging.pictures import is_stretched, seated
from nst_lightning.judging.style import LAYERS, gram_closed, sliced_closed


@pytest.fixture
def networks(monkeypatch):
    """Counts how often each is asked for."""
    asked = []
    channels = 3 + sum(SMALL_VGG16[index] for index in (1, 3, 6, 9, 12))

    def weights(name):
        asked.append(name)
        return {"alexnet": random_alexnet, "vgg16": random_vgg16}[name]()

    monkeypatch.setattr(panel, "backbone_weights", weights)
    monkeypatch.setattr(panel, "dists_weights", lambda: torch.full((2, channels), 0.5 / channels))
    return asked


CONTENT, STYLE, RESULT = rand_image(64, 80, 1), rand_image(70, 60, 2) ** 3, rand_image(64, 80, 3) ** 2


def test_the_content_itself(networks):
    scores = Panel(list(JUDGES)).judge(CONTENT, CONTENT, STYLE)
    assert list(scores) == list(JUDGES)
    for name in ("lpips_alex", "lpips_vgg", "dists", "cfsd", "gram", "sliced"):
        assert scores[name] == pytest.approx(0, abs=1e-5)
    assert scores["hatching"] <= 1
    assert networks == ["alexnet", "vgg16"]


def test_the_style_itself(networks):
    scores = Panel(list(JUDGES)).judge(STYLE, STYLE.flip(3), STYLE)
    assert scores["gram"] == scores["sliced"] == 1
    assert scores["colors"] == pytest.approx(0, abs=1e-5)
    assert scores["lpips_vgg"] > 0.01


def test_one_walk_asks_as_judges_by_themselves(networks):
    names = ["sliced", "lpips_vgg", "gram"]
    scores = Panel(names).judge(RESULT, CONTENT, STYLE)
    weights = random_vgg16()
    ours, start, goal = (dict(vgg16(weights, picture)) for picture in (RESULT, CONTENT, STYLE))
    expected = {
        "sliced": sum(sliced_closed(ours[layer], start[layer], goal[layer]) for layer in LAYERS) / 4,
        "lpips_vgg": sum(
            layer_distance(ours[layer], start[layer], weights[f"lin{index}"]) for index, layer in enumerate(VGG_LAYERS)
        ),
        "gram": sum(gram_closed(ours[layer], start[layer], goal[layer]) for layer in LAYERS) / 4,
    }
    assert list(scores) == names
    assert scores == pytest.approx(expected)
    for name in names:
        assert Panel([name]).judge(RESULT, CONTENT, STYLE) == {name: pytest.approx(expected[name])}


def test_without_networks_none_is_looked_for(networks):
    scores = Panel(["borders", "colors", "hatching", "clipped"]).judge(RESULT, CONTENT, STYLE)
    assert list(scores) == ["borders", "colors", "hatching", "clipped"]
    assert networks == []


def test_what_lies_out_of_range_is_clamped(networks):
    names = ["lpips_vgg", "clipped"]
    beyond = CONTENT * 2 - 0.5
    assert Panel(names).judge(beyond, CONTENT, STYLE) == Panel(names).judge(beyond.clamp(0, 1), CONTENT, STYLE)


def test_small_pictures_are_refused_by_judges_that_see_nothing_there(networks):
    narrow = rand_image(64, 47)
    with pytest.raises(UserError, match="STYLE: must have sides of at least 48 px to be judged by hatching, got 47x64"):
        Panel(["hatching", "clipped"]).judge(CONTENT, CONTENT, narrow)
    with pytest.raises(UserError, match=r"RESULT: .* at least 20 px .* by borders, got 19x64; .* --judges clipped"):
        Panel(["borders", "clipped"]).judge(narrow[..., :19], narrow[..., :19], STYLE)
    assert Panel(["clipped", "borders"]).judge(CONTENT, CONTENT, narrow)
    assert Panel(["clipped", "colors"]).judge(*(rand_image(1, 2, seed) for seed in range(3)))
    assert Panel(list(JUDGES)).judge(*(rand_image(48, 48, seed) for seed in range(3)))


def test_nothing_is_to_be_closed_of_one_picture_whatever_the_shape_of_the_result(networks):
    for result in (rand_image(64, 80), rand_image(66, 80), rand_image(80, 64)):
        found = Panel(["gram", "sliced"]).judge(*seated(result, CONTENT, CONTENT.clone()))
        assert all(math.isnan(value) for value in found.values())


def test_sizes():
    sitting = seated(RESULT, rand_image(128, 160), rand_image(30, 90))
    assert tuple(sitting.result.shape) == tuple(sitting.content.shape) == (1, 3, 64, 80)
    assert tuple(sitting.style.shape) == (1, 3, 27, 80)
    assert is_stretched(RESULT, rand_image(128, 150))
    assert not is_stretched(RESULT, rand_image(129, 160))
