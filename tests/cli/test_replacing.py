"""What is given later replaces what was given before: lists whole, and classes with all of their arguments."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from nst_lightning import features, losses
from nst_lightning.cli import main
from nst_lightning.config.options import FitCLI
from nst_lightning.config.replacing import drop_replaced

FOUR = ["SelfSimilarity", "NearestNeighbour", "RelaxedEMD", "Palette"]  # as many as painterly's


def read(*line):
    cli = FitCLI(["--data.content", "a.jpg", *line])
    return yaml.safe_load(cli.parser.dump(cli.config))  # null is left out


def painted(*line):
    return read("--data.style", "b.jpg", *line)["model"]


def arguments(class_):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(class_).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_terms_have_their_own_arguments_however_many_there_were():
    for given in (f"[{', '.join(FOUR)}]", f"[{', '.join(f'{{class_path: {name}}}' for name in FOUR)}]"):
        terms = painted("--config", "painterly", "--model.terms", given)["terms"]
        assert [term["class_path"].rpartition(".")[2] for term in terms] == FOUR
        for name, term in zip(FOUR, terms, strict=True):
            own = arguments(getattr(losses, name))
            assert term["init_args"]["weight"] == own["weight"]
            assert term["init_args"].get("layers", ()) == list(own.get("layers", ())) or "layers" not in own


def test_a_file_of_terms_replaces_those_of_a_preset(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"model": {"terms": [{"class_path": name} for name in FOUR]}}))
    terms = painted("--config", "painterly", "--config", str(path))["terms"]
    assert [term["init_args"]["weight"] for term in terms] == [1.0] * 4


def test_what_does_not_change_stays(tmp_path):
    """One term, stage or style more is none instead, and the same class keeps its arguments."""
    path = tmp_path / "mine.yaml"
    path.write_text("model: {terms: [{class_path: Gram, init_args: {weight: 3}}], strength: 2}\n")
    model = painted("--config", str(path), "--model.terms+", "TotalVariation")
    assert model["strength"] == 2
    assert [term["init_args"]["weight"] for term in model["terms"]] == [3.0, 1.0]
    extractor = painted("--config", "fast", "--model.extractor", "CompactVGG19", "--model.extractor.pooling", "average")
    assert extractor["extractor"]["init_args"].items() >= {"weights": "narrow", "pooling": "average"}.items()


@pytest.mark.parametrize("given", ["VGG19", "nst_lightning.features.VGG19", "{class_path: VGG19}"])
def test_a_network_has_its_own_file(given):
    extractor = painted("--config", "fast", "--model.extractor", given)["extractor"]
    assert extractor["class_path"] == "nst_lightning.features.VGG19"
    assert "weights" not in extractor["init_args"]
    assert extractor["init_args"]["units"] == "stored"


def test_a_network_by_its_name_is_the_one_that_programs_build():
    own = {name: value for name, value in arguments(features.CompactVGG19).items() if value is not None}
    assert painted("--model.extractor", "CompactVGG19")["extractor"]["init_args"].items() >= own.items()
    assert painted("--model.extractor.pooling", "average")["extractor"]["init_args"]["pooling"] == "average"


@pytest.mark.parametrize("line", [["--model.optimizer=torch.optim.Adam"], ["--model.optimizer", "Adam"]])
def test_an_optimiser_has_its_own_learning_rate(line):
    assert painted("--config", "gatys", *line)["optimizer"]["init_args"]["lr"] == 0.001
    assert painted(*line, "--model.optimizer.lr", "0.02")["optimizer"]["init_args"]["lr"] == 0.02


def test_arguments_may_stand_before_their_class():
    optimizer = painted("--model.optimizer.lr=0.02", "--model.optimizer", "Adam")["optimizer"]
    assert (optimizer["class_path"], optimizer["init_args"]["lr"]) == ("torch.optim.Adam", 0.02)
    line = ["--config", "fast", "--model.extractor.pooling", "average", "--model.extractor", "VGG19"]
    assert painted(*line)["extractor"]["init_args"].items() >= {"pooling": "average", "units": "stored"}.items()


def test_the_configuration_that_is_printed_is_the_one_that_runs(capsys):
    with pytest.raises(SystemExit) as end:
        line = ["--data.content", "a.jpg", "--data.style", "b.jpg", "--model.optimizer", "torch.optim.Adam"]
        main(["fit", *line, "--print_config"])
    assert end.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["optimizer"]["init_args"]["lr"] == 0.001


def test_no_picture_has_the_mask_of_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {style: [{path: a.png, weight: 3, scale: 0.5, mask: m.png}, b.png]}\n")
    first, second = read("--config", str(path), "--data.style", "[{path: c.png}, d.png]")["data"]["style"]
    assert first == {"path": "c.png", "weight": 1.0, "scale": 1.0}
    assert second == "d.png"
    path.write_text("data: {style: {path: a.png, weight: 3}}\n")
    assert read("--config", str(path), "--data.style", "{path: c.png}")["data"]["style"]["weight"] == 1.0


def test_stages_have_their_own_scale(tmp_path):
    path = tmp_path / "mine.yaml"
    stages = "[{evaluations: 9, scale: 0.5, extractor: CompactVGG19}, {evaluations: 4}]"
    path.write_text(f"model: {{stages: {stages}}}\n")
    found = painted("--config", str(path), "--model.stages", "[{evaluations: 2}, {evaluations: 3}]")["stages"]
    assert found == [{"evaluations": count, "scale": 1.0} for count in (2, 3)]


def test_words_that_replace_nothing_are_handed_on(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: {terms: [Gram]}\n")
    args = ["--config", str(path), "--data.style", "x.png", "--model.optimizer", "LBFGS", "--bits=16", "--report"]
    assert drop_replaced(["--model.extractor", "VGG19", *args]) == ["--model.extractor", "VGG19", *args]
    kept = drop_replaced([*args, "--model.extractor=VGG19", "--model.terms=[Content]"])
    assert kept[0] == "--config"
    assert yaml.safe_load(kept[1]) == {"model": {}}
    assert kept[2:] == [*args[2:], "--model.extractor=VGG19", "--model.terms=[Content]"]
    assert Path(path).read_text() == "model: {terms: [Gram]}\n"
