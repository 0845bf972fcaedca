"""Content by directions: values by hand and by a loop, gradients, narrow features, tiles and memory."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import rand, rand_image
from terms import Alone

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.losses import CosineContent, Gram
from nst_lightning.losses.cosine_content import directions_of, turning
from nst_lightning.losses.projection import projection_of
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective

LAYER = "relu1_1"


def maps(channels=4, height=5, width=6, seed=0):
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed)).double()


def alone(content, weights=None, projection=None):
    return Alone(CosineContent([LAYER]), content, [], weights=weights, projection=projection)


def cells_at(*rows):
    """A map of one row, a cell each, between two that do not count."""
    return torch.tensor([(1, 1), *rows, (-1, 2)]).double().T[None, :, None]


def test_by_hand():
    """Three cells of lengths 1, 2 and 5: of one direction, at 60 degrees, at a right angle: 0, 1/2 and 1.

    The mean is also that of the outermost cells, whose lengths are roots of 2 and 5.
    """
    content = cells_at((1, 0), (2, 0), (0, 5))
    image = cells_at((7, 0), (1, math.sqrt(3)), (3, 0))
    mean = (1 + 2 + 5 + math.sqrt(2) + math.sqrt(5)) / 5
    assert float(alone(content).value(image)) == pytest.approx((2 * 0.5 + 5 * 1) / mean / 3, rel=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 4), (2, 5), (3, 3)])
def test_maps_too_small_for_inner_cells_count_whole_along_that_side(size):
    content, image = maps(4, *size, seed=1), maps(4, *size, seed=2)
    there = (slice(1, -1) if length > 2 else slice(None) for length in size)
    lengths = content[0].norm(dim=0)
    losses = lengths / lengths.mean() * (1 - torch.cosine_similarity(content[0], image[0], dim=0))
    assert float(alone(content).value(image)) == pytest.approx(float(losses[tuple(there)].mean()), rel=1e-4)


def test_the_outermost_cells_do_not_count(tiny_weights):
    """They alone see the outermost pixels, where a cell sees a pixel around it."""
    content, style = rand_image(48, 64), rand_image(40, 50, seed=2)
    evaluate = Evaluator(Objective([CosineContent(["conv1_1"])]), VGG19(str(tiny_weights)))
    evaluate.prepare(content, [(style, 1.0)])
    leaf = rand_image(48, 64, seed=4).requires_grad_()
    evaluate(leaf).loss.backward()
    rows = leaf.grad.abs().mean((0, 1, 3))
    assert 0 < rows[0] < 0.7 * rows[4:-4].mean()
    assert 0 < rows[-1] < 0.7 * rows[4:-4].mean()


def test_where_all_cells_count_it_is_the_mean_of_all():
    content, image = maps(seed=1), maps(seed=2)
    mean = float((1 - torch.cosine_similarity(content, image, dim=1)).mean())
    everywhere, elsewhere = (
        float(Alone(CosineContent([LAYER], everywhere=layers), content.clone(), []).value(image))
        for layers in ([LAYER], [])
    )
    assert everywhere == pytest.approx(mean, rel=1e-4)
    assert elsewhere != pytest.approx(mean, rel=1e-4)


def test_only_layers_of_the_term_can_count_everywhere():
    words = r"^cosinecontent\.everywhere: must be among its layers \(relu2_1\), got relu5_1; leave it out or add it"
    with pytest.raises(UserError, match=words):
        CosineContent(["relu2_1"], everywhere=["relu5_1"])


def test_strength_says_nothing():
    content = maps().abs() + 0.1
    assert float(alone(content).value(content * torch.linspace(0.5, 9, 6, dtype=torch.float64))) < 1e-10


def test_a_cell_without_activation_has_no_direction_and_a_small_gradient():
    content = cells_at((1, 0), (0, 0))
    image = cells_at((1, 0), (0, 0)).requires_grad_()
    (gradient,) = torch.autograd.grad(alone(content).value(image), image)
    assert gradient.abs().max() < 1e-12
    image = cells_at((0, 0), (0, 1))
    expected = (1 * 0.5 + 0) / ((math.sqrt(2) + 1 + 0 + math.sqrt(5)) / 4) / 2
    assert float(alone(content).value(image)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_is_that_of_a_loop(wide, weighed):
    content, image = maps(seed=1), maps(seed=2)
    weights = rand(1, 1, 5, 6, seed=3) if weighed else None
    matrix = maps(7, 1, 4, seed=4)[0, :, 0] if wide else torch.eye(4).double()
    total, length = 0.0, float((matrix @ content[0].flatten(1)).norm(dim=0).mean())
    for y in range(1, 4):
        for x in range(1, 5):
            one, other = matrix @ content[0, :, y, x], matrix @ image[0, :, y, x]
            cosine = float(one @ other / one.norm() / other.norm())
            counts = float(one.norm()) / length * (1.0 if weights is None else float(weights[0, 0, y, x]))
            total += (1 - cosine) * counts
    found = alone(content, weights, projection_of(matrix) if wide else None).value(image)
    assert float(found) == pytest.approx(total / 12, rel=1e-4)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_gradient(wide, weighed):
    content, image = maps(seed=1), maps(seed=2).requires_grad_()
    projection = projection_of(maps(7, 1, 4, seed=4)[0, :, 0]) if wide else None
    counts = rand(1, 1, 5, 6, seed=3) if weighed else torch.ones(1, 1, 5, 6)
    # So that the softness is not too small.
    target = directions_of(content, torch.tensor(1e5).double(), torch.tensor(30.0).double(), projection)
    assert float(target.soft) == pytest.approx(0.1)
    assert torch.autograd.gradcheck(lambda f: turning(f, target, counts.double(), projection), image)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halves_are_summed_in_single_precision(kind):
    """Values that squares in half precision do not reach."""
    content, image = 300 * maps(32, 24, 24, seed=1), 300 * maps(32, 24, 24, seed=2)
    wide, narrow = (alone(content.to(k)).value(image.to(k)) for k in (torch.float64, kind))
    assert float(narrow) == pytest.approx(float(wide), rel=1e-3)


def test_the_narrow_network_gives_what_widened_features_give():
    """Distances of directions of the compact encoder's features are those of the features that it stands for."""
    network, content, image = CompactVGG19("narrow"), rand_image(48, 64), rand_image(48, 64, seed=1)
    evaluate = Evaluator(Objective([CosineContent(["relu3_1"]), Gram()]), network)
    evaluate.prepare(content, [(image, 1.0)])
    matrix = network.projection("relu3_1")
    one, other = (torch.einsum("Cc,chw->Chw", matrix, network(x, ["relu3_1"])["relu3_1"][0]) for x in (content, image))
    counts = one.norm(dim=0) / one.norm(dim=0).mean()
    expected = (counts * (1 - torch.cosine_similarity(one, other, dim=0)))[1:-1, 1:-1].mean()
    assert float(evaluate(image).parts[0]) == pytest.approx(float(expected), rel=1e-4)


def test_zero_and_least_at_the_content(tiny_weights):
    content, style = rand_image(48, 64), rand_image(40, 50, seed=2)
    evaluate = Evaluator(Objective([CosineContent()]), VGG19(str(tiny_weights)))
    evaluate.prepare(content, [(style, 1.0)])
    assert abs(float(evaluate(content).loss)) < 1e-6  # each cell's is a difference of numbers near 1, in float32
    assert float(evaluate(rand_image(48, 64, seed=5)).loss) > 0.01
