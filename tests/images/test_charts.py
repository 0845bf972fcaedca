"""A chart of 24 colours in every kind of file, written by other tools (tools/make_charts.py), read in each use."""

import sys
import warnings
from pathlib import Path

import colours
import numpy as np
import pytest

from nst_lightning.data.module import StyleTransferData
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import check_image, read_image, read_mask_samples

CHARTS = Path(__file__).parents[1] / "charts"
sys.path.insert(0, str(CHARTS.parents[1] / "tools"))
import make_charts  # noqa: E402

ROUNDING = 0.01
LUMA = np.array([0.299, 0.587, 0.114])


def of_patches(pixels, patch):
    """Means of the middles of the patches of (1, C, H, W), as (24, C) in levels of 8 bits."""
    values = pixels[0].permute(1, 2, 0).double().numpy() * 255
    assert values.shape[:2] == (make_charts.ROWS * patch, make_charts.COLUMNS * patch)
    tiles = values.reshape(make_charts.ROWS, patch, make_charts.COLUMNS, patch, -1).swapaxes(1, 2)
    edge = patch // 4
    return tiles[:, :, edge : patch - edge, edge : patch - edge].mean((2, 3)).reshape(24, -1)


@pytest.mark.parametrize("name", make_charts.CHARTS)
def test_chart(name):
    chart = make_charts.CHARTS[name]
    path = CHARTS / name
    expected = (np.repeat(colours.GREYS[:, None], 3, 1) if chart.grey else colours.CHECKER) * 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)
        picture = read_image(path)
        data = StyleTransferData(path, path, size=max(picture.height, picture.width), init=path)
        images, start = data.pictures(), data.start_image()
    assert check_image(path) == (picture.height, picture.width)
    alpha = colours.ALPHA[:, None] if chart.alpha else np.ones((24, 1))
    if chart.alpha:
        assert np.abs(of_patches(picture.alpha, chart.patch) / 255 - alpha).max() <= 0.5 / 255
    else:
        assert picture.alpha is None
    over_white = expected * alpha + 255 * (1 - alpha)
    uses = {
        "read": (picture.pixels, over_white, 1),
        # Colours without their transparency, in which steps count more.
        "init": (start, expected, alpha),
        "content": (images.content, expected, alpha),
        "style": (images.styles[0][0], expected, alpha),
    }
    for use, (pixels, shown, weight) in uses.items():
        off = (np.abs(of_patches(pixels, chart.patch) - shown) * weight).max()
        assert off <= chart.levels + ROUNDING, use
    grey, alpha = read_mask_samples(path)[:2]
    assert (alpha is not None) == chart.alpha
    off = np.abs(of_patches(grey, chart.patch)[:, 0] - stored(chart) * 255).max()
    assert off <= chart.levels + ROUNDING


def stored(chart):
    """What a mask is: the samples in the file, (24,) in [0, 1]."""
    samples = make_charts.samples_of(chart)[:: chart.patch, :: chart.patch].reshape(24, -1)
    if chart.lightness:
        return colours.srgb_to_lab(samples)[:, 0] / 100
    return samples[:, 0] if chart.grey else samples[:, :3] @ LUMA


@pytest.mark.parametrize("name", [name for name in make_charts.CHARTS if not name.endswith((".png", ".jpg", ".tif"))])
def test_chart_that_is_cut(name, tmp_path):
    """A picture, or one line; nothing else, wherever the file ends."""
    data = (CHARTS / name).read_bytes()
    for length in range(1, len(data), max(1, len(data) // 12)):
        (tmp_path / "cut").write_bytes(data[:length])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserNotice)
                assert bool(read_image(tmp_path / "cut").pixels.isfinite().all())
        except UserError as error:
            assert str(error).startswith("image: ")
