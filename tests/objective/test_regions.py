"""Regions: where styles and content count."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import torch
from helpers import rand
from PIL import Image
from terms import Alone

from nst_lightning import Style, StyleTransfer, StyleTransferData
from nst_lightning.cli import main
from nst_lightning.data.mask_files import read_mask
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.images import read_image
from nst_lightning.losses import (
    NNFM,
    Content,
    CosineContent,
    Covariance,
    Gram,
    Histogram,
    MattingLaplacian,
    MeanStd,
    SelfSimilarity,
    StyleTerm,
    Tones,
    Wasserstein,
)
from nst_lightning.losses.gram import gram_distance, gram_matrix
from nst_lightning.losses.pixels import Pixels
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective
from nst_lightning.objective.targets import Weights

TERMS = [Gram, Covariance, MeanStd, Wasserstein]


def double(weights):
    """A small network in double precision."""
    network = VGG19(str(weights)).double()
    network.set_compute_dtype(torch.float64)
    return network


def halves(height, width, soft=0):
    """Left and right, with a ramp of so many pixels between."""
    position = torch.arange(width, dtype=torch.float64) - width / 2 + 0.5
    right = ((position / soft).clamp(-0.5, 0.5) + 0.5 if soft else (position > 0).double()).expand(1, 1, height, width)
    return Mask(1 - right, "left"), Mask(right, "right")


@pytest.mark.parametrize("kind", TERMS)
def test_a_weight_is_how_often_a_cell_counts(kind):
    """Against a map in which each cell is repeated so many times."""
    content, image, style = (rand(1, 4, 3, 5, seed=seed) for seed in (1, 2, 3))
    weights = torch.tensor([[2, 0, 1, 1, 3], [1, 1, 0, 2, 1], [0, 1, 1, 1, 4]]).double().view(1, 1, 3, 5)

    def repeated(features):
        return features.flatten(2).repeat_interleave(weights.flatten().long(), dim=2)[:, :, None]

    weighted = Alone(kind(["relu1_1"]), content, [(style, 1.0, weights)], weights=weights)
    plain = Alone(kind(["relu1_1"]), repeated(content), [(repeated(style), 1.0)])
    expected = plain.value(repeated(image))
    torch.testing.assert_close(weighted.value(image), expected, rtol=1e-9, atol=1e-12)


def test_masked_content_by_hand():
    """Differences of 1 and 3 over energy 8, the second one weighted by a quarter: (1 + 9 / 4) / 8."""
    weights = torch.tensor([1.0, 0.25]).double().view(1, 1, 1, 2)
    content = torch.tensor([2.0, 2.0]).double().view(1, 1, 1, 2)
    term = Alone(Content(["relu4_2"]), content, [], weights=weights)
    assert float(term.value(content + torch.tensor([1.0, 3.0]))) == pytest.approx(3.25 / 8)


def test_each_region_has_its_own_style(tiny_weights):
    """The parts are those of Gram matrices of each half's features, by hand."""
    evaluate = Evaluator(Objective([Content(), Gram(["relu2_1"])], regions=2), double(tiny_weights))
    content, image = rand(1, 3, 32, 48), rand(1, 3, 32, 48, seed=1)
    styles = [rand(1, 3, 40, 40, seed=2), rand(1, 3, 36, 50, seed=3)]
    masks = Masks(halves(32, 48), [0, 1], [None, None], [None, None], None)
    evaluate.prepare(content, [(style, 1.0) for style in styles], masks)
    assert evaluate.objective.part_names == ["content.relu4_2", "gram_region1.relu2_1", "gram_region2.relu2_1"]
    found = evaluate(image).parts
    features = {
        name: evaluate.extractor(x, ["relu2_1"])["relu2_1"]
        for name, x in (("content", content), ("image", image), (0, styles[0]), (1, styles[1]))
    }
    for region, columns in enumerate((slice(0, 12), slice(12, 24))):
        target = gram_matrix(features[region])
        values = [
            gram_distance(gram_matrix(features[x][..., columns]), target, "balanced") for x in ("image", "content")
        ]
        torch.testing.assert_close(found[1 + region], 0.5 * values[0] / values[1])


def test_a_part_of_a_style_is_that_part_alone(tiny_weights):
    objective = Evaluator(Objective([Gram(["relu1_1"])]), double(tiny_weights))
    style = rand(1, 3, 20, 40, seed=2)
    targets = objective.prepare(
        rand(1, 3, 16, 16), [(style, 1.0)], Masks([], [None], [halves(20, 40)[0]], [None], None)
    )
    features = objective.extractor(style, ["relu1_1"])["relu1_1"]
    torch.testing.assert_close(targets.of_layers[0, "relu1_1"][0], gram_matrix(features[..., :20]))


@pytest.mark.parametrize("keep", [0, 2])
def test_tiles_do_not_show_in_regions(tiny_weights, keep):
    content, image = rand(1, 3, 130, 101), rand(1, 3, 130, 101, seed=1).requires_grad_()
    styles = [(rand(1, 3, 61, 45, seed=2), 1.0), (rand(1, 3, 33, 70, seed=3), 0.3), (rand(1, 3, 50, 50, seed=4), 0.7)]
    of_styles, layers = [halves(61, 45)[0], None, None], [None, ["relu1_1"], None]
    masks = Masks(halves(130, 101, soft=30), [0, 1, 1], of_styles, layers, halves(130, 101, soft=60)[1])
    found = []
    for tile in (None, 48):
        terms = [Content(["relu3_1"]), *(kind(["relu1_1", "conv3_2"], 0.3) for kind in [*TERMS, Histogram])]
        terms.append(Histogram(["image"], 0.3))
        evaluate = Evaluator(Objective(terms, regions=2), double(tiny_weights), tile, keep)
        evaluate.prepare(content, styles, masks)
        loss, parts = evaluate(image)
        found.append((loss.detach(), parts, torch.autograd.grad(loss, image)[0]))
    (loss, parts, gradient), (tiled_loss, tiled_parts, tiled_gradient) = found
    torch.testing.assert_close(tiled_loss, loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(tiled_parts, parts, rtol=1e-9, atol=1e-10)
    assert float((tiled_gradient - gradient).abs().max() / gradient.abs().max()) < 1e-10


@pytest.mark.parametrize("tile", [None, 32])
def test_fine_and_coarse_styles(tiny_weights, tile):
    """Each layer's target is that of the style that counts there."""
    fine, coarse = rand(1, 3, 40, 40, seed=2), rand(1, 3, 36, 50, seed=3)
    masks = Masks([], [None, None], [None, None], [["relu1_1"], ["relu3_1"]], None)

    def targets(styles, masks=None):
        terms = [Gram(["relu1_1", "relu3_1"]), NNFM(["relu1_1", "relu3_1"])]
        evaluate = Evaluator(Objective(terms), double(tiny_weights), tile)
        found = evaluate.prepare(rand(1, 3, 48, 48), styles, masks).of_layers
        return {(terms[index].name, layer): target for (index, layer), target in found.items()}

    both = targets([(fine, 0.5), (coarse, 0.5)], masks)
    for layer, style in (("relu1_1", fine), ("relu3_1", coarse)):
        alone = targets([(style, 1.0)])
        torch.testing.assert_close(both["gram", layer][0], alone["gram", layer][0])
        ((cells, share),), ((expected, _),) = both["nnfm", layer].styles, alone["nnfm", layer].styles
        assert share == 1
        torch.testing.assert_close(cells, expected)


@pytest.mark.parametrize(
    ("floor", "light", "dark"),
    [(0.3, 1 / 0.475, 0.3 / 0.475), (0.0, 2.0, 0.0), (1.0, 1.0, 1.0), (0.6, 1 / 0.7, 0.6 / 0.7)],
)
def test_what_a_mask_takes_in_the_dark_it_gives_in_the_light(tiny_weights, floor, light, dark):
    """A quarter of the picture is white. Weights average 1, but white never counts more than twice."""
    light, dark = (x * min(1, 2 / light) for x in (light, dark))
    mask = torch.zeros(1, 1, 32, 64, dtype=torch.float64)
    mask[..., :16] = 1
    content = rand(1, 3, 32, 64)
    values = {}
    for name in ("light", "dark"):
        image = content.clone()  # changed in one part alone, away from the border
        columns = slice(0, 4) if name == "light" else slice(48, 52)
        image[..., columns] = rand(1, 3, 32, 4, seed=7)
        for masked in (True, False):
            objective = Evaluator(Objective([Content(["relu1_1"])]), double(tiny_weights))
            masks = Masks([], [None], [None], [None], Mask(mask, "face"), floor) if masked else None
            objective.prepare(content, [(content, 1.0)], masks)
            values[name, masked] = float(objective(image).loss)
    assert values["light", True] == pytest.approx(light * values["light", False])
    assert values["dark", True] == pytest.approx(dark * values["dark", False], abs=1e-12)


def test_a_white_mask_changes_nothing_and_a_region_keeps_its_share(tiny_weights):
    white = Mask(torch.ones(1, 1, 32, 32, dtype=torch.float64), "white")
    objective = Evaluator(Objective([Content(["relu1_1"]), Gram(["relu1_1"])]), double(tiny_weights))
    content, style, image = rand(1, 3, 32, 32), [(rand(1, 3, 32, 32, seed=1), 1.0)], rand(1, 3, 32, 32, seed=2)
    objective.prepare(content, style)
    plain = objective(image).parts
    objective.prepare(content, style, Masks([], [None], [None], [None], white, 0.3, white))
    torch.testing.assert_close(objective(image).parts, plain)
    left, right = halves(32, 32)
    divided = objective.objective.divided(2)
    seen = Mask(left.pixels + 0 * right.pixels, "seen")
    within = [Mask(left.pixels, "left"), Mask(0.5 * left.pixels, "half")]
    masks = Masks(within, [0, 1], [None] * 2, [None] * 2, None, visible=seen)
    areas = Weights.of(divided, masks, VGG19.strides).factors
    assert [area for area, part in zip(areas, divided.parts, strict=True) if part.region is not None] == [1.0, 0.5]


def test_division_is_undone():
    objective = Objective([Content(), Gram()])
    divided = objective.divided(3)
    assert len(divided.parts) == 4
    assert len(objective.parts) == 2
    assert divided.divided(0).part_names == objective.part_names


@pytest.fixture
def files(tmp_path, pair):
    """Masks of the content's shape (48x36), of another one, and an empty one."""
    left = np.zeros((36, 48), np.uint8)
    left[:, :24] = 255
    pictures = {"left": left, "right": 255 - left, "wide": np.full((20, 60), 255, np.uint8), "none": 0 * left}
    small = 0 * left
    small[0, 0] = 255
    pictures["dot"] = small
    for name, array in pictures.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    return tmp_path


DISC = (np.hypot(*np.mgrid[-18:18, -24:24]) < 12).astype(np.uint8)
RED = np.array([200, 10, 10], np.uint8)
PHOTO = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
RAMP = np.broadcast_to(np.linspace(0, 255, 48).round().astype(np.uint8), (36, 48))


def _png(path, array):
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(RAMP, RAMP / 255, id="greys as they are"),
        pytest.param(RAMP.astype(np.uint16) * 257, RAMP / 255, id="16 bits"),
        pytest.param(DISC * np.uint8(255), DISC, id="0 and 255"),
        pytest.param(DISC, DISC, id="labels 0 and 1"),
        pytest.param(DISC.astype(np.uint16), DISC, id="16-bit labels 0 and 1"),
        pytest.param(np.ones_like(DISC), np.ones((36, 48)), id="label 1 everywhere"),
        pytest.param(np.repeat(DISC[..., None], 3, 2), DISC, id="RGB labels"),
        pytest.param(DISC[..., None] * RED, DISC, id="one colour on black"),
        pytest.param(np.dstack([np.full_like(DISC, 255), DISC * 255]), DISC, id="white shape on transparency"),
        pytest.param(np.dstack([np.full_like(DISC, 255), RAMP]), RAMP / 255, id="white with soft alpha"),
        pytest.param(np.dstack([np.full_like(DISC, 128), DISC * 255]), DISC * 128 / 255, id="grey shape, as grey"),
        pytest.param(np.dstack([RAMP, DISC * 255]), DISC * RAMP / 255, id="gradient on transparency"),
        pytest.param(np.dstack([RAMP] * 3 + [DISC * 255]), DISC * RAMP / 255, id="the same as RGBA"),
        pytest.param(np.dstack([DISC * 255, np.full_like(DISC, 255)]), DISC, id="opaque alpha"),
        pytest.param(np.dstack([PHOTO, RAMP]), RAMP / 255, id="cut-out of a photograph"),
        pytest.param(np.dstack([PHOTO * DISC[..., None], DISC * 255]), DISC, id="cut-out, hidden black"),
        pytest.param(np.dstack([np.broadcast_to(RED, (36, 48, 3)), DISC * 255]), DISC, id="red shape"),
        pytest.param(np.dstack([np.ones_like(DISC), DISC * 255]), DISC, id="labels and alpha"),
    ],
)
def test_a_mask_is_grey_times_alpha(array, expected, tmp_path):
    _png(tmp_path / "m.png", array)
    np.testing.assert_allclose(read_mask(tmp_path / "m.png")[0, 0], expected, atol=1e-5)


def test_masks_of_other_modes(tmp_path):
    Image.fromarray(DISC.astype(bool)).save(tmp_path / "bool.png")
    Image.fromarray(DISC.astype(np.float32)).save(tmp_path / "float.tif")
    palettes = {"plain": [], "voc": [0, 0, 0, 128, 0, 0], "white": [0, 0, 0, 255, 255, 255]}
    for name, palette in palettes.items():
        image = Image.fromarray(DISC)
        if palette:
            image.putpalette(palette)
        image.save(tmp_path / f"{name}.png")
    for name in ("bool.png", "float.tif", "plain.png", "voc.png", "white.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name)[0, 0], DISC, err_msg=name)


def test_masks_are_not_colour_managed(tmp_path):
    """50 % grey stays 50 %, whatever its profile; with Dot Gain 20 % it would be 0.586 as a colour."""
    profile = imagecodecs.cms_profile("gray", whitepoint=(0.3457, 0.3585, 1.0), gamma=1.75)
    Image.fromarray(RAMP).save(tmp_path / "m.png", icc_profile=profile)
    assert abs(read_image(tmp_path / "m.png").pixels[0, 0].numpy() - RAMP / 255).max() > 0.05
    np.testing.assert_allclose(read_mask(tmp_path / "m.png")[0, 0], RAMP / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "expected", "words"),
    [
        (
            np.dstack([np.zeros_like(DISC), DISC * 255]),
            DISC,
            "data.x: a black shape on a transparent ground; the shape",
        ),
        (DISC * np.uint8(100), DISC * 100 / 255, "data.x: its brightest part counts 39%"),
        (PHOTO, PHOTO / 255 @ [0.299, 0.587, 0.114], "data.x: is in colours, which count as bright as they are"),
    ],
)
def test_what_a_mask_may_not_have_meant_is_said(array, expected, words, tmp_path):
    _png(tmp_path / "m.png", array)
    with pytest.warns(UserNotice, match=words):
        mask = read_mask(tmp_path / "m.png", "data.x")
    np.testing.assert_allclose(mask[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_several_labels_are_refused(kind, tmp_path):
    _png(tmp_path / "m.png", (RAMP // 86).astype(kind))  # 0, 1, 2
    with pytest.raises(UserError, match=r"^data.x: must be white where it counts, .* make a mask of each label"):
        read_mask(tmp_path / "m.png", "data.x")


@pytest.mark.parametrize("labels", [(0, 1, 255), (0, 1, 15, 255), (3, 255)])
def test_labels_with_a_void_are_refused(labels, tmp_path):
    """In Pascal VOC's and Cityscapes' label files 255 is what was not labelled, no white."""
    _png(tmp_path / "m.png", np.array(labels, np.uint8)[RAMP // (255 // len(labels) + 1)])
    with pytest.raises(
        UserError, match=rf"^data.x: must be black and white, got the values {', '.join(map(str, labels))}"
    ):
        read_mask(tmp_path / "m.png", "data.x")


@pytest.mark.parametrize("grey", [0, 32, 128, 254])
def test_a_few_greys_beside_white_are_a_mask(grey, tmp_path):
    array = np.where(RAMP < 80, 0, np.where(RAMP < 160, grey, 255)).astype(np.uint8)
    _png(tmp_path / "m.png", array)
    np.testing.assert_allclose(read_mask(tmp_path / "m.png")[0, 0], array / 255, atol=1e-6)


def test_nothing_visible_is_nothing(tmp_path):
    _png(tmp_path / "m.png", np.dstack([np.full_like(DISC, 255), DISC * 0]))
    assert not read_mask(tmp_path / "m.png").any()


def test_masks_of_a_stage(files, pair):
    style = str(pair[1])
    styles = [Style(style, mask=str(files / "left.png")), Style(style, weight=1.0), Style(style, weight=3.0)]
    data = StyleTransferData(str(pair[0]), styles, size=24, content_mask=str(files / "right.png"))
    images = data.stage_images()
    masks = images.masks
    assert data.request.regions == 2
    assert masks.region_of == [0, 1, 1]
    assert [share for _, share in images.styles] == [1.0, 0.25, 0.75]
    torch.testing.assert_close(masks.regions[0].pixels + masks.regions[1].pixels, torch.ones(1, 1, 18, 24))
    torch.testing.assert_close(masks.regions[1].pixels, masks.content.pixels, rtol=0, atol=1e-2)
    assert masks.regions[0].pixels[0, 0, :, :10].min() > 0.99
    assert StyleTransferData(str(pair[0]), style, size=24).masks() is None


def test_two_styles_in_one_picture(files, pair, monkeypatch, use_tiny_weights, tmp_path):
    """Each half comes nearer to its own style than the other half does."""
    monkeypatch.chdir(tmp_path)
    light, dark = rand(40, 40, 3).numpy() ** 0.3, rand(40, 40, 3, seed=1).numpy() ** 4
    for name, array in (("light", light), ("dark", dark)):
        Image.fromarray((array * 255).astype(np.uint8)).save(f"{name}.png")
    styles = "[{path: light.png, mask: left.png}, {path: dark.png, mask: right.png}]"
    command = ["fit", "--data.content", str(pair[0]), "--data.style", styles, "--data.size", "48"]
    command += ["--model.evaluations", "40", "--trainer.accelerator", "cpu", "--output", "out.png"]
    assert main(command) == 0
    result = read_image("out.png").pixels
    assert float(result[..., :20].mean()) > float(result[..., 28:].mean()) + 0.2
    header = next(tmp_path.glob("runs/*/metrics.csv")).read_text().splitlines()[0]
    assert "gram_region2.relu3_1" in header
    assert main(["fit", "--ckpt_path", "last", "--model.evaluations", "42", "--trainer.accelerator", "cpu"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.style", "[{path: STYLE, mask: wide.png}]"], "data.style[0].mask: must have the shape of the content"),
        (["--data.style", "[{path: STYLE, style_mask: wide.png}]"], "style_mask: must have the shape of the style"),
        (["--data.style", "[{path: STYLE, mask: none.png}]"], "mask 'none.png': must leave a cell of layer relu1_1"),
        (["--data.style", "[{path: STYLE, mask: dot.png}]"], "mask 'dot.png': must leave a cell of layer relu5_1"),
        (["--data.style", "[{path: STYLE, mask: gone.png}]"], "data.style[0].mask: needs an existing picture, got"),
        (["--data.style", "[{mask: left.png}]"], "path"),
        (["--data.style", "[{path: STYLE, weight: 0}]"], "data.style: the weights must not all be 0"),
        (["--data.style", "[{path: STYLE, mask: left.png, weight: 0}, STYLE]"], "in the region of 'left.png'"),
        (["--data.style", "[{path: STYLE, layers: [relu1_1]}]"], "for layer relu2_1 of the term gram, got none"),
        (["--data.style", "[{path: STYLE, layers: [relu1_1]}, {path: STYLE, weight: 0}]"], "relu2_1 of the term gram"),
        (["--data.style", "[{path: STYLE, layers: [relu9]}, STYLE]"], "data.style: no layer 'relu9'"),
        (["--data.style", "STYLE", "--data.content_mask", "none.png"], "content_mask: 'none.png': must leave a cell"),
        (
            ["--data.style", "[{path: STYLE, mask: left.png}]", "--model.terms", "[NNFM]"],
            "data.style: must have no mask with the term nnfm",
        ),
        (["--data.style", "[{path: STYLE, mask: left.png}]", "--output", "left.png"], "output: must not be a picture"),
        (
            ["--data.style", "STYLE", "--data.size", "16", "--data.side", "short", "--model.terms", "[Wasserstein]"],
            "must have two cells or more at layer relu5_1 for the term wasserstein, got one",
        ),
    ],
)  # fmt: skip
def test_bad_masks_get_one_line(options, message, files, pair, monkeypatch, use_tiny_weights, capsys):
    monkeypatch.chdir(files)
    options = [option.replace("STYLE", str(pair[1])) for option in options]
    assert (
        main(["fit", "--data.content", str(pair[0]), "--data.size", "48", "--trainer.accelerator", "cpu", *options])
        == 2
    )
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (files / "runs").exists()


def test_only_sums_over_cells_have_regions(tiny_weights):
    others = "Gram, Covariance, MeanStd, Wasserstein, Histogram, RelaxedEMD, NearestNeighbour or Palette"
    with pytest.raises(UserError, match=f"take {others}"):
        Objective([NNFM()], regions=1)
    model = StyleTransfer(extractor=VGG19(str(tiny_weights)))
    assert [part.region for part in model.objective.parts] == [None, None]


def repeated_squares():
    """A content and another picture of nine squares that are alike."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(1, 3, 32, 32, generator=generator).repeat(1, 1, 3, 3) for _ in range(2))


@pytest.mark.parametrize(("floor", "left"), [(0.0, 2 / 9), (0.3, (8 * 0.3 + 1) / 9 * 2)])
def test_all_content_terms_lose_alike_where_the_mask_is_dark(floor, left):
    """By what a mask leaves, twice where the content gains what it can; whether a term sums or takes means."""
    content, image = repeated_squares()
    terms = [Content(["relu2_1"]), CosineContent(["relu2_1"]), SelfSimilarity(["relu2_1"]), Tones(), Pixels()]
    terms.append(MattingLaplacian(radius=0.02))
    evaluator = Evaluator(Objective(terms), CompactVGG19("narrow"))
    one = torch.zeros(1, 1, 96, 96)
    one[..., :32, :32] = 1
    left = min(left, 1.0)

    def parts(masks):
        evaluator.prepare(content, [], masks)
        return evaluator(image).parts

    plain = parts(None)
    of_mask = parts(Masks([], [], [], [], Mask(one, "m"), floor)) / plain
    torch.testing.assert_close(of_mask, torch.full_like(of_mask, left), atol=0.1 * left, rtol=0)
    cut_out = parts(Masks([], [], [], [], Mask(one, "v"), 0.3, Mask(one, "v"))) / plain
    torch.testing.assert_close(cut_out, torch.ones_like(cut_out), atol=0.15, rtol=0)


class Means(StyleTerm):
    """A term of one's own that knows no masks."""

    weighs_cells = weighs_styles = False

    def measure(self, layer, features, window, target):
        return features.sum((0, 2, 3))

    def distance(self, layer, mean, target):
        return (mean - target).square().sum()


def test_terms_that_weigh_no_cells_do_not_know_of_transparency():
    content, style = (torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    half = torch.zeros(1, 1, 24, 24)
    half[..., :12] = 1
    masks = Masks([], [None], [None], [None], Mask(half, "v"), 0.3, Mask(half, "v", asked=False))
    evaluator = Evaluator(Objective([Means(["image"])]), CompactVGG19("narrow"))
    evaluator.prepare(content, [(style, 1.0)], masks)
    assert float(evaluator(content).loss) == pytest.approx(1.0)
    assert float(evaluator(style).loss) == pytest.approx(0.0, abs=1e-6)
