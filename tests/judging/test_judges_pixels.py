"""Judges that look at pixels: hatching, border lines, colours, clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import rand_image

from nst_lightning.judging.borders import border_step
from nst_lightning.judging.clipping import clipped
from nst_lightning.judging.colors import color_distance, color_histogram
from nst_lightning.judging.hatching import fine_power, hatching, smooth_blocks

HEIGHT, WIDTH = 96, 128
GRAIN = 0.02


def grain(seed, height=HEIGHT, width=WIDTH):
    """The same in all channels, of deviation 1."""
    drawn = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    return drawn.expand(1, 3, height, width)


def smooth_picture(seed=0):
    """A sky: a gradient with a little grain."""
    return 0.3 + 0.4 * torch.linspace(0, 1, WIDTH).expand(1, 3, HEIGHT, WIDTH) + GRAIN * grain(seed)


def half_busy(seed=0):
    """A sky on the left, and on the right strokes of some pixels."""
    strokes = F.interpolate(rand_image(HEIGHT // 8, WIDTH // 8, seed), scale_factor=8.0)
    picture = smooth_picture(seed)
    picture[..., WIDTH // 2 :] = strokes[..., WIDTH // 2 :]
    return picture


def grating(period, amplitude, along="x"):
    places = torch.arange(WIDTH if along == "x" else HEIGHT)
    wave = amplitude * torch.sin(2 * math.pi * places / period + 0.3)
    return (wave[None, :] if along == "x" else wave[:, None]).expand(1, 3, HEIGHT, WIDTH)


def test_a_picture_beside_itself_is_1():
    for picture in (smooth_picture(), half_busy(), rand_image(HEIGHT, WIDTH), torch.full((1, 3, 48, 48), 0.5)):
        assert hatching(picture, picture, picture) == 1


@pytest.mark.parametrize("along", ["x", "y"])
@pytest.mark.parametrize(("period", "share"), [(2.6, 1.0), (3.0, 1.0), (4.0, 0.5)])
def test_power_is_that_of_the_grating(period, share, along):
    """Of lines of 4 px, which is the limit, half is seen."""
    lines = grating(period, 0.1, along)
    np.testing.assert_allclose(fine_power(lines).numpy(), share * 0.1**2 / 2, rtol=0.05)


def test_power_is_three_quarters_of_white_noise():
    assert float(fine_power(GRAIN * grain(1, 512, 512)).mean()) == pytest.approx(0.75 * GRAIN**2, rel=0.02)


@pytest.mark.parametrize("period", [7.0, 9.0, 16.0, 1e9])
def test_coarser_lines_and_gradients_are_not_counted(period):
    assert float(fine_power(grating(period, 0.1)).max()) < 0.01 * 0.1**2 / 2
    assert float(fine_power(smooth_picture() - GRAIN * grain(0)).max()) < 1e-7


def test_a_grating_raises_it_by_its_power():
    picture = smooth_picture()
    lines = grating(3, 0.05)
    expected = 1 + 0.05**2 / 2 / (0.75 * GRAIN**2)
    assert hatching(picture + lines, picture, picture) == pytest.approx(expected, rel=0.15)
    assert hatching(picture + 2 * lines, picture, picture) > 3 * expected


def test_a_blur_lowers_it():
    picture = smooth_picture()
    blurred = F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
    assert hatching(blurred, picture, picture) < 0.2


def test_places_are_the_smooth_ones_of_the_content():
    picture = half_busy()
    places = smooth_blocks(picture)
    assert float(places.float().mean()) == pytest.approx(0.25, abs=0.02)
    assert not places[:, places.shape[1] // 2 :].any()
    busy = picture.clone()
    busy[..., WIDTH // 2 :] = rand_image(HEIGHT, WIDTH, 3)[..., WIDTH // 2 :]
    assert hatching(busy, picture, picture) == pytest.approx(1, rel=0.01)
    hatched = picture.clone()
    hatched[..., : WIDTH // 2] += grating(3, 0.1)[..., : WIDTH // 2]
    assert hatching(hatched, picture, picture) > 10


def test_ripples_and_thin_lines_are_not_smooth():
    """Though means of 4x4 px know nothing of them."""
    ripples, lines = smooth_picture(), smooth_picture()
    ripples[..., WIDTH // 2 :] += grating(4, 0.05)[..., WIDTH // 2 :]
    lines[..., : WIDTH // 2 : 4] -= 0.2
    assert not smooth_blocks(ripples)[:, -7:].any()
    assert not smooth_blocks(lines)[:, :7].any()


def test_another_grain_of_the_same_kind_is_1():
    """Places are not chosen for having little of what is measured there."""
    ratios = []
    for seed in range(5):
        content = smooth_picture(seed)
        ratios.append(hatching(smooth_picture(seed + 100), content, content))
    assert float(np.mean(ratios)) == pytest.approx(1, abs=0.05)


def test_lines_that_the_style_has_are_no_fault():
    content, lines = smooth_picture(), grating(3, 0.1)
    assert hatching(content + lines, content, content) > 10
    style = smooth_picture(1) + lines
    assert hatching(content + lines, content, style) == pytest.approx(1, rel=0.1)


def test_pictures_without_any_grain_count_as_rounded_to_8_bits():
    flat = torch.full((1, 3, 64, 64), 0.5)
    assert hatching(flat, flat, flat) == 1
    assert hatching(flat + grating(3, 2 / 255)[..., :64, :64], flat, flat) == pytest.approx(
        2**2 / 2 * 12 / 0.75, rel=0.1
    )


def test_border_steps_by_a_loop():
    picture = rand_image(30, 40, 5)
    red, green, blue = picture[0].double().numpy()
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    ratios = []
    for side in (y, y[::-1], y.T, y.T[::-1]):
        steps = [np.mean(np.abs(side[k + 1] - side[k])) for k in range(9)]
        ratios.append(steps[0] / np.mean(steps[1:]))
    assert border_step(picture) == pytest.approx(np.mean(ratios), rel=1e-5)


@pytest.mark.parametrize("line", [np.s_[..., 0, :], np.s_[..., -1, :], np.s_[..., :, 0], np.s_[..., :, -1]])
def test_a_border_line_is_seen(line):
    picture = smooth_picture()
    assert border_step(picture) == pytest.approx(1, abs=0.1)
    picture[line] += 0.2
    assert border_step(picture) > 2
    flat = torch.full((1, 3, 48, 48), 0.5)
    assert border_step(flat) == 1


def by_loop(picture):
    """The histogram of HistoGAN, pixel by pixel."""
    histogram = np.zeros((3, 64, 64))
    centres = np.linspace(-3, 3, 64)
    for colour in picture[0].double().flatten(1).T.numpy():
        weight = np.sqrt((colour**2).sum() + 1e-6)
        logarithm = np.log(colour + 1e-6)
        for channel, (first, second) in enumerate([(1, 2), (0, 2), (0, 1)]):
            near = [
                1 / (1 + (logarithm[channel] - logarithm[other] - centres) ** 2 / 0.02**2) for other in (first, second)
            ]
            histogram[channel] += weight * np.outer(*near)
    return histogram / histogram.sum()


def test_histograms_are_those_of_a_plain_loop():
    one, other = rand_image(6, 5, 1), rand_image(4, 9, 2) ** 2
    ours, theirs = by_loop(one), by_loop(other)
    np.testing.assert_allclose(color_histogram(one), ours, rtol=1e-3, atol=1e-7)
    expected = np.sqrt(((np.sqrt(ours) - np.sqrt(theirs)) ** 2).sum() / 2)
    assert color_distance(one, other) == pytest.approx(expected, rel=1e-3)


def test_colours_that_share_nothing_are_far_apart():
    red, blue = torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 30, 20)
    red[:, 0] = blue[:, 2] = 0.8
    assert color_distance(red, red) == pytest.approx(0, abs=1e-6)
    assert color_distance(red, blue) > 0.9
    assert color_distance(red, red / 2) < 0.2  # darker
    large = torch.cat([red, red], 2).repeat(1, 1, 10, 20)
    assert color_distance(large, red) == pytest.approx(0, abs=1e-3)


def test_clipped_is_the_share_of_samples():
    picture = torch.full((1, 3, 2, 2), 0.5)
    picture[0, 0, 0] = torch.tensor([0.0, 1.0])
    picture[0, 1, 1, 1] = 1.2
    assert clipped(picture) == pytest.approx(3 / 12)
