"""Inputs at the edge of what is allowed: silent layers, gradients of zero, terms without layers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from terms import whole_walk

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.features.weights import read_vgg19_weights
from nst_lightning.losses import Content, CosineContent, Gram, Layer, Tones, TotalVariation, Wasserstein, Window
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective
from nst_lightning.optim import LBFGS


# tests/optim/test_lbfgs.py
@pytest.mark.parametrize(
    ("gradient", "max_step", "moved"), [(0.0, 10.0, 0.0), (1.0, float("inf"), 0.01), (1e-25, 0.1, 0.01)]
)
def test_first_steps_at_the_edge_of_the_range(gradient, max_step, moved):
    x = torch.zeros(10, requires_grad=True)
    x.grad = torch.full((10,), gradient)
    LBFGS([x], max_step=max_step).step()
    torch.testing.assert_close(x.detach(), torch.full((10,), -moved))


def test_a_loss_that_is_a_plain_number_may_be_nan():
    x = torch.zeros(3, requires_grad=True)
    x.grad = torch.ones(3)
    optimiser = LBFGS([x])
    optimiser.step(lambda: float("nan"))
    assert not x.detach().any()
    assert int(optimiser.state[x]["skipped"]) == 1


@pytest.mark.parametrize(
    "options",
    [{"curvature": float("nan")}, {"curvature": -1.0}, {"lr": float("inf")}, {"spectral_exponent": float("nan")}],
)
def test_numbers_that_are_none(options):
    with pytest.raises(UserError, match=f"{next(iter(options))}: must be"):
        LBFGS([torch.zeros(2, requires_grad=True)], **options)


# tests/objective/test_objective.py
def test_a_term_must_have_a_layer():
    with pytest.raises(UserError, match=r"gram.layers: must name at least one layer, got none"):
        Objective([Content(), Gram([])])


# tests/features/test_vgg.py
def test_what_was_released_is_read_again(tiny_weights):
    """A network may be kept for other runs: what one of them does not need is only not in memory."""
    network, whole = VGG19(str(tiny_weights)), VGG19(str(tiny_weights))
    picture = torch.rand(1, 3, 48, 40)
    network.use_layers(["relu1_1"])
    assert len(network.convolutions) == 1
    for layer in ("relu3_1", "relu5_4", "conv4_2"):
        assert torch.equal(network(picture, [layer])[layer], whole(picture, [layer])[layer])
    network.use_layers(["relu1_1"])  # another run: nothing is lost that a run before has asked for
    assert len(network.convolutions) == 16


def test_unit_activations_survive_a_silent_layer(tiny_weights, tmp_path):
    state = load_file(tiny_weights)
    state["features.5.bias"] = state["features.5.bias"] - 1e3
    save_file(state, tmp_path / "silent.safetensors")
    network = VGG19(str(tmp_path / "silent.safetensors"), unit_activations=True)
    picture = torch.rand(1, 3, 24, 24)
    scaled = network.rescaled([picture], whole_walk(network))
    assert all(torch.isfinite(feature).all() for feature in scaled(picture, ["conv2_1", "relu3_1"]).values())


@pytest.mark.parametrize("arguments", [{"layout": "Caffe"}, {"expected": "Caffe"}])
def test_names_of_sets_are_checked(tiny_weights, arguments):
    with pytest.raises(UserError, match=f"{next(iter(arguments))}: must be one of"):
        VGG19(str(tiny_weights), **arguments)


# tests/features/test_weights.py: two more rows of test_wrong_tensors_are_refused
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("features.0.weight", torch.tensor(1.0), r"got \(\)"), ("features.34.bias", torch.zeros(3), r"bias of \(3,\)")],
)
def test_wrong_shapes(tiny_weights, tmp_path, key, value, words):
    save_file(load_file(tiny_weights) | {key: value}, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match=words):
        read_vgg19_weights(tmp_path / "wrong.safetensors")


# tests/objective/test_objective.py
@pytest.mark.parametrize(
    ("terms", "knobs"),
    [
        ([Content()], {"likeness": 0.0}),
        ([Gram()], {"strength": 0.0}),
        ([Content(), Gram()], {"likeness": 0.0, "strength": 0}),
    ],
)
def test_knobs_must_leave_something(terms, knobs):
    with pytest.raises(UserError, match=r"model.terms: must have a term that counts, got none with model.strength"):
        Objective(terms, **knobs)


# tests/objective/test_tiling.py
def test_objectives_of_pixels_alone_have_tiles():
    content, image = (torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = []
    for tile in (None, 64):
        evaluator = Evaluator(Objective([Tones(), TotalVariation()]), CompactVGG19("narrow"), tile=tile)
        evaluator.prepare(content, [])
        leaf = image.clone().requires_grad_()
        evaluation = evaluator(leaf)
        evaluation.loss.backward()
        found.append((evaluation.parts.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1])


# tests/losses/test_cosine_content.py
def test_a_black_content_has_no_directions():
    evaluator = Evaluator(Objective([CosineContent(["image"])]), CompactVGG19("narrow"))
    evaluator.prepare(torch.zeros(1, 3, 16, 16), [])
    image = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    loss = evaluator(image).loss
    loss.backward()
    assert float(loss.detach()) == 0
    assert not image.grad.any()


# tests/losses/test_transport.py
@pytest.mark.parametrize("color", [(1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (0.7, 0.3, 0.4), (0.0, 0.0, 0.0)])
def test_one_colour_moves_to_the_mean_of_the_style(color):
    """Without variance nothing but the means is left: d/dx of their squared distance, over N, in the loss's unit."""
    term, layer = Wasserstein(["image"]), Layer("image")
    style = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.6
    image = torch.tensor(color).view(1, 3, 1, 1).repeat(1, 1, 32, 64).requires_grad_()

    def mean(picture):
        return term.measure(layer, picture, Window.whole(picture), None) / picture[0, 0].numel()

    target = term.target(layer, mean(image.detach()), term.style_target(layer, [(mean(style), 1.0)]))
    (gradient,) = torch.autograd.grad(term.loss(layer, mean(image), target), image)
    expected = 2 * (torch.tensor(color) - style.mean((0, 2, 3))) / (32 * 64) / target[1]
    error = (gradient - expected.view(1, 3, 1, 1)).abs().max()
    assert float(error) < 0.02 * float(expected.abs().max())
