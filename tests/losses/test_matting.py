"""The matting Laplacian against a dense one, window by window, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rand

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.losses import Gram, MattingLaplacian, matting
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective


def dense_laplacian(content, radius, epsilon, weights=None):
    """Levin's matrix, entry by entry of each window, of a picture that goes on as its mirror image; over windows."""
    _, height, width = content.shape
    side, count = 2 * radius + 1, height * width
    places = torch.from_numpy(np.pad(np.arange(count).reshape(height, width), radius, mode="symmetric"))
    weights = (
        torch.full((count,), 1 / count, dtype=torch.float64) if weights is None else weights.flatten() / weights.sum()
    )
    matrix = torch.zeros(count, count, dtype=torch.float64)
    for k in range(count):
        row, column = divmod(k, width)
        window = places[row : row + side, column : column + side].flatten()
        colours = content.flatten(1)[:, window].T
        centred = colours - colours.mean(0)
        inverse = torch.linalg.inv(centred.T @ centred / side**2 + epsilon * torch.eye(3).double())
        own = torch.eye(side**2).double() - (1 + centred @ inverse @ centred.T) / side**2
        pairs = (window[:, None].expand(side**2, -1), window.expand(side**2, -1))
        matrix.index_put_(pairs, weights[k] * own / side**2, accumulate=True)
    return matrix


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_are_those_of_the_dense_matrix(radius, weighted):
    content, image = rand(1, 3, 9, 12).double(), rand(1, 3, 9, 12, seed=1).double().requires_grad_()
    weights = rand(1, 1, 9, 12, seed=2).double() if weighted else None
    loss = MattingLaplacian(radius=radius / 12, epsilon=1e-3).image_loss(image, content, weights)
    (gradient,) = torch.autograd.grad(loss, image)
    laplacian, channels = dense_laplacian(content[0], radius, 1e-3, weights), image.detach()[0].flatten(1)
    expected = sum(channel @ laplacian @ channel for channel in channels) / (3 * 0.01**2)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient[0].flatten(1), 2 * channels @ laplacian / (3 * 0.01**2), rtol=1e-8, atol=1e-9)


def test_nothing_is_left_of_one_colour():
    """And not less than nothing, which rounding made of it."""
    content, image = (
        torch.tensor(c).view(1, 3, 1, 1).expand(1, 3, 72, 96) for c in ((0.16, 0.47, 0.78), (0.8, 0.2, 0.3))
    )
    assert 0 <= float(MattingLaplacian().image_loss(image, content, None)) < 1e-3


def stripes(size):
    """Columns that go up and down: in windows of three, at the border as well, their variance is 8/9 of the square."""
    return torch.tensor([size, -size]).repeat(6).expand(1, 3, 8, 12).double() + 0.5


def test_by_hand():
    term, flat = MattingLaplacian(radius=1 / 12, epsilon=0.01), stripes(0.0)
    assert float(term.image_loss(stripes(0.03), flat, None)) == pytest.approx(8 / 9 * 0.03**2 / 0.01**2)
    # Of channels that are all alike a slope of s / (3 s + ε) each leaves s ε / (3 s + ε) of the variance s.
    s = 8 / 9 * 0.2**2
    assert float(term.image_loss(stripes(0.2), stripes(0.2), None)) == pytest.approx(
        s * 0.01 / (3 * s + 0.01) / 0.01**2
    )


def test_other_light_and_colours_are_free_and_strokes_are_not():
    content = rand(1, 3, 40, 50)
    mix = torch.tensor([[0.7, 0.2, 0.0], [0.1, -0.5, 0.3], [0.0, 0.4, 1.2]]).to(content)
    moved = torch.einsum("ij,njhw->nihw", mix, content) + torch.tensor([0.3, -0.1, 0.0]).to(content).view(1, 3, 1, 1)
    dusk = content * torch.linspace(0.2, 1, 50).to(content)
    term = MattingLaplacian(radius=2 / 50)
    assert float(term.image_loss(moved, content, None)) < 0.1
    assert float(term.image_loss(dusk, content, None)) < 2
    assert float(term.image_loss(content + 0.1 * rand(1, 3, 40, 50, seed=1), content, None)) > 5


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 9), (1, 3, 20, 3), (1, 3, 9, 11)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_finite_and_right(shape, weighted):
    content, image = rand(*shape).double(), rand(*shape, seed=1).double().requires_grad_()
    weights = rand(1, 1, *shape[2:], seed=2).double() if weighted else None
    term = MattingLaplacian(radius=0.4, epsilon=1e-2)
    assert torch.autograd.gradcheck(lambda x: term.image_loss(x, content, weights), image)


def test_the_radius_is_a_share_of_the_longer_side(monkeypatch):
    found = []
    monkeypatch.setattr(
        matting._Residual, "apply", lambda image, _, __, radius, ___: found.append(radius) or image.sum()
    )
    for longer in (20, 512, 2048):
        picture = torch.zeros(1, 3, 8, longer)
        MattingLaplacian().image_loss(picture, picture, None)
    assert found == [1, 26, 102]


def test_strips_do_not_show(monkeypatch):
    content, image = rand(1, 3, 90, 20).double(), rand(1, 3, 90, 20, seed=1).double().requires_grad_()

    def found():
        loss = MattingLaplacian(radius=2 / 90).image_loss(image, content, None)
        return loss.detach(), *torch.autograd.grad(loss, image)

    whole = found()
    monkeypatch.setattr(matting, "_STRIP", 1)
    for one, other in zip(whole, found(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_single_precision_keeps_the_digits_that_count():
    """Of a sky: hardly any contrast, in bright values, under a change of a few steps of 8 bits."""
    sky = (0.85 + 0.004 * rand(1, 3, 60, 60)).double()
    image = (sky - 0.3 + 0.01 * rand(1, 3, 60, 60, seed=1)).requires_grad_()
    term, gradients = MattingLaplacian(), []
    for kind in (torch.float64, torch.float32):
        loss = term.image_loss(image.to(kind), sky.to(kind), None)
        gradients.append(torch.autograd.grad(loss, image)[0])
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.01


def test_masks_say_where_edges_count():
    content, image = rand(1, 3, 20, 30), rand(1, 3, 20, 30, seed=1)
    weights = torch.zeros(1, 1, 20, 30)
    weights[..., :10] = 1
    term = MattingLaplacian(radius=2 / 30)
    other = image.clone()
    other[..., 12:] = 0.5  # a window reaches two pixels beyond
    torch.testing.assert_close(term.image_loss(image, content, weights), term.image_loss(other, content, weights))
    alike = torch.full((1, 1, 20, 30), 0.3)
    torch.testing.assert_close(term.image_loss(image, content, alike), term.image_loss(image, content, None))


@pytest.mark.parametrize("masked", [False, True])
def test_tiles_do_not_show(tiny_weights, masked):
    content, image = rand(1, 3, 96, 80).double(), rand(1, 3, 96, 80, seed=1).double().requires_grad_()
    masks = Masks([], [None], [None], [None], Mask(rand(1, 1, 96, 80, seed=3), "face"), 0.3) if masked else None
    found = []
    for tile in (None, 48):
        network = VGG19(str(tiny_weights)).double()
        network.set_compute_dtype(torch.float64)
        evaluate = Evaluator(Objective([MattingLaplacian(), Gram()]), network, tile)
        evaluate.prepare(content, [(rand(1, 3, 50, 61, seed=2).double(), 1.0)], masks)
        loss, _ = evaluate(image)
        found.append((loss, torch.autograd.grad(loss, image)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"radius": 6}, "mattinglaplacian.radius: must be from 0 to 0.5, got 6; 0.05"),
        ({"epsilon": 0.0}, "mattinglaplacian.epsilon: must be at least 1e-07, .* got 0.0; 1e-5"),
        ({"epsilon": float("nan")}, "epsilon: .* got nan"),
    ],
)
def test_wrong_arguments(options, words):
    with pytest.raises(UserError, match=words):
        MattingLaplacian(**options)
