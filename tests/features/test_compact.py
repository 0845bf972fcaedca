"""The compact encoder: its features, narrow statistics, file and place among the extractors."""

import pytest
import torch
from helpers import rand_image
from terms import whole_walk
from torch import Tensor

from nst_lightning.distillation.network import NAMES, CompactNetwork
from nst_lightning.distillation.storage import save_student
from nst_lightning.errors import UserError
from nst_lightning.features import CompactVGG19, compact
from nst_lightning.features.compact import TAPS
from nst_lightning.losses import Content, Gram
from nst_lightning.losses.gram import gram_matrix
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective

NARROW, FULL = (3, 4, 5, 4, 6, 5, 5, 5, 7, 6, 6, 6, 8), (6, 6, 8, 8, 9, 9, 9, 9, 12, 11, 12, 12, 12)


@pytest.fixture(scope="module", params=["narrow", "low rank"])
def student(request) -> CompactNetwork:
    """Of few channels in all layers, or full in the later ones, whose convolutions are of low rank."""
    torch.manual_seed(0)
    if request.param == "narrow":
        network = CompactNetwork(NARROW, FULL)
    else:
        ranks, seen = (0,) * 4 + (3,) * 8 + (5,), (0,) * 6 + (2,) * 7
        network = CompactNetwork((*NARROW[:4], *FULL[4:]), FULL, ranks, seen)
        for factor in (*network.expansions.values(), *network.reductions.values()):
            torch.nn.init.kaiming_normal_(factor.weight)
    for parameter in network.maps.values():
        torch.nn.init.normal_(parameter)
    for convolution in network.convolutions:
        torch.nn.init.kaiming_normal_(convolution.weight)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def weights(student, tmp_path_factory):
    path = tmp_path_factory.mktemp("compact") / "student.safetensors"
    save_student(path, student, {"steps": "0"})
    return str(path)


@pytest.fixture
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, *size, generator=generator) for size in ((40, 52), (40, 52), (48, 36))]


class PlainGram(Gram):
    """Asks the objective for widened features."""

    takes_projection = False


class PlainContent(Content):
    """Asks the objective for widened features."""

    takes_projection = False


def test_features_are_those_of_the_trained_network(student, weights, images):
    extractor = CompactVGG19(weights, units="stored")
    found = extractor(images[0], TAPS)
    for tap, expected in student(images[0]).items():
        assert (found[tap] - expected).norm() < 1e-2 * expected.norm()  # the file holds half precision
        if extractor.projection(tap) is None:
            assert found[tap].shape[1] == FULL[NAMES.index(tap.replace("relu", "conv"))]
        else:
            torch.testing.assert_close(extractor.projection(tap), student.maps[tap], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("normalization", ["balanced", "released", "paper"])
def test_narrow_statistics_give_the_loss_of_widened_features(weights, images, normalization):
    """Values and gradients; the oracle widens every cell."""
    image, content, style = images
    results = []
    for kinds in ((Content, Gram), (PlainContent, PlainGram)):
        layers = [["relu3_1", "relu4_2"], ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]]
        terms = [kind(layers[i], normalization=normalization) for i, kind in enumerate(kinds)]
        objective = Evaluator(Objective(terms), CompactVGG19(weights))
        objective.prepare(content, [(style, 0.25), (image, 0.75)])
        x = image.clone().requires_grad_()
        loss, parts = objective(x)
        loss.backward()
        results.append((parts, x.grad))
    (parts, gradient), (expected, other) = results
    torch.testing.assert_close(parts, expected, rtol=1e-4, atol=0)
    assert (gradient - other).norm() < 1e-4 * other.norm()


def test_units_and_unit_activations(student, weights, images):
    stored, normalised = CompactVGG19(weights, units="stored"), CompactVGG19(weights)
    for tap in TAPS:
        one, other = (extractor(images[0], [tap])[tap] for extractor in (stored, normalised))
        torch.testing.assert_close(one, 255 * 0.225 * other, rtol=1e-4, atol=1e-4)
    unit = CompactVGG19(weights, unit_activations=True)
    before = unit.projection("relu4_1")
    scaled = unit.rescaled(images, whole_walk(unit))
    total = torch.zeros(FULL[8])
    for image in images:
        total += scaled.projection("relu4_1") @ scaled(image, ["relu4_1"])["relu4_1"].mean(dim=(0, 2, 3)) / 3
    assert (total <= 1 + 1e-4).all()
    assert total.max() == pytest.approx(1, abs=1e-4)
    after = unit.projection("relu4_1")  # the network itself stays as it is
    assert after is before is None or torch.equal(before, after)
    assert before is None or not torch.equal(before, scaled.projection("relu4_1"))


def test_magnitudes_are_the_teachers(student, weights, images):
    gram = gram_matrix(student.project("relu2_1", student(images[0])["relu2_1"]))
    torch.testing.assert_close(gram, student.projected_gram("relu2_1", student(images[0])["relu2_1"])[0])


def test_double_precision_and_bfloat16(weights, images):
    losses = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        network = CompactVGG19(weights)
        network.set_compute_dtype(dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        objective = Evaluator(Objective([Content(), Gram()]), network.to(wide))
        image, content, style = (x.to(wide) for x in images)
        objective.prepare(content, [(style, 1.0)])
        losses.append(float(objective(image).loss))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=0.1)  # layers of rank 2 round more than real ones do


def test_layers_it_lacks_are_refused(weights):
    with pytest.raises(UserError, match=r"no layer 'relu1_2' in CompactVGG19.*valid: relu1_1"):
        Evaluator(Objective([Gram(["relu1_2"])]), CompactVGG19(weights))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "must be a file"),
        (lambda path: path.write_bytes(b"not safetensors"), "cannot be read"),
        (lambda path: path.write_bytes(path.with_name("whole").read_bytes()[:2000]), "cannot be read"),
    ],
)
def test_bad_files_are_named(weights, tmp_path, make, message):
    from pathlib import Path

    (tmp_path / "whole").write_bytes(Path(weights).read_bytes())
    make(tmp_path / "student.safetensors")
    with pytest.raises(UserError, match=message) as error:
        CompactVGG19(str(tmp_path / "student.safetensors"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["compact", "narrow"])
def test_package_weights_are_checked(weights, monkeypatch, kind):
    from pathlib import Path

    assert sum(len(layer.bias) for layer in CompactVGG19(kind).convolutions) > 1000
    monkeypatch.setitem(compact.EMBEDDED, kind, Path(weights))
    with pytest.raises(UserError, match="SHA-256"):
        CompactVGG19(kind)


def test_a_network_that_nobody_looks_through_can_be_asked_later():
    """As where all terms are of the picture itself, and regions are found by what the network sees."""
    idle, known = CompactVGG19(weights="narrow"), CompactVGG19(weights="narrow")
    idle.use_layers([])
    assert idle.memory([]).filters < known.memory([]).filters
    image = rand_image(32, 32)
    torch.testing.assert_close(idle(image, ["relu4_1"]), known(image, ["relu4_1"]), rtol=1e-4, atol=1e-3)
