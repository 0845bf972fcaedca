"""The demo pictures, and the program that paints the style picture."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nst_lightning import demo
from nst_lightning.images import read_image

TOOLS = Path(__file__).parents[2] / "tools"
TINY = 96


@pytest.fixture(scope="module")
def paint():
    """The painter; its module lies outside the package, next to the modules that it imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import paint_demo_style

        yield paint_demo_style.paint


@pytest.fixture(scope="module")
def tiny(paint):
    return paint(TINY, seed=7)


@pytest.mark.parametrize(
    ("path", "size", "limit"), [(demo.CONTENT, (600, 400), 150_000), (demo.STYLE, (1024, 799), 700_000)]
)
def test_the_pictures_open_as_rgb_and_are_small_enough_to_ship(path, size, limit):
    with Image.open(path) as picture:
        picture.load()
        assert picture.mode == "RGB"
        assert picture.size == size
    assert path.stat().st_size < limit


def test_the_notice_names_both_pictures_and_the_licence():
    notice = (demo.CONTENT.parent / "NOTICE.md").read_text(encoding="utf-8")
    assert all(text in notice for text in (demo.CONTENT.name, demo.STYLE.name, "Rachel Michetti", "CC0"))


def test_the_shipped_style_is_what_the_painter_paints(tiny):
    """Strokes depend on the size, motifs do not: the two agree once everything but the motifs is blurred."""

    def motifs(picture):
        return np.asarray(picture.resize((12, 9), Image.Resampling.BOX), np.float64).ravel()

    with Image.open(demo.STYLE) as shipped:
        assert np.corrcoef(motifs(shipped), motifs(tiny))[0, 1] > 0.8


def test_the_painting_is_rich_in_colour_and_contrast_everywhere(tiny):
    pixels = np.asarray(tiny, np.float64) / 255
    hue, saturation, _ = (np.asarray(channel) for channel in tiny.convert("HSV").split())
    hues = np.histogram(hue[saturation > 100], bins=12, range=(0, 256))[0] / hue.size
    assert (hues > 0.02).sum() >= 5
    luma = pixels @ [0.299, 0.587, 0.114]
    assert np.percentile(luma, 98) - np.percentile(luma, 2) > 0.6
    tiles = luma[: luma.shape[0] // 24 * 24].reshape(-1, 24, TINY // 24, 24)
    assert tiles.std(axis=(1, 3)).min() > 0.03


def test_the_command_line_paints_the_same_picture_for_a_seed_and_another_for_another(paint, tiny, tmp_path):
    output = tmp_path / "style.png"
    command = [sys.executable, TOOLS / "paint_demo_style.py", output, "--size", str(TINY), "--seed", "8"]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(output) as picture:
        assert picture.tobytes() == paint(TINY, seed=8).tobytes()
        assert picture.tobytes() != tiny.tobytes()


def test_the_mask_is_of_the_contents_shape_and_soft():
    mask, content = read_image(demo.MASK).pixels, read_image(demo.CONTENT).pixels
    assert mask.shape == content.shape
    assert 0.3 < float(mask.mean()) < 0.6
    assert bool(((mask > 0.2) & (mask < 0.8)).any())
