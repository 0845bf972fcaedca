"""Colours, and terms that look at the picture itself as a layer: values by hand and by loops, tiles, regions, runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import QUIET, rand
from lightning.pytorch import Trainer
from terms import Alone

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.losses import Content, Gram, Palette
from nst_lightning.losses.blocks import Blocks
from nst_lightning.losses.gram import gram_matrix
from nst_lightning.losses.palette import colour_distances
from nst_lightning.losses.reference import Window
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective
from nst_lightning.planning.memory import make_plan


def colours(*given):
    """A picture of one row, a pixel each."""
    return torch.tensor(given).double().T[None, :, None]


def double(weights):
    network = VGG19(str(weights)).double()
    network.set_compute_dtype(torch.float64)
    return network


def test_by_hand():
    """The style is black and red, half each; the content black, so that half of the style is 1 away from it. A picture
    half black and half of 0.6 red is 0.4 from half of the style."""
    content, style = colours((0, 0, 0), (0, 0, 0)), colours((0, 0, 0), (1, 0, 0))
    term = Alone(Palette(), content, [(style, 1.0)], layer="image")
    assert float(term.target.scale) == pytest.approx(0.5, abs=1e-3)
    assert float(term.value(colours((0.6, 0, 0), (0, 0, 0)))) == pytest.approx(0.2 / 0.5, abs=3e-3)
    assert float(term.value(style.flip(-1))) == pytest.approx(0, abs=1e-6)


def means(picture, counts, down, across):
    """Mean colours of rectangles, and their masses, by a loop."""
    (height, width), found = picture.shape[-2:], []
    for row in range(down):
        for column in range(across):
            rows = slice(row * height // down, (row + 1) * height // down)
            columns = slice(column * width // across, (column + 1) * width // across)
            mass = counts[..., rows, columns].sum()
            total = (picture[..., rows, columns] * counts[..., rows, columns]).sum((0, 2, 3))
            found.append(((total / mass).numpy(), float(mass)))
    masses = np.array([mass for _, mass in found])
    return np.array([colour for colour, _ in found]), masses / masses.sum()


def test_is_that_of_a_loop():
    sizes = [(6, 8), (6, 8), (9, 4), (5, 5)]
    content, image, style, other = (rand(1, 3, *size, seed=seed) for seed, size in enumerate(sizes))
    weights, of_style = rand(1, 1, 6, 8, seed=7), rand(1, 1, 9, 4, seed=8)
    styles = [(*means(style, of_style, 6, 2), 0.3), (*means(other, torch.ones_like(other[:, :1]), 3, 4), 0.7)]

    def distance(picture):
        mine, masses = means(picture, weights, 3, 4)
        total = 0.0
        for colours, others, share in styles:
            costs = np.linalg.norm(mine[:, None] - colours[None], axis=2)
            total += share * max((costs.min(1) * masses).sum(), (costs.min(0) * others).sum())
        return total

    given = [(style, 0.3, of_style), (other, 0.7)]
    term = Alone(Palette(samples=12), content, given, weights=weights, layer="image")
    assert (term.target.blocks.down, term.target.blocks.across) == (3, 4)
    assert float(term.value(image)) == pytest.approx(distance(image) / distance(content), rel=2e-2)


def test_distances_of_colours_by_hand():
    found = colour_distances(torch.tensor([[0.0, 0, 0], [1, 1, 1]]), torch.tensor([[0.0, 0.3, 0.4]]))
    torch.testing.assert_close(found, torch.tensor([[0.5], [1.85**0.5]]), rtol=0, atol=2e-3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0].double()
    some, others = rand(5, 3), rand(4, 3, seed=1)
    torch.testing.assert_close(colour_distances(some @ turn, others @ turn), colour_distances(some, others))


def test_sums_of_parts_add_up():
    maps = rand(1, 2, 13, 17)
    blocks = Blocks(4, 5, torch.ones(20), torch.ones(20) / 20)
    whole = blocks.sums(maps, Window.whole(maps)).T
    assert whole.shape == (2, 20)
    torch.testing.assert_close(whole.sum(1), maps.sum((0, 2, 3)))
    pieces = [
        blocks.sums(maps[..., rows, columns], Window(rows, columns, 13, 17)).T
        for rows in (slice(0, 5), slice(5, 6), slice(6, 13))
        for columns in (slice(0, 6), slice(6, 17))
    ]
    torch.testing.assert_close(torch.stack(pieces).sum(0), whole)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(weighted):
    content, image, style, other = (rand(1, 3, 4, 3, seed=seed) for seed in range(4))
    weights = rand(1, 1, 4, 3, seed=5) if weighted else None
    term = Alone(Palette(samples=6), content, [(style, 0.7), (other, 0.3)], weights=weights, layer="image")
    assert torch.autograd.gradcheck(term.value, image.requires_grad_(), atol=1e-6)


def test_all_pixels_of_a_rectangle_change_alike():
    content, image, style = (rand(1, 3, 8, 12, seed=seed) for seed in range(3))
    term = Alone(Palette(samples=6), content, [(style, 1.0)], layer="image")
    term.value(image.requires_grad_()).backward()
    parts = image.grad.view(1, 3, 2, 4, 3, 4).transpose(3, 4)  # two of three rectangles of 4x4 pixels
    assert torch.equal(parts, parts[..., :1, :1].expand_as(parts))
    assert float(parts.abs().max()) > 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 3)])
@pytest.mark.parametrize("others", [0.0, 0.5])
@pytest.mark.parametrize("image", [0.0, 0.5, 1.5])
def test_pictures_of_one_colour_are_no_trouble(others, image, shape):
    leaf = torch.full((1, 3, *shape), image).requires_grad_()
    other = torch.full((1, 3, *shape), others)
    value = Alone(Palette(), other, [(other, 1.0)], layer="image").value(leaf)
    value.backward()
    assert bool(value.isfinite())
    assert bool(leaf.grad.isfinite().all())


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize("deep", [False, True])
def test_tiles_do_not_show(tiny_weights, regions, keep, deep):
    """Of terms of the picture as a layer, beside those of the network or alone."""
    content, image = rand(1, 3, 130, 101), rand(1, 3, 130, 101, seed=1).requires_grad_()
    styles = [(rand(1, 3, 61, 45, seed=2), 1.0), (rand(1, 3, 33, 70, seed=3), 0.3), (rand(1, 3, 50, 50, seed=4), 0.7)]
    left = (torch.arange(101) < 40).double().expand(1, 1, 130, 101)
    part = Mask((torch.arange(45) < 20).double().expand(1, 1, 61, 45), "style_mask")
    both = [Mask(left, "left"), Mask(1 - left, "right")]
    masks = Masks(both, [0, 1, 1], [part, None, None], [None] * 3, None)
    found = []
    for tile in (None, 48):
        terms = [Palette(samples=150), Gram(["image"]), *([Content(["relu2_1", "image"])] if deep else [])]
        evaluate = Evaluator(Objective(terms, regions=2 * regions), double(tiny_weights), tile, keep)
        evaluate.prepare(content, styles if regions else styles[1:], masks if regions else None)
        loss, parts = evaluate(image)
        found.append((parts, torch.autograd.grad(loss, image)[0]))
    (parts, gradient), (tiled_parts, tiled_gradient) = found
    torch.testing.assert_close(tiled_parts, parts, rtol=1e-10, atol=1e-12)
    assert len(parts) == 2 * (1 + regions) + 2 * deep
    assert float((tiled_gradient - gradient).abs().max() / gradient.abs().max()) < 1e-10


def test_each_region_has_its_own_colours(tiny_weights):
    """Half red, half green, with styles of these: nothing is left but between swapped ones."""
    red, green = (torch.zeros(1, 3, 20, 30).double().index_fill(1, torch.tensor(i), 1.0) for i in (0, 1))
    half = (torch.arange(60) < 30).double().expand(1, 1, 20, 60)
    masks = Masks([Mask(half, "left"), Mask(1 - half, "right")], [0, 1], [None] * 2, [None] * 2, None)
    evaluate = Evaluator(Objective([Palette()], regions=2), double(tiny_weights))
    assert evaluate.objective.part_names == ["palette_region1.image", "palette_region2.image"]
    evaluate.prepare(torch.zeros(1, 3, 20, 60).double(), [(red, 1.0), (green, 1.0)], masks)
    assert float(evaluate(torch.cat([red, green], 3)).parts.max()) < 1e-6
    assert evaluate(torch.cat([green, red], 3)).parts.tolist() == pytest.approx([2**0.5 / 2] * 2, rel=2e-3)


def test_the_picture_is_a_layer(tiny_weights):
    """Any term may name it, with its stride of one pixel and without a projection."""
    content, image, style = (rand(1, 3, 20, 30, seed=seed) for seed in range(3))
    for network in (double(tiny_weights), CompactVGG19("narrow")):
        evaluate = Evaluator(Objective([Gram(["image"], normalization="paper")]), network)
        evaluate.prepare(content, [(style, 1.0)])
        expected = (gram_matrix(image) - gram_matrix(style)).square().sum() / 36
        torch.testing.assert_close(evaluate(image).loss, expected)
    objective = Objective([Gram(["image", "relu2_1"])])
    assert objective.layers == ["relu2_1"]
    assert objective.part_names == ["gram.image", "gram.relu2_1"]


def test_a_style_may_count_for_colours_alone(tiny_weights):
    objective = Objective([Gram(["relu2_1"]), Palette()])
    masks = Masks([], [None, None], [None, None], [["image"], ["relu2_1"]], None)
    objective.check_masks(masks, [0.5, 0.5], VGG19(str(tiny_weights)))
    evaluate = Evaluator(objective, double(tiny_weights))
    one, other = rand(1, 3, 20, 20, seed=1), rand(1, 3, 24, 24, seed=2)
    evaluate.prepare(rand(1, 3, 20, 20), [(one, 0.5), (other, 0.5)], masks)
    assert [style.share for style in evaluate.targets.of_layers[1, "image"].styles] == [1.0]


@pytest.mark.parametrize("tile", [None, "auto", 256])
def test_memory_is_planned(tile):
    for terms in ([Palette()], [Palette(), Content(), Content(["image"])]):
        for regions in (0, 2):
            objective = Objective(terms, regions=regions)
            plan = make_plan(objective, CompactVGG19(), (512, 512), tile, [(0, 0)], 8 << 30)
            assert plan.memory > 512 * 512 * 12


@pytest.mark.parametrize("tile", [None, 64])
def test_a_run_takes_on_the_colours(pair, tmp_path, tile):
    terms = [Palette(weight=3.0), Content(weight=0.1)]
    options = {"terms": terms, "extractor": CompactVGG19("narrow"), "tile": tile, "evaluations": 12}
    module = StyleTransfer(**options)
    trainer = Trainer(**QUIET, default_root_dir=tmp_path)
    trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=96))
    losses = module.objective.losses(module.evaluation)
    assert float(losses["palette.image"]) < 0.7 * 3


def test_counts_of_nothing_are_refused():
    with pytest.raises(UserError, match=r"palette\.samples: must be at least 1, got 0"):
        Palette(samples=0)
