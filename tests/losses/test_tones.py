"""What is light and dark nearby, against the same factor of SSIM elsewhere, and by hand."""

from __future__ import annotations

import pytest
import torch
from helpers import rand
from torchmetrics.functional.image import structural_similarity_index_measure

from nst_lightning.features import VGG19
from nst_lightning.losses import Gram, Tones
from nst_lightning.losses.tones import contrast_structure
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective


def test_contrast_and_structure_are_those_of_ssim():
    one, other = rand(1, 1, 31, 40).double(), rand(1, 1, 31, 40, seed=1).double()
    other = 0.5 * one + 0.5 * other
    _, found = structural_similarity_index_measure(
        one, other, gaussian_kernel=False, kernel_size=7, data_range=1.0, return_contrast_sensitivity=True
    )
    # There all windows count, with the picture mirrored at its border; what lies inside is the same.
    plain = []
    for row in range(31 - 6):
        for column in range(40 - 6):
            x, y = (image[0, 0, row : row + 7, column : column + 7].flatten() for image in (one, other))
            both = torch.cov(torch.stack([x, y]), correction=0)
            plain.append((2 * both[0, 1] + 9e-4) / (both[0, 0] + both[1, 1] + 9e-4))
    expected = torch.stack(plain).mean()
    torch.testing.assert_close(contrast_structure(one, other), expected, rtol=1e-10, atol=0)
    assert float(found) == pytest.approx(float(expected), abs=0.03)


def test_tones_by_hand():
    """A picture that is darker by a constant keeps its tones; half the contrast keeps 4/5, a negative none."""
    content = rand(1, 3, 96, 96)
    term = Tones(cells=96)
    assert float(term.image_loss(content, content, None)) == pytest.approx(0, abs=1e-6)
    assert float(term.image_loss(content - 0.3, content, None)) == pytest.approx(0, abs=1e-4)
    strong = torch.randint(0, 2, (1, 1, 96, 96)).float().expand(1, 3, 96, 96)  # so that C counts for little
    assert float(term.image_loss(0.5 * strong, strong, None)) == pytest.approx(1 - 0.8, abs=2e-3)
    assert float(term.image_loss(-strong, strong, None)) == pytest.approx(2, abs=1e-2)


def test_one_colour_is_not_better_than_alike():
    """Variances of flat pictures are differences of rounded squares, and came out below 0."""
    flat = [
        torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 72, 96) for colour in ((0.16, 0.47, 0.78), (0.8, 0.2, 0.3))
    ]
    for image in flat:
        assert 0 <= float(Tones().image_loss(image, flat[0], None)) < 1e-3


def test_strokes_finer_than_a_cell_are_free():
    content = rand(1, 3, 24, 24).repeat_interleave(4, 2).repeat_interleave(4, 3)
    strokes = torch.tensor([0.1, -0.1]).repeat(48)  # from pixel to pixel
    finer, coarser = (
        float(Tones(cells=24).image_loss(content + change, content, None))
        for change in (strokes, strokes.repeat_interleave(8)[:96])
    )
    assert finer < 1e-3
    assert coarser > 0.02


def test_masks_say_where_tones_count():
    content, image = rand(1, 3, 20, 20), rand(1, 3, 20, 20, seed=1)
    weights = torch.zeros(1, 1, 20, 20)
    weights[..., :10] = 1
    term = Tones(cells=20)
    half = image.clone()
    half[..., 10:] = 0.5
    torch.testing.assert_close(term.image_loss(image, content, weights), term.image_loss(half, content, weights))
    alike = torch.full((1, 1, 20, 20), 0.3)
    torch.testing.assert_close(
        term.image_loss(image, content, alike), term.image_loss(image, content, None), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 9), (1, 3, 40, 3), (1, 3, 17, 23)])
def test_gradients_are_finite_and_right(shape):
    content, flat = rand(*shape).double(), torch.full(shape, 0.5, dtype=torch.float64)
    image = rand(*shape, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Tones(cells=8).image_loss(x, content, None), image)
    for one in (flat, content):
        start = one.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(Tones().image_loss(start, flat, None), start)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
def test_tiles_do_not_show(tiny_weights, masked):
    content, image = rand(1, 3, 96, 80).double(), rand(1, 3, 96, 80, seed=1).double().requires_grad_()
    masks = Masks([], [None], [None], [None], Mask(rand(1, 1, 96, 80, seed=3), "face"), 0.3) if masked else None
    found = []
    for tile in (None, 48):
        network = VGG19(str(tiny_weights)).double()
        network.set_compute_dtype(torch.float64)
        evaluate = Evaluator(Objective([Tones(), Gram()]), network, tile)
        evaluate.prepare(content, [(rand(1, 3, 50, 61, seed=2).double(), 1.0)], masks)
        loss, _ = evaluate(image)
        found.append((loss, torch.autograd.grad(loss, image)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_the_gradient_has_no_edges_of_cells():
    """With means over blocks a seventh of its power was as fine as this, and pictures filled with a grid of pixels."""
    content, start = rand(1, 3, 96, 96), rand(1, 3, 96, 96, seed=1)
    image = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Tones(cells=24).image_loss(image, content, None), image)
    power = torch.fft.fft2(gradient[0, 0]).abs().square()
    frequency = torch.fft.fftfreq(96).abs()
    fine = torch.maximum(frequency[:, None], frequency) > 0.3  # periods below 3.3 px, where a cell has 4
    assert float(power[fine].sum() / power.sum()) < 0.002
