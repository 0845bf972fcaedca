"""Colours beyond sRGB from the content's file to the result's, through data, module and command."""

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from nst_lightning import cli
from nst_lightning.data.module import StyleTransferData
from nst_lightning.images import read_image, read_metadata
from nst_lightning.images.color import extended_linear, srgb_profile
from nst_lightning.images.profiles import color_space
from nst_lightning.images.recolor import luma, match_colors, with_luma

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 60, 255], [128, 128, 128]], np.uint8)  # of Display P3


@pytest.fixture
def wide(tmp_path):
    """A picture of 64x48 pixels in Display P3: four columns of one colour each."""
    path = tmp_path / "wide.png"
    pixels = np.repeat(np.repeat(COLOURS[None], 16, 1), 48, 0)
    Image.fromarray(pixels).save(path, icc_profile=color_space("display-p3").icc)
    return path


def columns(path, size=64):
    values = imagecodecs.png_decode(path.read_bytes())
    return values[20, size // 8 :: size // 4].astype(float) / np.iinfo(values.dtype).max


class TestData:
    def test_only_on_request(self, wide, pair):
        data = StyleTransferData(str(wide), str(pair[1]), size=64)
        plain = data.stage_images().content
        assert (float(plain.min()), float(plain.max())) == (0, 1)
        data.keep_gamut(True)
        kept = data.stage_images().content
        assert kept.min() < -0.2
        assert kept.max() > 1.05
        assert data.start_image().max() > 1.05
        half = data.stage_images(0.5).content  # resizing overshoots, and goes no farther than the picture itself
        assert half.min() >= kept.min()
        assert half.max() <= kept.max()
        data.keep_gamut(False)
        assert torch.equal(data.stage_images().content, plain)

    def test_nothing_changes_for_a_picture_within_srgb(self, pair):
        data = StyleTransferData(str(pair[0]), str(pair[1]), size=40)
        plain = data.stage_images().content
        data.keep_gamut(True)
        assert torch.equal(data.stage_images().content, plain)

    @pytest.mark.parametrize("color", ["luminance", "recolor"])
    def test_colours_of_the_content(self, wide, pair, color):
        data = StyleTransferData(str(wide), str(pair[1]), size=64, color=color)
        data.keep_gamut(True)
        content = data.stage_images().content if color == "recolor" else read_image(wide, extended=True).pixels
        image = content if color == "recolor" else luma(content).expand(1, 3, -1, -1)
        assert (data.finished(image, extended=True) - content).abs().max() < 2e-3
        plain = data.finished(image.clamp(0, 1))
        assert plain.min() >= 0
        assert plain.max() <= 1


class TestRecolor:
    def test_luma_takes_no_colour_farther_out(self):
        generator = torch.Generator().manual_seed(0)
        picture = torch.rand(1, 3, 20, 20, generator=generator) * 1.6 - 0.3
        wanted = torch.rand(1, 1, 20, 20, generator=generator)
        result = with_luma(picture, wanted)
        low, high = picture.amin(1, keepdim=True).clamp(max=0), picture.amax(1, keepdim=True).clamp(min=1)
        assert bool(((result >= low) & (result <= high)).all())
        change = result - picture
        assert (change - change.mean(1, keepdim=True)).abs().max() < 1e-6  # chroma stays
        inside = picture.clamp(0, 1)
        assert (luma(with_luma(inside * 0.2 + 0.4, wanted * 0.2 + 0.4)) - wanted * 0.2 - 0.4).abs().max() < 1e-6

    def test_match_clamps_unless_told(self):
        generator = torch.Generator().manual_seed(0)
        picture, reference = torch.rand(2, 1, 3, 20, 20, generator=generator)
        reference = reference * 3 - 1
        moved = match_colors(picture, reference, clamp=False)
        assert moved.max() > 1
        assert torch.equal(match_colors(picture, reference), moved.clamp(0, 1))


@pytest.fixture
def fit(wide, pair, tmp_path, monkeypatch, use_tiny_weights):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        pictures = ["--data.content", str(wide), "--data.style", str(pair[1]), "--data.size", "64"]
        # So small a step that the result is the content.
        settings = ["--model.evaluations", "1", "--model.optimizer", "Adam", "--model.optimizer.lr", "1e-6"]
        settings += ["--snapshot_every", "0"]
        assert cli.main(["fit", *pictures, *settings, "--trainer.enable_progress_bar", "false", *args]) == 0

    return run


@pytest.mark.parametrize(
    ("name", "bits", "color"),
    [("display-p3", 8, "style"), ("content", 16, "style"), ("display-p3", 16, "luminance"), ("content", 8, "recolor")],
)
def test_from_file_to_file(fit, tmp_path, name, bits, color):
    fit("--output", "out.png", "--color_space", name, "--bits", str(bits), "--data.color", color)
    np.testing.assert_allclose(columns(tmp_path / "out.png") * 255, COLOURS, atol=1.5)
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["icc_profile"] == color_space("display-p3").icc
    assert "color_space: " in read_metadata(tmp_path / "out.png")["Configuration"]


def test_adobe_rgb(fit, tmp_path):
    """Against littleCMS, from the one profile to the other."""
    fit("--output", "out.png", "--color_space", "Adobe RGB", "--bits", "16")
    expected = imagecodecs.cms_transform(
        COLOURS[None].astype(np.float32) / 255,
        color_space("display-p3").icc,
        color_space("adobe-rgb").icc,
        colorspace="rgb",
        outcolorspace="rgb",
        outdtype="float32",
    )
    np.testing.assert_allclose(columns(tmp_path / "out.png"), np.clip(expected[0], 0, 1), atol=1.5 / 255)


def test_srgb_by_default(fit, tmp_path):
    fit("--output", "out.png")
    expected = imagecodecs.cms_transform(
        COLOURS[None].astype(np.float32) / 255,
        color_space("display-p3").icc,
        srgb_profile(),
        colorspace="rgb",
        outcolorspace="rgb",
        outdtype="float32",
    )
    np.testing.assert_allclose(columns(tmp_path / "out.png"), np.clip(expected[0], 0, 1), atol=1.5 / 255)


def test_what_optimisation_takes_beyond_srgb_is_kept(pair, tmp_path, use_tiny_weights):
    """The image is free to leave [0, 1]; a wider space shows how far, sRGB does not."""
    from nst_lightning.images import write_image

    pixels = torch.full((1, 3, 8, 8), 0.5)
    pixels[:, 0], pixels[:, 1] = 1.05, -0.1
    write_image(tmp_path / "p3.png", pixels, bits=16, space=color_space("display-p3"))
    back = read_image(tmp_path / "p3.png", extended=True).pixels
    light = extended_linear(back.numpy()) - extended_linear(pixels.numpy())
    assert np.abs(light).max() < 1e-4
