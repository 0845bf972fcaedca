"""A little style touches the photograph lightly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import rand

from nst_lightning import StyleTransferData
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.losses import Content, Gram, MattingLaplacian, Palette, Tones
from nst_lightning.losses.pixels import Pixels
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS


def test_likeness_by_hand():
    """A difference of 0.16 in one of two pixels: 1/2, and 4 times 1/2 for the step between them; and masked."""
    content = torch.full((1, 3, 1, 2), 0.5)
    image = content + torch.tensor([0.16, 0.0])
    term = Pixels()
    assert float(term.image_loss(image, content, None)) == pytest.approx(0.5 + 4 * 0.5)
    weights = torch.tensor([0.25, 1.0]).view(1, 1, 1, 2)
    assert float(term.image_loss(image, content, weights)) == pytest.approx(0.5 * 0.25 + 4 * 0.5 * 0.625)


@pytest.mark.parametrize(
    ("strength", "terms", "weight"),
    [
        (1.0, default_terms, None),
        (3.0, default_terms, None),
        (0.2, default_terms, 0.4),  # the content's 0.5 times what the strength lacks
        (0.0, lambda: [Content(weight=2.0), Gram()], 2.0),
        (0.2, lambda: [Content(weight=2.0, normalization="released"), Gram()], None),
        (0.2, lambda: [Gram()], None),
        # A matting Laplacian, whose weights are large as its unit is small, counts by itself alone.
        (0.5, lambda: [MattingLaplacian(weight=10.0), Tones(weight=2.0), Palette()], 1.0),
        (0.5, lambda: [MattingLaplacian(weight=10.0), Content(weight=3.0), Tones(weight=2.0), Gram()], 1.5),
        (0.5, lambda: [MattingLaplacian(weight=10.0), Palette()], 5.0),
    ],
)
def test_it_joins_a_balanced_content_below_full_strength(strength, terms, weight):
    found = [term for term in Objective(terms(), strength).terms if isinstance(term, Pixels)]
    assert [term.weight for term in found] == ([] if weight is None else [pytest.approx(weight)])


@pytest.mark.parametrize("masked", [False, True])
def test_tiles_do_not_show(tiny_weights, masked):
    content, image = rand(1, 3, 96, 80), rand(1, 3, 96, 80, seed=1).requires_grad_()
    masks = Masks([], [None], [None], [None], Mask(rand(1, 1, 96, 80, seed=3), "face"), 0.3) if masked else None
    found = []
    for tile in (None, 48):
        network = VGG19(str(tiny_weights)).double()
        network.set_compute_dtype(torch.float64)
        evaluate = Evaluator(Objective(default_terms(), 0.1), network, tile)
        evaluate.prepare(content, [(rand(1, 3, 50, 61, seed=2), 1.0)], masks)
        loss, parts = evaluate(image)
        found.append((parts, torch.autograd.grad(loss, image)[0]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=0)
    assert float((found[0][1] - found[1][1]).abs().max() / found[0][1].abs().max()) < 1e-9


def power_at_two_pixels(picture):
    """Energy of the finest spatial frequencies, where a grid or specks have theirs."""
    spectrum = np.abs(np.fft.fft2(picture.mean(1)[0].numpy())) ** 2
    rows, columns = (np.abs(np.fft.fftfreq(n)) for n in spectrum.shape)
    return spectrum[np.hypot(rows[:, None], columns) > 0.4].sum()


def touched(content, styles, strength, evaluations):
    """What a run makes of a photograph."""
    objective = Evaluator(Objective(default_terms(), strength), CompactVGG19())
    objective.prepare(content, styles)
    image = torch.nn.Parameter(content.clone())
    optimizer = LBFGS([image])

    def closure():
        optimizer.zero_grad()
        loss = objective(image).loss
        loss.backward()
        return loss

    for _ in range(evaluations):
        optimizer.step(closure)
    return image.detach()


@pytest.mark.slow
def test_a_little_style_changes_little():
    """From a hundredth to all of the strength the picture moves away from the photograph, and no grid appears."""
    data = StyleTransferData("demo:content", "demo:style", size=64)
    images = data.stage_images()
    distances, powers = [], []
    for strength in (0.01, 0.05, 0.3, 1.0):
        result = touched(images.content, images.styles, strength, 30).clamp(0, 1)
        distances.append(math.sqrt(float((result - images.content).square().mean())))
        powers.append(power_at_two_pixels(result) / power_at_two_pixels(images.content))
    assert distances == sorted(distances)
    assert distances[0] < 0.03
    assert distances[1] < 0.06
    assert max(powers[:2]) < 1.5, powers


@pytest.mark.slow
def test_a_clear_sky_stays_clear():
    """At a strength of 0.05 no hatching of three pixels covers what is smooth; squares of pixels alone let 0.009 be."""
    images = StyleTransferData("demo:content", "demo:style", size=96).stage_images()
    content = images.content.clone()
    half = content.shape[-2] // 2
    sky = torch.tensor([0.35, 0.55, 0.75]).view(1, 3, 1, 1) + torch.linspace(-0.1, 0.1, half).view(1, 1, -1, 1)
    content[..., :half, :] = sky
    change = (touched(content, images.styles, 0.05, 40) - content)[..., 4 : half - 6, 4:-4]
    fine = change - torch.nn.functional.avg_pool2d(change, 5, 1, 2, count_include_pad=False)
    assert 0.01 < float(change.square().mean().sqrt()) < 0.05  # it has taken something of the style
    assert float(fine.square().mean().sqrt()) < 0.004
