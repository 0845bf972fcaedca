"""A start from the content in the style's colours."""

from __future__ import annotations

import numpy as np
import torch
from helpers import rand_image
from PIL import Image

from nst_lightning.data.module import StyleTransferData
from nst_lightning.data.stage_images import StageImages, recolored
from nst_lightning.images.recolor import match_colors
from nst_lightning.objective.masks import Mask, Masks


def muted(height, width, seed, middle=0.5):
    """Colours that stay in [0, 1] when they are moved."""
    return middle + 0.2 * (rand_image(height, width, seed=seed) - 0.5)


def moments(picture):
    pixels = picture[0].flatten(1).double().numpy()
    return pixels.mean(1), np.cov(pixels, bias=True)


def test_it_has_the_mean_and_covariance_of_the_style():
    content, style = muted(20, 30, 0), muted(25, 18, 1, middle=0.3)
    for found, expected in zip(moments(recolored(StageImages(content, [(style, 1.0)]))), moments(style), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_of_two_styles_each_has_its_share():
    content, one, other = muted(20, 30, 0), muted(25, 18, 1, middle=0.3), muted(9, 14, 2, middle=0.6)
    found = recolored(StageImages(content, [(one, 0.75), (other, 0.25)]))
    expected = 0.75 * match_colors(content, one) + 0.25 * match_colors(content, other)
    torch.testing.assert_close(found, expected)


def test_regions_take_the_colours_of_their_own_styles():
    """Left one style, right another, each from the part of the content there; between them half of each, below none."""
    content, one, other = muted(20, 30, 0), muted(25, 18, 1, middle=0.3), muted(9, 14, 2, middle=0.6)
    left, right = torch.zeros(1, 1, 20, 30), torch.zeros(1, 1, 20, 30)
    left[..., :15, :14], right[..., :15, 16:] = 1, 1
    left[..., :15, 14:16] = right[..., :15, 14:16] = 0.5
    masks = Masks([Mask(left, "left"), Mask(right, "right")], [0, 1], [None, None], [None, None], None)
    found = recolored(StageImages(content, [(one, 1.0), (other, 1.0)], masks))
    moved = [match_colors(content, one, left), match_colors(content, other, right)]
    torch.testing.assert_close(found[..., :15, :14], moved[0][..., :15, :14])
    torch.testing.assert_close(found[..., :15, 16:], moved[1][..., :15, 16:])
    torch.testing.assert_close(found[..., :15, 14:16], (moved[0] + moved[1])[..., :15, 14:16] / 2)
    torch.testing.assert_close(found[..., 15:, :], content[..., 15:, :])


def test_a_style_mask_says_whose_colours_count():
    content, style = muted(20, 30, 0), torch.cat([muted(20, 10, 1, middle=0.3), muted(20, 10, 2, middle=0.7)], -1)
    part = torch.zeros(1, 1, 20, 20)
    part[..., :10] = 1
    masks = Masks([], [None], [Mask(part, "part")], [None], None)
    found = recolored(StageImages(content, [(style, 1.0)], masks))
    torch.testing.assert_close(found, match_colors(content, style[..., :10]), rtol=0, atol=1e-5)


def test_a_run_starts_there(tmp_path):
    for name, seed in (("content", 0), ("style", 1)):
        array = (muted(40, 40, seed, middle=0.5 - 0.1 * seed)[0].permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    data = StyleTransferData(tmp_path / "content.png", tmp_path / "style.png", size=40, init="recolored")
    images = data.stage_images()
    torch.testing.assert_close(data.start_image(), match_colors(images.content, images.styles[0][0]))
    assert not data.request.starts_from_nothing
    texture = StyleTransferData(None, tmp_path / "style.png", size=40, init="recolored")
    noise = StyleTransferData(None, tmp_path / "style.png", size=40, init="noise")
    assert texture.request.starts_from_nothing
    assert torch.equal(texture.start_image(), noise.start_image())
