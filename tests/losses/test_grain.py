"""Grain: detail against SciPy, what is allowed by hand and by a loop, gradients, tiles, regions and runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import QUIET, rand, rand_image
from lightning.pytorch import Trainer
from scipy.ndimage import convolve1d
from terms import Alone
from torchvision.utils import save_image

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.images.detail import detail
from nst_lightning.losses import Grain, Gram
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective
from nst_lightning.planning.memory import make_plan

ROUNDING = 3 / 12 / 255**2


def double(weights):
    network = VGG19(str(weights)).double()
    network.set_compute_dtype(torch.float64)
    return network


def alone(content, styles, **given):
    return Alone(Grain(side=given.pop("side", 16)), content, styles, layer="detail", **given)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (17, 23)])
def test_detail_is_what_the_binomial_filter_takes(size):
    picture, kernel = rand(1, 3, *size), np.array([1, 4, 6, 4, 1]) / 16
    blurred = convolve1d(convolve1d(picture.numpy(), kernel, axis=-2, mode="nearest"), kernel, axis=-1, mode="nearest")
    torch.testing.assert_close(detail(picture), picture - torch.tensor(blurred))
    assert torch.autograd.gradcheck(detail, picture[:, :1].requires_grad_())


@pytest.mark.parametrize(("period", "left"), [(2, 1.0), (4, 0.75), (8, 0.2714)])
def test_how_much_of_a_grating_is_detail(period, left):
    """1 - cos⁴(π / period)."""
    grating = torch.cos(2 * torch.pi * torch.arange(64).double() / period).expand(1, 1, 8, 64)
    found = detail(grating)[..., 8:-8]
    torch.testing.assert_close(found, left * grating[..., 8:-8], rtol=0, atol=1e-4)


def stripes(*amplitudes):
    """Details of a picture of 1x16 blocks each of 16x16 pixels, of one amplitude each; the power is 3 a²."""
    signs = 1 - 2 * (torch.arange(16).double() % 2)
    return torch.cat([a * signs.expand(1, 3, 16, 16) for a in amplitudes], dim=3)


def test_by_hand():
    """Three blocks of the style have amplitudes of 0, 0.1 and 0.2, and are at 1/6, 1/2 and 5/6. The content's middle is
    its smoothest place, if less smooth than the style's, and 3x3 blocks around a block are three here, or two."""
    styles = stripes(0, 0.1, 0.2)
    content = stripes(0.3, 0.1, 0.1, 0.1, 0.2)
    # Means around: 0.05, (0.09 + 2 * 0.01) / 3, 0.01, (0.04 + 2 * 0.01) / 3 and 0.025, so in order 4, 3, 0, 1, 2.
    term = alone(content, [(styles, 1.0)])
    powers = np.interp([0.9, 0.7, 0.1, 0.3, 0.5], [1 / 6, 1 / 2, 5 / 6], [0, 0.03, 0.12])
    allowed = powers + ROUNDING
    assert term.target.roots.tolist() == pytest.approx(np.sqrt(allowed).tolist())
    assert float(term.value(stripes(*np.sqrt(powers / 3)))) == pytest.approx(0, abs=1e-12)
    assert float(term.value(stripes(0, 0, 0, 0, 0))) == 0  # less is no fault
    excess = np.sqrt(0.27 + ROUNDING) - np.sqrt(allowed[0])
    found = float(term.value(stripes(0.3, 0, 0, 0, 0)))
    assert found == pytest.approx(excess**2 / allowed.sum())


def loop(image, content, styles, down, across):
    """The same with loops over blocks, of pictures without near ties."""

    def powers(details):
        (height, width), found = details.shape[-2:], np.zeros((down, across))
        for row in range(down):
            for column in range(across):
                rows = slice(row * height // down, (row + 1) * height // down)
                columns = slice(column * width // across, (column + 1) * width // across)
                found[row, column] = details[..., rows, columns].square().sum((0, 1)).mean()
        return found

    around, mine, n = np.zeros((down, across)), powers(content), down * across
    for row in range(down):
        for column in range(across):
            near = mine[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            around[row, column] = near.mean()
    rank = np.argsort(np.argsort(around.flatten()))
    places = (np.arange(n) + 0.5) / n
    allowed = ROUNDING + sum(
        share * np.interp(places[rank], places, np.sort(powers(s).flatten())) for s, share in styles
    )
    excess = np.maximum(np.sqrt(powers(image).flatten() + ROUNDING) - np.sqrt(allowed), 0)
    return (excess**2).mean() / allowed.mean()


def rough(seed, size=(32, 48)):
    """Details that grow towards a corner, at least three percent from block to block."""
    height, width = size
    ramp = torch.linspace(0.1, 1, height).double()[:, None] * torch.linspace(0.3, 1, width).double() ** 1.7
    return ramp * rand(1, 3, height, width, seed=seed)


def test_is_that_of_a_loop():
    content, image = rough(0), 0.7 * rough(1).flip(-1)
    styles = [(rough(2), 0.3), (0.5 * rough(3).flip(-2), 0.7)]
    term = alone(content, styles, side=8)
    assert (term.target.blocks.down, term.target.blocks.across) == (4, 6)
    expected = loop(image, content, styles, 4, 6)
    assert expected > 0.01
    assert float(term.value(image)) == pytest.approx(expected, rel=1e-3)  # blocks within two percent share a place


def test_what_a_mask_leaves_out_does_not_count():
    """Half of each picture; the same as of this half by itself."""
    content, image, style = rough(0), rough(1).flip(-1), rough(2)
    half = (torch.arange(48) < 24).double().expand(1, 1, 32, 48)
    term = alone(content, [(style, 1.0, half)], side=8, weights=half)
    halves = [picture[..., :24] for picture in (content, image, style)]
    expected = alone(halves[0], [(halves[2], 1.0)], side=8).value(halves[1])
    torch.testing.assert_close(term.value(image), expected)


def test_a_plain_content_has_no_order():
    """White paper, and what rounding leaves of it, may have all over what the style's middle has."""
    for content in (torch.zeros(1, 3, 32, 32), 1e-3 * rand(1, 3, 32, 32).float()):
        roots = alone(content, [(rough(2).float(), 1.0)], side=8).target.roots
        assert torch.equal(roots, roots[:1].expand(16))
        assert float(roots[0]) > 0.1


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(weighted):
    content, image, style, other = (rough(seed, (6, 9)) for seed in range(4))
    weights = rand(1, 1, 6, 9, seed=5) if weighted else None
    term = alone(content, [(0.3 * style, 0.7), (0.1 * other, 0.3)], weights=weights, side=3)
    assert float(term.value(image)) > 0.1
    assert torch.autograd.gradcheck(term.value, image.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3)])
@pytest.mark.parametrize("image", [0.0, 0.5])
def test_pictures_of_one_colour_are_no_trouble(image, shape):
    other, leaf = torch.zeros(1, 3, *shape), torch.full((1, 3, *shape), image).requires_grad_()
    value = alone(other, [(other, 1.0)]).value(leaf)
    value.backward()
    assert bool(value.isfinite())
    assert bool(leaf.grad.isfinite().all())


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("layers", [[], ["relu1_1"], ["relu2_1"]])
def test_tiles_do_not_show(tiny_weights, regions, layers):
    """Beside a network's layers, or alone: then the detail itself is what tiles must overlap for."""
    content, image = rand(1, 3, 130, 101), rand(1, 3, 130, 101, seed=1).requires_grad_()
    styles = [(rand(1, 3, 61, 45, seed=2), 1.0), (rand(1, 3, 33, 70, seed=3), 0.3), (rand(1, 3, 50, 50, seed=4), 0.7)]
    left = (torch.arange(101) < 40).double().expand(1, 1, 130, 101)
    masks = Masks([Mask(left, "left"), Mask(1 - left, "right")], [0, 1, 1], [None] * 3, [None] * 3, None)
    styles = [(style / 2, share) for style, share in styles]
    found = []
    for tile in (None, 48):
        terms = [Grain(), *([Gram(layers)] if layers else [])]
        evaluate = Evaluator(Objective(terms, regions=2 * regions), double(tiny_weights), tile)
        evaluate.prepare(content, styles if regions else styles[1:], masks if regions else None)
        loss, parts = evaluate(image)
        found.append((parts, torch.autograd.grad(loss, image)[0]))
    (parts, gradient), (tiled_parts, tiled_gradient) = found
    assert float(parts[0]) > 1e-3
    torch.testing.assert_close(tiled_parts, parts, rtol=1e-10, atol=1e-12)
    assert float((tiled_gradient - gradient).abs().max() / gradient.abs().max()) < 1e-10


def test_a_style_for_some_layers_counts_for_pixels(tiny_weights):
    """Where styles are for layers of the network each, all of them have a grain; one that names it has it alone."""
    objective = Objective([Gram(["relu2_1", "relu3_1"]), Grain()])
    network = double(tiny_weights)
    pictures = [(rand(1, 3, 40, 40, seed=seed), 0.5) for seed in (1, 2)]
    for named, shares in (([["relu3_1"], ["relu2_1"]], [0.5, 0.5]), ([["relu3_1"], ["relu2_1", "detail"]], [1.0])):
        masks = Masks([], [None, None], [None, None], named, None)
        objective.check_masks(masks, [0.5, 0.5], network)
        evaluate = Evaluator(objective, network)
        evaluate.prepare(rand(1, 3, 40, 40), pictures, masks)
        blend = masks.blend(None, "detail", [0.5, 0.5])
        assert [share for _, share in blend] == shares


@pytest.mark.parametrize("tile", [None, "auto", 256])
def test_memory_is_planned(tile):
    alone, without = (
        make_plan(Objective(terms), CompactVGG19(), (512, 512), tile, [(0, 0)], 8 << 30).memory
        for terms in ([Grain(), Gram()], [Gram()])
    )
    assert alone >= without > 512 * 512 * 12


@pytest.mark.parametrize("tile", [None, 64])
def test_a_run_loses_its_grain(tmp_path, tile):
    """A smooth content and a smooth style, and noise to start from."""
    pair = tmp_path / "content.png", tmp_path / "style.png"
    for seed, path in enumerate(pair):
        save_image(F.interpolate(rand_image(6, 6, seed=seed), (96, 96), mode="bicubic"), path)
    found = []
    for weight in (0.0, 3.0):
        terms = [Gram(), *([Grain(weight)] if weight else [])]
        options = {"terms": terms, "extractor": CompactVGG19("narrow"), "tile": tile, "evaluations": 20}
        module = StyleTransfer(**options)
        data = StyleTransferData(str(pair[0]), str(pair[1]), size=96, init="noise")
        Trainer(**QUIET, default_root_dir=tmp_path).fit(module, datamodule=data)
        found.append(float(detail(module.image.detach().double()).square().mean()))
    assert found[1] < 0.5 * found[0]


def test_sides_of_nothing_are_refused():
    with pytest.raises(UserError, match=r"grain\.side: must be at least 1, got 0"):
        Grain(side=0)
