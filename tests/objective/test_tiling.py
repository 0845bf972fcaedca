"""Tiles: the same loss and gradient as of the whole image."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from helpers import rand_image
from hypothesis import given, settings
from hypothesis import strategies as st

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19, Extractor
from nst_lightning.features.convolutions import CONVOLUTION_NAMES, LAST_OF_BLOCK
from nst_lightning.losses import (
    NNFM,
    Content,
    CosineContent,
    Covariance,
    Grain,
    Gram,
    Histogram,
    MeanStd,
    NearestNeighbour,
    Palette,
    RelaxedEMD,
    SelfSimilarity,
    SlicedWasserstein,
    StyleTerm,
    Term,
    TotalVariation,
    Wasserstein,
    WholeMap,
    at_least_float32,
)
from nst_lightning.losses.grid import make_grid
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.objective.traversal import Core, Traversal


def terms():
    """Every kind of term: statistics and sums over cells in all normalisations, and one of the image itself."""
    return [
        *(Content({"relu4_2": 1.0, "conv3_1": 0.3}, 0.5, kind) for kind in ("balanced", "released", "paper")),
        CosineContent({"relu5_1": 1.0, "relu4_2": 1.0, "conv3_1": 0.3}, 0.5, everywhere=["relu5_1"]),
        SelfSimilarity(["relu2_1", "conv3_1"], 0.5, samples=80),
        SelfSimilarity(["relu2_1"], 0.5, samples=80, apart=0.1, structure=2.0),
        *(Gram(["relu1_1", "conv2_2", "relu5_1"], 0.7, kind) for kind in ("balanced", "released", "paper")),
        *(kind(["relu1_1", "conv2_2", "relu5_1"], 0.3) for kind in (Covariance, MeanStd, Wasserstein)),
        Histogram(["relu1_1", "conv2_2"], 0.3, samples=700),
        NNFM(["relu2_1", "conv3_1"], 0.3, samples=90),
        RelaxedEMD(["relu2_1", "conv3_1"], 0.3, samples=90),
        Palette(0.3, samples=200),
        Grain(0.3),
        NearestNeighbour(["relu2_1", "conv3_1"], 0.3, samples=90),
        TotalVariation(0.2),
    ]


rand = partial(rand_image, dtype=torch.float64)


def both(tiny_weights, size, tile, keep=0, terms=terms, dtype=torch.float64, **options):
    """Loss parts and gradient, of the whole and of the tiled objective."""
    content, image = rand(*size).to(dtype), rand(*size, seed=1).to(dtype).requires_grad_()
    styles = [(rand(61, 45, seed=2).to(dtype), 0.25), (rand(33, 70, seed=3).to(dtype), 0.75)]
    found = []
    for tiled in (False, True):
        network = VGG19(str(tiny_weights), **options).to(dtype)
        network.set_compute_dtype(dtype)
        objective = Objective(terms(), strength=1.5)
        if network.unit_activations:
            walk = Traversal(objective, network, tile if tiled else None).walk
            network = network.rescaled([content, *(style for style, _ in styles)], walk)
        evaluate = Evaluator(objective, network, tile if tiled else None, keep)
        evaluate.prepare(content, styles)
        loss, parts = evaluate(image)
        (gradient,) = torch.autograd.grad(loss, image)
        found.append((loss.detach(), parts, gradient))
    return found


def assert_equal(found, tolerance=1e-10):
    (loss, parts, gradient), (tiled_loss, tiled_parts, tiled_gradient) = found
    torch.testing.assert_close(tiled_loss, loss, rtol=tolerance, atol=0)
    torch.testing.assert_close(tiled_parts, parts, rtol=tolerance, atol=tolerance * float(parts.abs().max()))
    assert float((tiled_gradient - gradient).norm() / gradient.norm()) < tolerance
    assert float((tiled_gradient - gradient).abs().max() / gradient.abs().max()) < tolerance


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_equal_to_the_whole_for_every_term_pooling_and_padding(tiny_weights, pooling, padding):
    assert_equal(both(tiny_weights, (203, 157), 48, pooling=pooling, padding=padding))


@pytest.mark.parametrize("size", [(37, 203), (203, 37), (16, 300), (301, 16), (64, 64), (65, 79)])
@pytest.mark.parametrize("tile", [16, 64, 1000])
def test_single_rows_and_columns_and_sizes_that_are_no_multiples(tiny_weights, size, tile):
    assert_equal(both(tiny_weights, size, tile))


@pytest.mark.parametrize("keep", [1, 2, 100])
def test_tiles_kept_in_memory_change_nothing(tiny_weights, keep):
    assert_equal(both(tiny_weights, (130, 90), 48, keep))


def test_unit_activations_and_other_algorithms(tiny_weights):
    assert_equal(both(tiny_weights, (130, 90), 48, unit_activations=True))
    assert_equal(both(tiny_weights, (130, 90), 48, convolution="winograd"), 1e-9)


LAYERS = sorted(VGG19.strides)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(16, 190),
    width=st.integers(16, 190),
    tile=st.integers(1, 12).map(lambda n: 16 * n),
    layers=st.sets(st.sampled_from(LAYERS), min_size=1, max_size=4),
    keep=st.integers(0, 2),
)
def test_any_size_tile_and_layers(tiny_weights, height, width, tile, layers, keep):
    def some():
        return [Content(sorted(layers)), Gram(sorted(layers))]

    assert_equal(both(tiny_weights, (height, width), tile, keep, some))


@pytest.mark.parametrize("size", [(1, 1), (100, 37), (512, 1000), (1030, 77)])
@pytest.mark.parametrize("tile", [16, 64, 512])
@pytest.mark.parametrize("shares", [1, 2, 3, 4])
def test_cores_cover_each_pixel_once(size, tile, shares):
    tiles = make_grid(size, tile, 80, 16, shares)
    count = np.zeros(size, int)
    for t in tiles:
        count[t.core.slices] += 1
        assert t.core.top % 16 == t.core.left % 16 == 0
        assert t.core.bottom - t.core.top < tile + 16
        assert t.core.right - t.core.left < tile + 16
        for edge, core, limit in ((t.crop.top, t.core.top, 0), (t.crop.bottom, t.core.bottom, size[0])):
            assert edge == limit or abs(edge - core) == 80
    assert (count == 1).all()
    if min(size) >= 16 * shares:
        assert len(tiles) >= shares
        assert tile == 16 or len(tiles) % shares == 0 or tiles == make_grid(size, tile, 80, 16)


def test_halo_is_what_the_network_sees():
    """By brute force: which pixels one position depends on, in a network of one channel with positive weights."""
    expected = {"conv1_1": 1, "relu2_1": 4, "relu3_1": 10, "relu4_1": 30, "relu4_2": 38, "relu5_1": 70, "relu5_4": 118}
    grown = {"conv1_1": 1, "relu2_1": 4, "relu3_1": 12, "relu4_1": 32, "relu4_2": 40, "relu5_1": 80, "relu5_4": 128}
    image = torch.ones(1, 1, 512, 512, dtype=torch.float64, requires_grad=True)
    x, stride, reach = image, 1, {}
    for name in CONVOLUTION_NAMES:
        x = torch.nn.functional.conv2d(x, torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64), padding=1)
        middle = x.shape[-1] // 2
        (gradient,) = torch.autograd.grad(x[0, 0, middle, middle], image, retain_graph=True)
        touched = gradient[0, 0].any(0).nonzero()
        reach[name] = max(middle * stride - int(touched[0]), int(touched[-1]) - (middle + 1) * stride + 1)
        if name in LAST_OF_BLOCK:
            x, stride = torch.nn.functional.avg_pool2d(x, 2), 2 * stride
    for layer, pixels in expected.items():
        assert reach[layer.replace("relu", "conv")] == pixels
        # Zero padding inside a crop spoils whole cells, so it needs a little more than the receptive field.
        assert VGG19.halo(None, [layer]) == grown[layer] >= pixels


def test_half_a_halo_is_too_little(tiny_weights):
    network = VGG19(str(tiny_weights)).double()
    network.set_compute_dtype(torch.float64)
    content, image = rand(160, 160), rand(160, 160, seed=1)
    tiled = Evaluator(Objective(default_terms()), network, 48)
    tiled.prepare(content, [(content, 1.0)])
    exact = tiled(image).loss
    tiled.traversal.halo = 32
    assert abs(float(tiled(image).loss / exact) - 1) > 1e-6


def test_no_seams_in_single_precision(tiny_weights):
    """Errors of the gradient on the tiles' borders are no larger than elsewhere."""
    (_, _, gradient), _ = both(tiny_weights, (192, 192), 48)
    _, (_, _, tiled) = both(tiny_weights, (192, 192), 48, dtype=torch.float32)
    error = (tiled - gradient).abs().amax(1)[0]
    border = torch.zeros(192, 192, dtype=torch.bool)
    for cut in (48, 96, 144):
        border[cut - 1 : cut + 1] = border[:, cut - 1 : cut + 1] = True
    assert float(error.max() / gradient.abs().max()) < 1e-2  # content targets of tiles are kept in bfloat16
    assert float(error[border].mean()) < 1.2 * float(error[~border].mean())


def test_no_seams_in_bfloat16(tiny_weights):
    """The same with the network in bfloat16, whose errors are much larger, against the whole image in bfloat16."""
    network = VGG19(str(tiny_weights))
    gradients = {}
    content, image, style = rand(192, 192).float(), rand(192, 192, seed=1).float(), rand(90, 70, seed=2).float()
    half = torch.bfloat16
    for name, kind, tile in (("exact", torch.float32, None), ("whole", half, None), ("tiled", half, 48)):
        network.set_compute_dtype(kind)
        evaluate = Evaluator(Objective(terms()), network, tile)
        evaluate.prepare(content, [(style, 1.0)])
        image = image.detach().clone().requires_grad_()
        evaluate(image).loss.backward()
        gradients[name] = image.grad.double()
    errors = {name: (gradients[name] - gradients["exact"]).abs().amax(1)[0] for name in ("whole", "tiled")}
    border = torch.zeros(192, 192, dtype=torch.bool)
    for cut in (48, 96, 144):
        border[cut - 1 : cut + 1] = border[:, cut - 1 : cut + 1] = True
    assert float(errors["tiled"].mean()) < 1.2 * float(errors["whole"].mean())
    assert float(errors["tiled"][border].mean()) < 1.2 * float(errors["tiled"][~border].mean())


@pytest.mark.parametrize("tile", [None, 48])
@pytest.mark.parametrize("term", [Gram, Wasserstein])
def test_autocast_is_ignored(tiny_weights, tile, term):
    """Lightning evaluates within autocast under bf16-mixed; statistics and distances stay in single precision."""
    evaluate = Evaluator(Objective([Content(weight=0.5), term()]), VGG19(str(tiny_weights)), tile)
    content, image, style = rand(96, 128).float(), rand(96, 128, seed=1).float(), rand(90, 70, seed=2).float()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            evaluate.prepare(content, [(style, 1.0)])
            leaf = image.clone().requires_grad_()
            evaluation = evaluate(leaf)
        evaluation.loss.backward()
        found.append((evaluation.parts, leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_bits_depend_neither_on_threads_nor_on_the_order_of_tiles(kind, monkeypatch):
    content, image, style = rand(136, 150).float(), rand(136, 150, seed=1).float(), rand(120, 110, seed=2).float()

    def gradient(threads, reverse):
        torch.set_num_threads(threads)
        network = CompactVGG19()
        network.set_compute_dtype(kind)
        layers = ["relu1_1", "relu3_1", "relu4_1"]
        kinds = [*default_terms(), *(kind(layers) for kind in (Covariance, MeanStd, Wasserstein)), TotalVariation(0.2)]
        objective = Evaluator(Objective(kinds), network, 64)
        if reverse:
            tiles = objective.traversal.tiles
            monkeypatch.setattr(objective.traversal, "tiles", lambda *given: tiles(*given)[::-1])
        objective.prepare(content, [(style, 1.0)])
        leaf = image.clone().requires_grad_()
        objective(leaf).loss.backward()
        return leaf.grad

    before = torch.get_num_threads()
    try:
        one, two, turned = gradient(1, False), gradient(2, False), gradient(2, True)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)
    assert torch.equal(one, turned)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_of_a_core_lies_as_its_features_do(layout):
    features = torch.rand(1, 3, 7, 8).contiguous(memory_format=layout).requires_grad_()
    rows, columns = slice(2, 5), slice(1, 8)
    upstream = torch.rand(1, 3, 3, 7).contiguous(memory_format=layout)
    (expected,) = torch.autograd.grad(features[..., rows, columns], features, upstream)
    (ours,) = torch.autograd.grad(Core.apply(features, (rows, columns)), features, upstream)
    assert torch.equal(ours, expected)
    assert ours.is_contiguous(memory_format=layout)


def test_no_gradient_no_graph(tiny_weights):
    tiled = Evaluator(Objective(terms()), VGG19(str(tiny_weights)), 32)
    content = rand(64, 80).float()
    tiled.prepare(content, [(content, 1.0)])
    image = rand(64, 80, seed=1).float().requires_grad_()
    with torch.no_grad():
        loss, parts = tiled(image)
    assert not loss.requires_grad
    torch.testing.assert_close(tiled(image).parts, parts)


def test_upstream_gradient_is_heeded(tiny_weights):
    found = both(tiny_weights, (64, 80), 32)
    network = VGG19(str(tiny_weights)).double()
    network.set_compute_dtype(torch.float64)
    tiled = Evaluator(Objective(terms(), strength=1.5), network, 32)
    image = rand(64, 80, seed=1).requires_grad_()
    tiled.prepare(rand(64, 80), [(rand(61, 45, seed=2), 0.25), (rand(33, 70, seed=3), 0.75)])
    (-3 * tiled(image).loss).backward()
    torch.testing.assert_close(image.grad, -3 * found[0][2], rtol=1e-9, atol=1e-12)


class OfWholeMap(StyleTerm):
    """A mean, with a target from whole maps."""

    def __init__(self):
        super().__init__(["relu2_1"])

    def content_reference(self, layer):
        return WholeMap()

    style_reference = content_reference

    def style_target(self, layer, styles):
        return sum(share * features.mean((0, 2, 3)) for (features, _), share in styles)

    def target(self, layer, content, style):
        features, _ = content
        return super().target(layer, features.mean((0, 2, 3)), style)

    def measure(self, layer, features, window, target):
        return at_least_float32(features).sum((0, 2, 3))

    def distance(self, layer, mean, target):
        return (mean - target).square().sum()


def test_whole_maps_are_put_together_from_tiles(tiny_weights):
    """Only the last tile of them was left once, and nothing said so."""
    found = []
    for tile in (None, 32):
        network = VGG19(str(tiny_weights)).double()
        network.set_compute_dtype(torch.float64)
        evaluator = Evaluator(Objective([OfWholeMap()]), network, tile)
        evaluator.prepare(rand(90, 125), [(rand(97, 61, seed=2), 1.0)])
        image = rand(90, 125, seed=1).requires_grad_()
        loss = evaluator(image).loss
        loss.backward()
        found.append((float(loss.detach()), image.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-10)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-9, atol=1e-14)


class Peak(Term):
    """Neither a sum over cells nor a function of one."""

    additive = True
    needs_whole = "takes the largest of all"

    def __init__(self):
        super().__init__(["relu1_1"])

    def measure(self, layer, features, window, target):
        return features.max()


class Blind(Extractor):
    strides = {"all": 1}  # noqa: RUF012

    def use_layers(self, layers):
        pass


def test_what_needs_the_whole_image_is_refused(tiny_weights):
    with pytest.raises(UserError, match=r"model\.tile: must be null with the term peak"):
        Evaluator(Objective([Peak()]), VGG19(str(tiny_weights)), 64)
    with pytest.raises(UserError, match=r"with the term slicedwasserstein.*, NNFM work in tiles"):
        Evaluator(Objective([SlicedWasserstein()]), VGG19(str(tiny_weights)), 64)
    with pytest.raises(UserError, match=r"the term nnfm, which compares patches of 3x3 cells; .*with patches: 1, NNFM"):
        Evaluator(Objective([NNFM(["relu2_1"], patches=3)]), VGG19(str(tiny_weights)), 64)
    with pytest.raises(UserError, match=r"model\.tile: must be null with Blind"):
        Evaluator(Objective([Gram(["all"])]), Blind(), 64)
