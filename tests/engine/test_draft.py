"""A draft: a network that makes all of the default stages but the last evaluations."""

from __future__ import annotations

import csv
import os
import shutil

import pytest
import torch
from helpers import picture
from safetensors.torch import load_file, save_file

from nst_lightning import StyleTransfer
from nst_lightning.cli import main
from nst_lightning.config import build
from nst_lightning.config.resume import compares_anew
from nst_lightning.data import schedule
from nst_lightning.errors import UserNotice
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.losses import Content, Gram


@pytest.fixture
def short(monkeypatch):
    """Default stages of a few evaluations: at 96 px 4 and 3 of the draft, and one of the model's own network."""
    for name, value in (("COARSEST", 48), ("_FIRST", 4), ("_SECOND", 3), ("_LEAST", 2)):
        monkeypatch.setattr(schedule, name, value)


def arguments(pair, *more):
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "96"]
    return ["fit", *pictures, "--model.draft", "CompactVGG19", "--trainer.accelerator", "cpu", *more]


def stages_of(folder):
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [int(row["stage"]) for row in csv.DictReader(file)]


def newest(place):
    return max((place / "runs").iterdir())


def test_a_run_by_two_networks(place, pair, short, capsys):
    assert main(arguments(pair)) == 0
    assert stages_of(newest(place)) == [0] * 4 + [1] * 3 + [2]
    said = capsys.readouterr().err
    assert "8 evaluations in 3 stages; weights: compact VGG-19 from the package" in said
    assert said.index("compact VGG-19") < said.index("tiny.safetensors")
    # The same as with stages that say so themselves.
    drafts = [f"{{evaluations: {made}, extractor: {{class_path: CompactVGG19}}" for made in (4, 3)]
    stages = f"[{drafts[0]}, scale: 0.5}}, {drafts[1]}}}, {{evaluations: 1}}]"
    assert main([*arguments(pair), "--model.draft", "null", "--model.stages", stages]) == 0
    first, second = sorted((place / "runs").iterdir())
    assert torch.equal(picture(first), picture(second))


def test_it_goes_on_and_can_be_lengthened(place, pair, short):
    assert main(arguments(pair)) == 0
    whole = newest(place)
    assert main(arguments(pair, "--trainer.max_steps", "5")) == 0
    assert main(["fit", "--ckpt_path", "last"]) == 0
    assert newest(place) != whole
    assert torch.equal(picture(newest(place)), picture(whole))
    assert main(arguments(pair, "--trainer.max_steps", "5")) == 0
    assert main(["fit", "--ckpt_path", "last", "--model.evaluations", "16"]) == 0
    assert stages_of(newest(place)) == [0] * 4 + [1] * 9 + [2] * 3


def test_lengthening_changes_no_network(place, pair, short, capsys, monkeypatch):
    """Its stages are written out then, with the draft that they had by default: losses of before still count."""
    compared: list[bool] = []
    monkeypatch.setattr(build, "compares_anew", lambda *asked: compared.append(compares_anew(*asked)) or compared[-1])
    assert main(arguments(pair, "--trainer.max_steps", "5")) == 0
    shutil.copytree(newest(place), place / "kept")
    assert main(["fit", "--ckpt_path", "last", "--model.evaluations", "16"]) == 0
    assert compared == [False]
    # A file of weights that is another one is refused, as it is without another length.
    others = {name: value + 0.01 for name, value in load_file(os.environ[ENVIRONMENT_VARIABLE]).items()}
    save_file(others, place / "others.safetensors")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(place / "others.safetensors"))
    capsys.readouterr()
    asked = ["fit", "--ckpt_path", str(place / "kept" / "checkpoints" / "000005.ckpt"), "--model.evaluations", "17"]
    assert main(asked) == 2
    assert "model.extractor of stage 3: " in capsys.readouterr().err


@pytest.mark.parametrize("own", [[], [2]], ids=["without a draft", "with one"])
def test_a_run_of_a_version_with_longer_stages_keeps_them(place, pair, short, monkeypatch, capsys, own):
    asked = arguments(pair)
    if not own:
        asked = [argument for argument in asked if argument not in {"--model.draft", "CompactVGG19"}]
    for first, second, last in ((7, 5, own * 2), (4, 3, own)):
        expected = [0] * first + [1] * second + last
        monkeypatch.setattr(schedule, "_FIRST", first)
        monkeypatch.setattr(schedule, "_SECOND", second)
        assert main([*asked, "--trainer.max_steps", "3"]) == 0
        monkeypatch.setattr(schedule, "_FIRST", 4)
        monkeypatch.setattr(schedule, "_SECOND", 3)
        capsys.readouterr()
        assert main(["fit", "--ckpt_path", "last"]) == 0
        assert stages_of(newest(place)) == expected
        assert ("model.stages" in capsys.readouterr().err) is (first == 7)


def test_a_layer_that_it_lacks_makes_the_run_do_without(tiny_weights):
    terms = [Content(layers=["conv4_2"]), Gram()]
    with pytest.warns(UserNotice, match=r"model.draft: no layer 'conv4_2' in CompactVGG19.*going on without"):
        module = StyleTransfer(extractor=VGG19(str(tiny_weights)), draft=CompactVGG19(), terms=terms)
    assert module.draft is None
    assert all(stage.extractor is None for stage in module.stages)


def test_a_state_dict_holds_no_network(tiny_weights):
    module = StyleTransfer(extractor=VGG19(str(tiny_weights)), draft=CompactVGG19())
    assert set(module.state_dict()) == {"image"}
    assert [name for name, parameter in module.named_parameters() if parameter.requires_grad] == ["image"]
    module.load_state_dict(module.state_dict())
