"""Self-similarity: values by hand and by loops, gradients, places in parts and whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rand
from terms import Alone

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.losses import Gram, SelfSimilarity, similarity
from nst_lightning.losses.blocks import Blocks
from nst_lightning.losses.projection import projection_of
from nst_lightning.losses.reference import Window
from nst_lightning.losses.sampling import Gathering, Places, gathered
from nst_lightning.losses.similarity import local_contrast, mean_difference, relative_distances
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective

LAYER = "relu1_1"


def features(channels=4, height=5, width=6, seed=0):
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed)).double()


def alone(content, weights=None, projection=None, **options):
    return Alone(SelfSimilarity([LAYER], **options), content, [], weights=weights, projection=projection)


def cells_at(*rows):
    """A map of one row, a cell each."""
    return torch.tensor(rows).double().T[None, :, None]


def test_by_hand():
    """Content: two cells alike, one at a right angle. Image: all at right angles.

    Distances of the content are 0 0 1 / 0 0 1 / 1 1 0 with column means 1/3, 1/3, 2/3, relative ones 0 0 1.5 / 0 0 1.5
    / 3 3 0. The image's are 1 but on the diagonal, over means of 2/3: 1.5 there. Differences by column: 0 1.5 1.5,
    1.5 0 1.5, 0 0 0, in all 6 of 9 cells. The mean difference of two of 0 0 1.5 0 0 1.5 3 3 0: of 81 ordered pairs,
    2 * 5 * 2 with 1.5, 2 * 5 * 2 with 3, 2 * 2 * 2 with 1.5.
    """
    content, image = cells_at((1, 0, 0), (2, 0, 0), (0, 1, 0)), cells_at((3, 0, 0), (0, 5, 0), (0, 0, 7))
    value = float(alone(content).value(image))
    assert value == pytest.approx((6 / 9) / ((20 * 1.5 + 20 * 3 + 8 * 1.5) / 81), rel=1e-2)


def test_what_is_further_apart_counts_less():
    """Half of the six by which distances differ above is more than in the content, half is less."""
    content, image = cells_at((1, 0, 0), (2, 0, 0), (0, 1, 0)), cells_at((3, 0, 0), (0, 5, 0), (0, 0, 7))
    both, less = (float(alone(content, apart=apart).value(image)) for apart in (1.0, 0.1))
    assert less == pytest.approx(both * (3 + 0.1 * 3) / 6, rel=1e-2)
    nothing = float(alone(cells_at((1, 0), (2, 0), (0, 1)), apart=0.0).value(cells_at((1, 0), (1, 1e-4), (0, 1))))
    assert nothing < 1e-6


def test_is_that_of_a_loop():
    content, image, weights = features(seed=1), features(seed=2), rand(1, 1, 5, 6, seed=3)

    def relative(maps):
        found = maps[0].flatten(1).T.numpy()
        distances = [[1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q) for q in found] for p in found]
        return np.array(distances) / np.average(distances, axis=0, weights=weights.flatten())

    chance = np.outer(weights.flatten(), weights.flatten()) / float(weights.sum()) ** 2
    kept = relative(content).flatten()
    unrelated = sum(
        p * (chance.flatten() * np.abs(value - kept)).sum() for value, p in zip(kept, chance.flatten(), strict=True)
    )
    expected = (chance * np.abs(relative(content) - relative(image))).sum() / unrelated
    assert float(alone(content, weights).value(image)) == pytest.approx(expected, rel=2e-2)
    equal = alone(content).value(image)
    torch.testing.assert_close(alone(content, torch.full((1, 1, 5, 6), 0.3).double()).value(image), equal)


def test_mean_difference_by_hand():
    """Of 0, 1 and 4, equally likely, the differences 1, 4, 3 twice each in nine; with chances 1/2, 1/2 and 0, 1 / 2."""
    values = torch.tensor([4.0, 0, 1]).double()
    assert float(mean_difference(values, torch.full((3,), 1 / 3).double())) == pytest.approx(16 / 9)
    assert float(mean_difference(values, torch.tensor([0, 0.5, 0.5]).double())) == pytest.approx(0.5)


def test_mean_difference_in_parts_is_that_of_all_pairs(monkeypatch):
    values, weights = rand(50, seed=1).double(), rand(50, seed=2).double().abs()
    weights = weights / weights.sum()
    expected = float((weights[:, None] * weights * (values[:, None] - values).abs()).sum())
    for count in (1, 7, 50, 64):
        monkeypatch.setattr(similarity, "_AT_ONCE", count)
        assert float(mean_difference(values, weights)) == pytest.approx(expected, rel=1e-12)


def test_nothing_at_the_content_and_one_where_nothing_is_left():
    content = features(8, 20, 30, seed=1).relu()
    term = alone(content)
    assert float(term.value(content)) < 1e-20
    order = torch.randperm(600, generator=torch.Generator().manual_seed(5))
    assert float(term.value(content.flatten(2)[..., order].view(content.shape))) == pytest.approx(1, abs=0.03)


def test_neither_colours_nor_contrast_matter():
    """Channels that change their places and all values doubled: the same likenesses."""
    content = features(seed=1)
    assert float(alone(content).value(2 * content.flip(1))) < 1e-5


def test_distances_through_a_projection_are_those_of_the_full_features():
    content, image = features(3, seed=1), features(3, seed=2)
    matrix = rand(7, 3, seed=4)
    full = [torch.einsum("oc,bchw->bohw", matrix, maps) for maps in (content, image)]
    narrow = alone(content, projection=projection_of(matrix)).value(image)
    torch.testing.assert_close(narrow, alone(full[0]).value(full[1]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_contrast_is_that_of_a_loop(weighted):
    distances, masses = rand(12, 12, seed=1), rand(12, seed=2) if weighted else torch.full((12,), 1 / 12).double()
    masses[5] = 0.0  # a masked block is nobody's neighbour
    expected = []
    for row in range(3):
        for column in range(4):
            near = [
                4 * y + x
                for y in range(max(0, row - 1), min(3, row + 2))
                for x in range(max(0, column - 1), min(4, column + 2))
                if (y, x) != (row, column)
            ]
            expected.append(np.average(distances[4 * row + column, near], weights=masses[near]))
    found = local_contrast(distances, Blocks(3, 4, masses * 9, masses))
    assert found.tolist() == pytest.approx(expected)
    assert float(local_contrast(rand(1, 1), Blocks(1, 1, torch.ones(1), torch.ones(1)))) == 0


def test_plain_places_are_free_with_structure():
    """The left half is plain, the right one has a different cell beside each; changes to the left count for little."""
    content = torch.zeros(1, 8, 8, 16).double()
    content[:, 0] = 1.0
    content[..., 8:] = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    other = torch.randn(1, 8, 8, 16, generator=torch.Generator().manual_seed(4)).double()
    left, right = content.clone(), content.clone()
    left[..., :8], right[..., 8:] = other[..., :8], other[..., 8:]
    even, shaped = alone(content), alone(content, structure=2.0)
    assert float(shaped.target.shares.sum()) == pytest.approx(1)
    assert float(shaped.target.shares.view(8, 16)[:, :6].sum()) < 1e-6
    assert float(shaped.value(left)) < 0.5 * float(even.value(left))
    assert float(shaped.value(right)) > float(even.value(right))
    plain = torch.ones(1, 3, 4, 4).double()
    assert alone(plain, structure=2.0).target.shares.tolist() == pytest.approx([1 / 16] * 16)


@pytest.mark.parametrize("options", [{}, {"apart": 0.1}, {"structure": 2.0, "apart": 0.3}])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(weighted, options):
    content, image = features(3, 4, 3, seed=1), features(3, 4, 3, seed=2).requires_grad_()
    term = alone(content, rand(1, 1, 4, 3, seed=3) if weighted else None, **options)
    assert torch.autograd.gradcheck(term.value, image, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 3)])
@pytest.mark.parametrize("content", ["zeros", "ones", "random"])
@pytest.mark.parametrize("image", ["zeros", "ones", "random"])
def test_features_without_differences_are_no_trouble(content, image, shape):
    kinds = {"zeros": torch.zeros, "ones": torch.ones, "random": rand}
    leaf = kinds[image](1, 4, *shape, dtype=torch.float64).float().requires_grad_()
    value = alone(kinds[content](1, 4, *shape, dtype=torch.float64).float()).value(leaf)
    value.backward()
    assert bool(value.isfinite())
    assert bool(leaf.grad.isfinite().all())


def test_half_precision_is_widened():
    content, image = features(seed=1).bfloat16(), features(seed=2).bfloat16().requires_grad_()
    value = alone(content).value(image)
    value.backward()
    assert value.dtype == torch.float32
    assert bool(image.grad.isfinite().all())


@pytest.mark.parametrize(("height", "width", "most"), [(1, 1, 9), (1, 50, 9), (50, 1, 9), (7, 5, 100), (30, 41, 100)])
def test_places_are_spread_over_the_map(height, width, most):
    places = Places.of(Window(slice(0, 1), slice(0, 1), height, width), most, torch.zeros(()).double())
    pairs = set(zip(places.rows.tolist(), places.columns.tolist(), strict=True))
    assert len(pairs) == len(places.rows) <= min(most, height * width)
    assert len(pairs) >= 0.8 * min(most, height * width)
    assert all(row < height and column < width for row, column in pairs)
    assert float(places.weights.sum()) == pytest.approx(1)
    for top in range(0, height, 10):  # no part is left out
        for left in range(0, width, 10):
            inside = [top <= row < top + 10 and left <= column < left + 10 for row, column in pairs]
            assert any(inside) or min(height - top, width - left) < 6
    again = Places.of(Window(slice(0, 1), slice(0, 1), height, width), most, torch.zeros(()))
    assert torch.equal(again.rows, places.rows)


def test_places_have_no_common_phase():
    """Of the steps that a lattice would have, each place is off by a step of its own."""
    places = Places.of(Window(slice(0, 1), slice(0, 1), 128, 128), 256, torch.zeros(()))
    for found in (places.rows, places.columns):
        counts = torch.bincount(found % 8, minlength=8)
        assert int(counts.min()) > 15


@pytest.mark.parametrize("kind", ["half", "small", "stripes", "one", "nothing"])
def test_places_lie_where_cells_count(kind):
    weights = torch.zeros(1, 1, 40, 60).double()
    parts = {
        "half": (slice(0, 40), slice(0, 30)),
        "small": (slice(3, 9), slice(11, 17)),
        "stripes": (slice(0, 40), slice(0, 60, 7)),
        "one": (slice(39, 40), slice(59, 60)),
        "nothing": (slice(0, 0), slice(0, 0)),
    }
    rows, columns = parts[kind]
    weights[0, 0, rows, columns] = 0.5 + rand(1, 1, 40, 60)[0, 0, rows, columns]
    places = Places.of(Window(slice(0, 40), slice(0, 60), 40, 60, weights), 100, torch.zeros(()).double())
    found = int((weights > 0).sum())
    assert max(1, min(found, 100) // 2) <= len(places.rows) <= 100
    if kind == "nothing":
        return
    given = weights[0, 0, places.rows, places.columns]
    assert bool((given > 0).all())
    torch.testing.assert_close(places.weights, given / given.sum())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_parts_add_up_to_the_whole(layout):
    maps = features(4, 13, 17).contiguous(memory_format=layout).requires_grad_()
    whole, parts = Gathering(20), Gathering(20)
    whole.add(maps, Window.whole(maps))
    places = whole.result(221).places
    expected = maps[0, :, places.rows, places.columns].T
    windows = [
        Window(rows, columns, 13, 17)
        for rows in (slice(0, 5), slice(5, 6), slice(6, 13))
        for columns in (slice(0, 6), slice(6, 17))
    ]
    for window in windows:
        parts.add(maps[..., window.rows, window.columns], window)
    assert torch.equal(whole.result(221).features, expected)
    assert torch.equal(parts.result(221).features, expected)
    upstream = rand(*expected.shape)
    (gradient,) = torch.autograd.grad(gathered(maps, Window.whole(maps), places), maps, upstream)
    (known,) = torch.autograd.grad(expected, maps, upstream)
    assert torch.equal(gradient, known)
    assert gradient.is_contiguous(memory_format=layout)


def double(weights):
    network = VGG19(str(weights)).double()
    network.set_compute_dtype(torch.float64)
    return network


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("keep", [0, 2])
def test_tiles_do_not_show(tiny_weights, masked, keep):
    content, image = rand(1, 3, 130, 101), rand(1, 3, 130, 101, seed=1).requires_grad_()
    ramp = torch.linspace(0, 1, 101).double().expand(1, 1, 130, 101)
    masks = Masks([], [None], [None], [None], Mask(ramp, "content_mask"), 0.2) if masked else None
    found = []
    for tile in (None, 48):
        terms = [SelfSimilarity({"relu1_1": 1.0, "conv3_2": 0.4}, samples=150), Gram(["relu2_1"])]
        evaluate = Evaluator(Objective(terms), double(tiny_weights), tile, keep)
        evaluate.prepare(content, [(rand(1, 3, 61, 45, seed=2), 1.0)], masks)
        loss, parts = evaluate(image)
        found.append((parts, torch.autograd.grad(loss, image)[0]))
    (parts, gradient), (tiled_parts, tiled_gradient) = found
    torch.testing.assert_close(tiled_parts, parts, rtol=1e-10, atol=1e-12)
    assert float(parts[0]) > 0.01
    assert float((tiled_gradient - gradient).abs().max() / gradient.abs().max()) < 1e-10


def test_a_mask_leaves_out_what_does_not_count(tiny_weights):
    """Where the weight is nothing pixels get no gradient but through what the network sees of them."""
    content, image = rand(1, 3, 64, 96), rand(1, 3, 64, 96, seed=1).requires_grad_()
    left = (torch.arange(96) < 48).double().expand(1, 1, 64, 96)
    evaluate = Evaluator(Objective([SelfSimilarity([LAYER])]), double(tiny_weights))
    evaluate.prepare(content, [], Masks([], [], [], [], Mask(left, "content_mask"), 0.0))
    evaluate(image).loss.backward()
    assert float(image.grad[..., :48].abs().max()) > 0
    assert float(image.grad[..., 50:].abs().max()) == 0


def test_too_few_cells_are_refused(tiny_weights):
    with pytest.raises(UserError, match=r"selfsimilarity\.samples: must be at least 2, got 1"):
        SelfSimilarity([LAYER], samples=1)
    with pytest.raises(UserError, match=r"selfsimilarity\.apart: must be from 0 to 1, got 1\.5; 0\.1 leaves"):
        SelfSimilarity([LAYER], apart=1.5)
    with pytest.raises(UserError, match=r"selfsimilarity\.structure: must be from 0 to 8, got -1; 2 leaves"):
        SelfSimilarity([LAYER], structure=-1)
    objective = Objective([SelfSimilarity(["relu4_1"])])
    with pytest.raises(
        UserError, match=r"data.size: must have two cells or more at layer relu4_1 for the term selfsim"
    ):
        objective.check_sizes({"data.size": (8, 15)}, VGG19(str(tiny_weights)))


def test_distances_are_relative_to_the_mean():
    found = relative_distances(
        features(4, 10, 10)[0].flatten(1).T, torch.full((100,), 0.01).double(), torch.tensor(0.0)
    )
    torch.testing.assert_close(found.mean(0), torch.ones(100).double(), rtol=2e-3, atol=0)
