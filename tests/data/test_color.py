"""Whose colours the result has, and textures, which have no content to take them from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rand_image
from PIL import Image
from scipy.linalg import sqrtm

from nst_lightning.cli import main
from nst_lightning.data.module import StyleTransferData
from nst_lightning.errors import UserError
from nst_lightning.images import read_image
from nst_lightning.images.recolor import luma, match_colors, match_histogram, match_luma, with_luma
from nst_lightning.losses.sliced import unit_directions


def chroma(picture):
    """Cb and Cr by Pillow, from 8-bit RGB."""
    array = (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return np.asarray(Image.fromarray(array).convert("YCbCr")).astype(int)[..., 1:]


def test_luma_is_that_of_pillow():
    array = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    ours = luma(torch.from_numpy(array).permute(2, 0, 1)[None] / 255) * 255
    theirs = np.asarray(Image.fromarray(array).convert("YCbCr"))[..., 0]
    difference = ours[0, 0].numpy() - theirs  # it rounds down
    assert -1e-3 < difference.min() < difference.max() < 1


def test_chroma_stays_to_within_a_level():
    content, wanted = rand_image(40, 50), rand_image(40, 50, seed=1)[:, :1]
    found = with_luma(content, wanted)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert np.abs(chroma(found) - chroma(content)).max() <= 1
    inside = (found > 1e-6).all(1) & (found < 1 - 1e-6).all(1)
    assert inside.float().mean() > 0.2
    torch.testing.assert_close(luma(found)[:, 0][inside], wanted[:, 0][inside], rtol=0, atol=1e-6)


def test_luma_takes_mean_and_deviation():
    picture, reference = 0.3 + 0.2 * rand_image(30, 30)[:, :1], 0.4 + 0.1 * rand_image(20, 25, seed=1)[:, :1]
    found = match_luma(picture, reference)
    torch.testing.assert_close(found.mean(), reference.mean())
    torch.testing.assert_close(found.std(unbiased=False), reference.std(unbiased=False))
    assert torch.isfinite(match_luma(torch.full((1, 1, 4, 4), 0.5), reference)).all()


def test_colors_take_mean_and_covariance_by_the_shortest_way():
    mix = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.1, 0.1], [0.1, 0.0, 0.2]])
    picture, reference = (
        0.3 + 0.1 * rand_image(30, 30),
        0.3 + torch.einsum("ij,njhw->nihw", mix, rand_image(20, 25, seed=1)),
    )
    found = match_colors(picture, reference)
    one, other, ours = (x[0].flatten(1).double().numpy() for x in (picture, reference, found))
    np.testing.assert_allclose(ours.mean(1), other.mean(1), atol=1e-6)
    np.testing.assert_allclose(np.cov(ours, bias=True), np.cov(other, bias=True), atol=1e-5)
    a, b = np.cov(one, bias=True), np.cov(other, bias=True)
    root = np.real(sqrtm(a))
    transport = np.linalg.inv(root) @ np.real(sqrtm(root @ b @ root)) @ np.linalg.inv(root)
    expected = transport @ (one - one.mean(1, keepdims=True)) + other.mean(1, keepdims=True)
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    grey = rand_image(9, 9)[:, :1].repeat(1, 3, 1, 1)
    assert torch.isfinite(match_colors(grey, reference)).all()  # no chroma to stretch
    torch.testing.assert_close(match_colors(reference, reference), reference, rtol=0, atol=1e-4)


def colors_of(*palette, seed=0, noise=0.02):
    """A picture of 40 by 50 px with as much of each colour, give or take."""
    chosen = torch.randint(len(palette), (40, 50), generator=torch.Generator().manual_seed(seed))
    picture = torch.tensor(palette)[chosen].permute(2, 0, 1)[None]
    return (picture + noise * (rand_image(40, 50, seed=seed + 9) - 0.5)).clamp(0, 1)


def distance_of_colors(one, other):
    """Sliced Wasserstein-2 distance of two pictures' colours, with directions of its own."""
    directions, levels = unit_directions(50, 3, seed=7), torch.linspace(0, 1, 501)
    quantiles = [(directions @ x[0].flatten(1)).quantile(levels, dim=1) for x in (one, other)]
    return float((quantiles[0] - quantiles[1]).square().mean().sqrt())


def test_histograms_of_pixels_in_another_order_are_equal():
    reference = rand_image(20, 30)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    found = match_histogram(reference.flatten(2)[..., order].view(1, 3, 25, 24), reference)
    torch.testing.assert_close(found.flatten(2).sort().values, reference.flatten(2).sort().values)


def test_histogram_of_greys_by_hand():
    """Four greys take those of their rank; with two alike, these take the middle of the two ranks."""

    def grey(*values):
        return torch.tensor(values).view(1, 1, 2, 2).repeat(1, 3, 1, 1)

    reference = grey(0.9, 0.5, 0.6, 0.8)
    torch.testing.assert_close(match_histogram(grey(0.3, 0.1, 0.2, 0.0), reference), grey(0.9, 0.6, 0.8, 0.5))
    torch.testing.assert_close(match_histogram(grey(0.3, 0.1, 0.1, 0.0), reference), grey(0.9, 0.7, 0.7, 0.5))
    torch.testing.assert_close(match_histogram(grey(0.3, 0.3, 0.3, 0.3), reference), grey(0.7, 0.7, 0.7, 0.7))


def test_histogram_of_separate_colors():
    """Mean and covariance do not say that a palette has two colours, or four."""
    picture = colors_of((0.1, 0.2, 0.7), (0.8, 0.7, 0.2), (0.5, 0.5, 0.5))
    reference = colors_of((0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (0.1, 0.1, 0.2), (0.9, 0.9, 0.8), seed=1)
    by_moments, found = match_colors(picture, reference), match_histogram(picture, reference)
    assert distance_of_colors(found, reference) < 0.3 * distance_of_colors(by_moments, reference)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_histogram_of_its_own_leaves_a_picture_as_it_is():
    for picture in (rand_image(20, 30), colors_of((0.1, 0.2, 0.7), (0.8, 0.7, 0.2), noise=0.0)):
        torch.testing.assert_close(match_histogram(picture, picture), picture, rtol=0, atol=1e-5)


def test_histogram_is_the_same_each_time_and_for_equal_colors():
    picture, reference = colors_of((0.1, 0.2, 0.7), (0.8, 0.7, 0.2), (0.5, 0.6, 0.5), noise=0.0), rand_image(31, 17)
    found = match_histogram(picture, reference)
    assert torch.equal(found, match_histogram(picture, reference))
    assert len(found.flatten(2)[0].T.unique(dim=0)) == 3


def test_histogram_of_a_large_picture_comes_from_a_sample_of_it(monkeypatch):
    picture, reference = 0.5 * rand_image(60, 70), 0.4 + 0.5 * rand_image(50, 80, seed=1)
    exact = match_histogram(picture, reference)
    monkeypatch.setattr("nst_lightning.images.recolor._SAMPLES", 1100)
    monkeypatch.setattr("nst_lightning.images.recolor._BLOCK", 500)
    found = match_histogram(picture, reference)
    assert found.shape == picture.shape
    assert not torch.equal(found, exact)
    assert distance_of_colors(found, reference) < 0.02
    assert float((found - exact).abs().mean()) < 0.05


def test_targets_are_in_the_colors_that_count(pair):
    images = {
        color: StyleTransferData(str(pair[0]), str(pair[1]), size=32, color=color)
        for color in ("style", "luminance", "match", "histogram", "recolor")
    }
    for data in images.values():
        data.setup()
    found = {color: data.stage_images() for color, data in images.items()}
    for picture in (found["luminance"].content, found["luminance"].styles[0][0]):
        assert torch.equal(picture[:, 0], picture[:, 1])
    assert torch.equal(found["recolor"].styles[0][0], found["style"].styles[0][0])
    assert torch.equal(found["match"].content, found["style"].content)
    mean = [x.mean((0, 2, 3)) for x in (found["match"].styles[0][0], found["match"].content)]
    torch.testing.assert_close(mean[0], mean[1], rtol=0, atol=0.02)  # but for what was clamped
    assert torch.equal(found["histogram"].content, found["style"].content)
    levels = torch.linspace(0, 1, 21)
    quantiles = [x.flatten(2)[0].quantile(levels, 1) for x in (found["histogram"].styles[0][0], found["style"].content)]
    torch.testing.assert_close(*quantiles, rtol=0, atol=0.02)


@pytest.mark.parametrize("color", ["luminance", "recolor", "match", "histogram"])
def test_a_run_in_the_contents_colors(color, pair, tmp_path, monkeypatch, use_tiny_weights):
    monkeypatch.chdir(tmp_path)
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--trainer.accelerator", "cpu"]
    options = ["--data.size", "48", "--model.stages", "[{evaluations: 3, scale: 0.7}, {evaluations: 3}]"]
    every = ["--snapshot_every", "5", "--output", "out.png"]
    assert main(["fit", *pictures, "--data.color", color, *options, *every]) == 0
    result, content = read_image("out.png").pixels, read_image(pair[0]).pixels
    assert not torch.equal(result, content)
    if color == "luminance":
        assert np.abs(chroma(result) - chroma(content)).max() <= 1
        (snapshot,) = tmp_path.glob("runs/*/snapshots/*.png")
        assert np.abs(chroma(read_image(snapshot).pixels) - chroma(content)).max() <= 1
    if color == "recolor":
        difference = result.mean((0, 2, 3)) - content.mean((0, 2, 3))
        assert float(difference.abs().max()) < 0.05


def test_a_texture_of_any_shape(pair, tmp_path, monkeypatch, capsys, use_tiny_weights):
    monkeypatch.chdir(tmp_path)
    sizes = ["--data.style", str(pair[1]), "--data.size", "64", "--data.aspect", "2"]
    options = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--output", "out.png"]
    assert main(["fit", "--config", "texture", *sizes, "--model.evaluations", "4", *options]) == 0
    assert read_image("out.png").pixels.shape == (1, 3, 32, 64)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("texture_style")
    more = ["--ckpt_path", "last", "--model.evaluations", "6", "--trainer.accelerator", "cpu"]
    assert main(["fit", *more]) == 0
    assert len((folder / "metrics.csv").read_text().splitlines()) == 7
    capsys.readouterr()
    assert main(["fit", *sizes]) == 2
    assert "data.content: must be given, got nothing" in capsys.readouterr().err
    assert main(["fit", *sizes, "--config", "article"]) == 2
    assert "data.content: must name a picture for the term content, got null" in capsys.readouterr().err


def test_a_texture_has_the_styles_aspect_by_default(pair):
    data = StyleTransferData(None, str(pair[0]), size=48)
    assert data.stage_size() == (36, 48)
    assert data.start_image().std() > 0.2  # noise
    data.setup()
    assert float((data.stage_images().content - 0.5).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {"color": "luminance"}, "data.color: must be style without a content, got luminance"),
        (True, {"aspect": 2.0}, "data.aspect: must be left out with a content"),
        (None, {"aspect": 0.0}, "data.aspect: must be from"),
        (True, {"color": "sepia"}, "data.color: must be one of style, luminance, match, histogram, recolor, got sepia"),
    ],
)
def test_what_makes_no_sense_is_refused(pair, content, options, message):
    with pytest.raises(UserError, match=message):
        StyleTransferData(content and str(pair[0]), str(pair[1]), size=32, **options)
