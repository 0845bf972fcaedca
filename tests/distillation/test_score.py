"""The score of a narrow encoder."""

import json

import pytest
import torch

from nst_lightning.cli import main
from nst_lightning.distillation.network import teacher_network
from nst_lightning.distillation.score import STYLE_LAYERS, UNSEEN_LAYERS, ImageOptimization, judge
from nst_lightning.distillation.storage import save_student
from nst_lightning.features import VGG19
from nst_lightning.features.compact import TAPS


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 48, 48, generator=generator) for _ in range(2)]


def test_the_style_itself_closes_the_gap_and_the_content_nothing(tiny_weights, images):
    content, style = images
    network = VGG19(str(tiny_weights))
    whole, nothing = judge(network, style, content, style), judge(network, content, content, style)
    assert whole.mean(STYLE_LAYERS) == pytest.approx(1)
    assert nothing.mean([*STYLE_LAYERS, *UNSEEN_LAYERS]) == pytest.approx(0)
    assert nothing.content == 0
    assert whole.content > 0


def test_half_of_the_gap_by_hand(images):
    """A network of one layer whose Gram matrix is known: grey pictures of brightness b give b²."""

    class Grey:
        def __call__(self, image, layers):
            return {layer: image.mean(1, keepdim=True) for layer in layers}

    content, style, picture = (torch.full((1, 3, 8, 8), b) for b in (0.2, 0.8, 0.6))
    result = judge(Grey(), picture, content, style)
    assert result.closed["relu3_1"] == pytest.approx(1 - (0.64 - 0.36) / (0.64 - 0.04))
    assert result.content == pytest.approx(2)


def test_an_optimisation_lowers_the_loss_and_returns_intermediate_images(tiny_weights, images):
    content, style = images
    optimization = ImageOptimization(VGG19(str(tiny_weights)), content, style)
    picture, seconds, copies = optimization.run(12, steps=[0, 5])
    assert torch.equal(copies[0], content)
    assert len(copies) == 2
    assert optimization.objective(picture).loss < optimization.objective(content).loss
    assert seconds > 0


def test_a_perfect_student_scores_one(use_tiny_weights, pair, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = VGG19()
    teacher.use_layers(TAPS)
    save_student(tmp_path / "perfect.safetensors", teacher_network(teacher), {})
    common = ["score", "--student", "perfect.safetensors", "--content", str(pair[0]), "--style", str(pair[1])]
    assert main([*common, "--size", "40", "--evaluations", "10"]) == 0
    (row,) = json.loads((tmp_path / "runs/score/score.json").read_text())
    assert row["share"] == pytest.approx(1, abs=0.04)  # ten steps magnify rounding
    assert row["cosines"]["0"] > 0.95  # where there is bfloat16, both run in it
    assert (tmp_path / "runs/score/content_style_40.png").is_file()
    assert "1 pairs, 40 px: median share" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "content: give pairs"),
        (["--content", "a.png"], "style: must be as many as content (1), got 0"),
        (["--size", "large"], "invalid int value"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    assert main(["score", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
