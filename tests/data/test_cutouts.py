"""Transparency: only what is visible of a content or a style counts, and nothing of it turns white."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import rand
from PIL import Image
from terms import Alone

from nst_lightning import Style, StyleTransferData
from nst_lightning.cli import main
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.images import read_image
from nst_lightning.images.cutout import on_white, uncovered
from nst_lightning.losses import NNFM, Gram, Histogram, SlicedWasserstein
from nst_lightning.losses.gram import gram_distance, gram_matrix
from nst_lightning.losses.reference import counting
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective

RNG = np.random.default_rng(0)
DISC = np.hypot(*np.mgrid[-24:24, -24:24]) < 17


@pytest.fixture
def cut_outs(tmp_path):
    """A disc of one picture, with other colours hidden around it, and what is seen of it on white."""
    colours = np.clip(RNG.normal((200, 60, 40), 30, (48, 48, 3)), 0, 255).astype(np.uint8)
    for name, hidden in (("black", 0), ("noise", RNG.integers(0, 256, (48, 48, 3)))):
        rgb = np.where(DISC[..., None], colours, hidden).astype(np.uint8)
        Image.fromarray(np.dstack([rgb, DISC * np.uint8(255)])).save(tmp_path / f"{name}.png")
    Image.fromarray(np.where(DISC[..., None], colours, 255).astype(np.uint8)).save(tmp_path / "on_white.png")
    Image.fromarray(DISC * np.uint8(255)).save(tmp_path / "shape.png")
    return tmp_path, colours


def test_colours_are_carried_on_where_nothing_is_visible(tmp_path):
    pixels = np.zeros((4, 8, 4), np.uint8)
    pixels[:, :2] = (100, 150, 200, 255)
    pixels[:, 6] = (40, 30, 20, 51)
    pixels[:, 7] = (40, 30, 20, 255)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    shown = read_image(tmp_path / "x.png")
    colours = uncovered(shown).pixels[0] * 255
    np.testing.assert_allclose(colours[:, :, :2], np.broadcast_to(np.array([100, 150, 200])[:, None, None], (3, 4, 2)))
    np.testing.assert_allclose(  # its own colour, however faint
        colours[:, :, 6:], np.broadcast_to(np.array([40, 30, 20])[:, None, None], (3, 4, 2)), atol=1e-3
    )
    between = colours[:, :, 2:6].numpy()  # a mean of both, and no white or black
    assert (between >= np.array([40, 30, 20])[:, None, None] - 1e-3).all()
    assert (between <= np.array([100, 150, 200])[:, None, None] + 1e-3).all()
    torch.testing.assert_close(on_white(uncovered(shown).pixels, shown.alpha), shown.pixels)


@pytest.mark.parametrize("which", ["content", "style"])
def test_nothing_visible_is_refused(which, pair, tmp_path):
    Image.new("RGBA", (40, 40), (9, 9, 9, 0)).save(tmp_path / "x.png")
    pictures = {"content": pair[0], "style": pair[1], which: tmp_path / "x.png"}
    with pytest.raises(UserError, match=f"^data.{which}: must have a part that is visible, got"):
        StyleTransferData(**pictures, size=48).setup()


def test_the_visible_part_of_a_style_is_its_mask(cut_outs, pair):
    folder, _ = cut_outs
    data = StyleTransferData(pair[0], [folder / "black.png", pair[1]], size=48)
    masks = data.masks()
    np.testing.assert_array_equal(masks.styles[0].pixels[0, 0], DISC)
    assert masks.styles[1] is None
    Image.new("L", (48, 48), 255).save(folder / "all.png")
    asked = StyleTransferData(pair[0], Style(folder / "black.png", style_mask=folder / "all.png"), size=48)
    assert bool((asked.masks().styles[0].pixels == 1).all())  # a mask that is given counts instead
    assert StyleTransferData(pair[0], pair[1], size=48).masks() is None


def test_hidden_colours_do_not_show_and_no_white_is_painted(cut_outs, pair, use_tiny_weights, monkeypatch):
    folder, colours = cut_outs
    monkeypatch.chdir(folder)
    found = {}
    for name in ("black", "noise", "on_white"):
        command = ["fit", "--data.content", str(pair[0]), "--data.style", f"{name}.png", "--data.size", "48"]
        command += ["--model.evaluations", "25", "--model.strength", "30", "--trainer.accelerator", "cpu"]
        assert main([*command, "--trainer.precision", "32-true", "--output", f"out_{name}.png"]) == 0
        found[name] = read_image(f"out_{name}.png").pixels[0].mean((1, 2)).numpy() * 255
    np.testing.assert_array_equal(found["black"], found["noise"])
    mean = colours[DISC].mean(0)
    far = {name: np.abs(color - mean).mean() for name, color in found.items()}
    assert far["black"] < 0.6 * far["on_white"], far


@pytest.mark.parametrize("color", ["match", "histogram", "luminance"])
@pytest.mark.parametrize("as_mask", [False, True])
def test_colour_statistics_are_those_of_the_part_that_counts(color, as_mask, cut_outs, pair):
    folder, _ = cut_outs
    style = Style(folder / "on_white.png", style_mask=folder / "shape.png") if as_mask else folder / "noise.png"
    data = StyleTransferData(pair[0], style, size=48, color=color)
    images = data.stage_images()
    found, wanted = images.styles[0][0][0].numpy()[:, DISC], images.content[0].flatten(1).numpy()
    np.testing.assert_allclose(found.mean(1), wanted.mean(1), atol=0.02)
    np.testing.assert_allclose(found.std(1), wanted.std(1), atol=0.03)


@pytest.mark.parametrize("color", ["match", "histogram", "luminance", "recolor"])
def test_colour_statistics_of_a_content_are_those_of_what_is_visible(color, cut_outs, pair):
    folder, colours = cut_outs
    data = StyleTransferData(folder / "noise.png", pair[1], size=48, color=color)
    disc = colours[DISC] / 255
    if color == "recolor":
        image = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
        result = data.finished(image)[0].numpy()
        np.testing.assert_allclose(result[:, ~DISC], 1, atol=1e-6)  # as it is shown, on white
        np.testing.assert_allclose(result[:, DISC].mean(1), disc.mean(0), atol=0.01)
        np.testing.assert_allclose(np.cov(result[:, DISC]), np.cov(disc.T), atol=0.003)
        return
    style = data.stage_images().styles[0][0][0].flatten(1).numpy()
    wanted = disc @ [0.299, 0.587, 0.114] if color == "luminance" else disc
    np.testing.assert_allclose(style.mean(1), np.broadcast_to(wanted.mean(0), 3), atol=0.02)
    np.testing.assert_allclose(style.std(1), np.broadcast_to(wanted.std(0), 3), atol=0.02)


def test_what_is_not_visible_of_a_content_takes_no_part(cut_outs, pair, tiny_weights):
    """By hand: statistics over the visible cells, and content distances over them, relative as without transparency."""
    folder, _ = cut_outs
    data = StyleTransferData(folder / "noise.png", pair[1], size=48)
    images = data.stage_images()
    network = VGG19(str(tiny_weights)).double()
    network.set_compute_dtype(torch.float64)
    objective = Evaluator(Objective([Gram(["relu1_1"])]), network)
    content, style, image = images.content.double(), images.styles[0][0].double(), rand(1, 3, 48, 48, seed=1)
    objective.prepare(content, [(style, 1.0)], images.masks.to(content))
    features = {
        name: objective.extractor(x, ["relu1_1"])["relu1_1"]
        for name, x in (("content", content), ("style", style), ("image", image))
    }
    seen = torch.from_numpy(DISC)
    target = gram_matrix(features["style"])
    values = [
        gram_distance(gram_matrix(features[x][..., seen][:, :, None]), target, "balanced") for x in ("image", "content")
    ]
    torch.testing.assert_close(objective(image).parts[0], values[0] / values[1])


def test_a_cut_out_keeps_its_shape_and_its_strength(cut_outs, pair, use_tiny_weights, monkeypatch):
    folder, _ = cut_outs
    monkeypatch.chdir(folder)
    command = ["fit", "--data.content", "noise.png", "--data.style", str(pair[1]), "--data.size", "48"]
    command += ["--model.evaluations", "3", "--trainer.accelerator", "cpu", "--model.strength", "0"]
    assert main([*command, "--output", "out.png"]) == 0
    result, content = np.asarray(Image.open("out.png")), np.asarray(Image.open("noise.png"))
    np.testing.assert_array_equal(result[..., 3], content[..., 3])
    assert np.abs(result[DISC].astype(int) - content[DISC]).max() <= 1  # without a style the photograph stays
    assert main([*command, "--output", "out.jpg", "--quality", "100"]) == 0
    assert np.asarray(Image.open("out.jpg"))[:4].min() > 245  # JPEG has no alpha: on white


def test_terms_that_take_samples_take_them_where_the_style_counts():
    """As of a style that has no other cells."""
    content, image, style = (rand(1, 4, 12, 12, seed=seed) for seed in (1, 2, 3))
    weights = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    weights[..., :7, :5] = 0.8
    weights[..., :7, 5:6] = 0.3  # a soft edge, of which less than half counts
    part = style[..., :7, :5]
    for term in (NNFM, Histogram, SlicedWasserstein):
        values = []
        for features, counts in ((style, weights), (part, None)):
            values.append(Alone(term(["relu1_1"]), content, [(features, 1.0, counts)]).value(image))
        torch.testing.assert_close(*values)


def test_patches_lie_in_the_part_with_half_of_their_cells():
    style = torch.arange(8.0).view(1, 1, 1, 8).repeat(1, 1, 3, 1)
    weights = (style < 4).float()
    ((patches, _),) = Alone(NNFM(["relu1_1"], patches=3), style, [(style, 1.0, weights)]).target.styles
    assert len(patches) == 3  # around columns 1, 2 and 3, and no more
    torch.testing.assert_close(patches[1] / patches[1, 4], torch.tensor([1.0, 2.0, 3.0]).repeat(3) / 2)


def test_cells_that_stand_for_a_part():
    weights = torch.tensor([[0.0, 0.2, 0.4], [0.1, 0.19, 0.21]]).view(1, 1, 2, 3)
    assert counting(weights).tolist() == [[False, True, True], [False, False, True]]
    assert counting(weights, 2).tolist() == [[False, True, False], [False, False, True]]
    assert int(counting(torch.ones(1, 1, 30, 30), 100).sum()) == 100


def test_tiles_do_not_show_in_samples_of_a_part(tiny_weights):
    content, image = rand(1, 3, 96, 80), rand(1, 3, 96, 80, seed=1).requires_grad_()
    mask = (rand(1, 1, 70, 61, seed=5) > 0.3).double()
    styles = [(rand(1, 3, 70, 61, seed=2), 1.0)]
    masks = Masks([], [None], [Mask(mask, "part")], [None], None)
    found = []
    for tile in (None, 48):
        terms = [NNFM(["relu1_1", "relu3_1"], samples=200), Histogram(["relu2_1"], samples=500)]
        network = VGG19(str(tiny_weights)).double()
        network.set_compute_dtype(torch.float64)
        evaluate = Evaluator(Objective(terms), network, tile)
        evaluate.prepare(content, styles, masks)
        loss, parts = evaluate(image)
        found.append((parts, torch.autograd.grad(loss, image)[0]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=0)
    assert float((found[0][1] - found[1][1]).abs().max() / found[0][1].abs().max()) < 1e-9


@pytest.mark.parametrize("term", ["NNFM", "Histogram", "SlicedWasserstein", "MeanStd", "Wasserstein"])
def test_every_term_takes_a_cut_out(term, cut_outs, pair, use_tiny_weights, monkeypatch):
    folder, _ = cut_outs
    monkeypatch.chdir(folder)
    command = ["fit", "--data.content", str(pair[0]), "--data.style", "black.png", "--data.size", "48"]
    command += ["--model.evaluations", "2", "--trainer.accelerator", "cpu", "--model.terms", f"[Content, {term}]"]
    assert main(command) == 0


def test_a_start_with_holes_has_no_white_in_them(cut_outs, tmp_path):
    folder, _ = cut_outs
    cut_out = str(folder / "black.png")
    data = StyleTransferData(cut_out, cut_out, size=48, init=cut_out)
    data.setup("fit")
    start = data.start_image()
    torch.testing.assert_close(start, uncovered(read_image(cut_out)).pixels)
    assert start[..., 0, 0].min() < 0.5  # the disc's colours, carried on
