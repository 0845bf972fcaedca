"""The relaxed earth mover's distance: values by hand and by loops, bounds, gradients, tiles and regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rand
from scipy.optimize import linprog
from terms import Alone

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.losses import Content, RelaxedEMD
from nst_lightning.losses.projection import projection_of
from nst_lightning.losses.transport import relaxed_distance
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective

LAYER = "relu1_1"


def features(channels=4, height=5, width=6, seed=0):
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed)).double()


def cells_at(*rows):
    """A map of one row, a cell each."""
    return torch.tensor(rows).double().T[None, :, None]


def even(count):
    return torch.full((count,), 1 / count).double()


def test_by_hand():
    """Each of two rows is near the first column, 0.1 and 0.3; the second column's nearest row is 0.7 away."""
    costs = torch.tensor([[0.1, 0.9], [0.3, 0.7]]).double().requires_grad_()
    value = relaxed_distance(costs, even(2), even(2))
    assert float(value.detach()) == pytest.approx((0.1 + 0.7) / 2)  # and not (0.1 + 0.3) / 2
    value.backward()
    assert costs.grad.tolist() == [[0.5, 0], [0, 0.5]]
    weighted = relaxed_distance(costs.detach(), even(2), torch.tensor([0.9, 0.1]).double())
    assert float(weighted) == pytest.approx((0.1 + 0.3) / 2)  # 0.9 * 0.1 + 0.1 * 0.7 is less


def test_term_by_hand():
    """The style points along three axes. The picture has two of them: its cells are in the style, of which a third is
    at a right angle to it. The content lies on one axis alone: two thirds are."""
    style = cells_at((1, 0, 0), (0, 2, 0), (0, 0, 3))
    term = Alone(RelaxedEMD([LAYER]), cells_at((4, 0, 0), (5, 0, 0)), [(style, 1.0)])
    assert float(term.value(cells_at((7, 0, 0), (0, 6, 0)))) == pytest.approx(0.5, rel=1e-4)
    assert float(term.target.scale) == pytest.approx(2 / 3, rel=1e-4)


def test_is_that_of_a_loop():
    content, image = features(seed=1), features(seed=2)
    weights, of_style = rand(1, 1, 5, 6, seed=3), rand(1, 1, 4, 3, seed=4)
    styles = [(features(4, 4, 3, seed=5), 0.3, of_style), (features(4, 2, 4, seed=6), 0.7)]

    def distance(maps):
        total, masses = 0.0, weights.flatten() / weights.sum()
        for style, share, *given in styles:
            cells, others = maps[0].flatten(1).T.numpy(), style[0].flatten(1).T.numpy()
            costs = np.array([[1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q) for q in others] for p in cells])
            counts = given[0].flatten() if given else torch.ones(len(others)).double()
            both = (costs.min(1) * masses.numpy()).sum(), (costs.min(0) * (counts / counts.sum()).numpy()).sum()
            total += share * max(both)
        return total

    found = Alone(RelaxedEMD([LAYER]), content, styles, weights=weights).value(image)
    assert float(found) == pytest.approx(distance(image) / distance(content), rel=1e-4)


def test_is_a_lower_bound_of_the_earth_movers_distance():
    """Against a linear program, and equal to it where neighbours are one to one."""
    costs, masses, others = rand(6, 5, seed=1), rand(6, seed=2), rand(5, seed=3)
    masses, others = masses / masses.sum(), others / others.sum()
    sums = [np.kron(np.eye(6), np.ones(5)), np.kron(np.ones(6), np.eye(5))]
    limits = np.concatenate([masses, others])
    exact = linprog(costs.flatten().numpy(), A_eq=np.concatenate(sums), b_eq=limits).fun
    assert 0 < float(relaxed_distance(costs, masses, others)) <= exact + 1e-12
    matched = 1 - torch.eye(4).double() + 0.1
    assert float(relaxed_distance(matched, even(4), even(4))) == pytest.approx(0.1)


def test_every_feature_of_the_style_has_to_occur():
    """A picture that has one of the style's cells everywhere: nothing for nearest neighbours, much for this."""
    content, style = features(8, 9, 9, seed=1).relu(), features(8, 9, 9, seed=2).relu()
    term = Alone(RelaxedEMD([LAYER]), content, [(style, 1.0)])
    assert abs(float(term.value(style.flip(-1)))) < 1e-4
    assert float(term.value(content)) == pytest.approx(1)
    assert float(term.value(style[..., :1, :1].expand_as(style))) > 1


def test_distances_through_a_projection_are_those_of_the_full_features():
    maps, matrix = [features(3, seed=seed) for seed in range(3)], rand(7, 3, seed=4)
    full = [torch.einsum("oc,bchw->bohw", matrix, each) for each in maps]
    narrow = Alone(RelaxedEMD([LAYER]), maps[0], [(maps[1], 1.0)], projection=projection_of(matrix))
    wide = Alone(RelaxedEMD([LAYER]), full[0], [(full[1], 1.0)])
    torch.testing.assert_close(narrow.value(maps[2]), wide.value(full[2]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(weighted):
    content, image, style, other = (features(3, 4, 3, seed=seed) for seed in range(4))
    weights = rand(1, 1, 4, 3, seed=5) if weighted else None
    term = Alone(RelaxedEMD([LAYER]), content, [(style, 0.7), (other, 0.3)], weights=weights)
    assert torch.autograd.gradcheck(term.value, image.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3)])
@pytest.mark.parametrize("others", ["zeros", "ones", "random"])
@pytest.mark.parametrize("image", ["zeros", "ones", "random"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_without_differences_are_no_trouble(others, image, shape, dtype):
    kinds = {"zeros": torch.zeros, "ones": torch.ones, "random": rand}
    leaf = kinds[image](1, 4, *shape, dtype=torch.float64).to(dtype).requires_grad_()
    other = kinds[others](1, 4, *shape, dtype=torch.float64).to(dtype)
    value = Alone(RelaxedEMD([LAYER]), other, [(other, 1.0)]).value(leaf)
    value.backward()
    assert value.dtype == torch.float32
    assert bool(value.isfinite())
    assert bool(leaf.grad.isfinite().all())


def double(weights):
    network = VGG19(str(weights)).double()
    network.set_compute_dtype(torch.float64)
    return network


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("keep", [0, 2])
def test_tiles_do_not_show(tiny_weights, regions, keep):
    content, image = rand(1, 3, 130, 101), rand(1, 3, 130, 101, seed=1).requires_grad_()
    styles = [(rand(1, 3, 61, 45, seed=2), 1.0), (rand(1, 3, 33, 70, seed=3), 0.3), (rand(1, 3, 50, 50, seed=4), 0.7)]
    ramp = torch.linspace(0, 1, 101).double().expand(1, 1, 130, 101)
    part = Mask((torch.arange(45) < 20).double().expand(1, 1, 61, 45), "style_mask")
    masks = Masks(
        [Mask(1 - ramp, "left"), Mask(ramp, "right")], [0, 1, 1], [part, None, None], [None] * 3, None
    )  # fmt: skip
    found = []
    for tile in (None, 48):
        terms = [RelaxedEMD({"relu1_1": 1.0, "conv3_2": 0.4}, samples=150), Content(["relu2_1"])]
        evaluate = Evaluator(Objective(terms, regions=2 * regions), double(tiny_weights), tile, keep)
        evaluate.prepare(content, styles if regions else styles[1:], masks if regions else None)
        loss, parts = evaluate(image)
        found.append((parts, torch.autograd.grad(loss, image)[0]))
    (parts, gradient), (tiled_parts, tiled_gradient) = found
    torch.testing.assert_close(tiled_parts, parts, rtol=1e-10, atol=1e-12)
    assert len(parts) == (5 if regions else 3)
    assert float((tiled_gradient - gradient).abs().max() / gradient.abs().max()) < 1e-10


def test_each_region_has_its_own_style(tiny_weights):
    """On the left everything is as in the left style, on the right as in the right one: little is left of the loss."""
    left, right = rand(1, 3, 64, 64, seed=1), 0.3 * rand(1, 3, 64, 64, seed=2)
    picture = torch.cat([left, right], 3)
    half = (torch.arange(128) < 64).double().expand(1, 1, 64, 128)
    masks = Masks([Mask(half, "left"), Mask(1 - half, "right")], [0, 1], [None] * 2, [None] * 2, None)
    evaluate = Evaluator(Objective([RelaxedEMD([LAYER], samples=4096)], regions=2), double(tiny_weights))
    content = torch.linspace(0, 1, 128).double().expand(1, 3, 64, 128)
    evaluate.prepare(content, [(left, 1.0), (right, 1.0)], masks)
    own, swapped = evaluate(picture).parts, evaluate(torch.cat([right, left], 3)).parts
    assert float((own / swapped).max()) < 0.4  # but for what the border between the two does


def test_counts_of_nothing_are_refused():
    with pytest.raises(UserError, match=r"relaxedemd\.samples: must be at least 1, got 0"):
        RelaxedEMD([LAYER], samples=0)
