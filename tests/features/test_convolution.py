import pytest
import torch
import torch.nn.functional as F
from terms import whole_walk

from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.features.kernels.convolution import frozen_conv2d
from nst_lightning.features.kernels.direct import DirectFilter
from nst_lightning.features.kernels.factored import FactoredFilter
from nst_lightning.features.kernels.strips import PooledSink
from nst_lightning.features.kernels.winograd import WinogradFilter


@pytest.fixture
def network(tiny_weights, monkeypatch):
    """Build a small random VGG-19 in which every layer counts as wide."""
    every = {torch.bfloat16: (1, 1), torch.float32: (1, 1)}
    monkeypatch.setattr("nst_lightning.features.convolutions.WINOGRAD_CHANNELS", every)
    return lambda **options: VGG19(str(tiny_weights), **options)


def factored(kind, *, reduced=False):
    """A filter bank in two or three factors whose product is the weight."""

    def make(weight):
        count = len(weight)
        expansion = torch.randn(count, count + 1, dtype=weight.dtype, generator=torch.Generator().manual_seed(3))
        narrow = torch.linalg.pinv(expansion) @ weight.reshape(count, -1)
        narrow = narrow.view(count + 1, *weight.shape[1:])
        if not reduced:
            return FactoredFilter(kind(narrow), expansion)
        channels = weight.shape[1]
        reduction = torch.randn(channels + 2, channels, dtype=weight.dtype, generator=torch.Generator().manual_seed(4))
        narrow = torch.einsum("kcij,cq->kqij", narrow, torch.linalg.pinv(reduction))
        return FactoredFilter(kind(narrow), expansion, reduction)

    return make


KINDS = [DirectFilter, WinogradFilter, *(factored(kind) for kind in (DirectFilter, WinogradFilter))]
KINDS += [factored(kind, reduced=True) for kind in (DirectFilter, WinogradFilter)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (1, 1), (6, 8), (8, 6), (3, 9), (5, 7), (22, 17)])
def test_double_precision_equals_torchs_convolution(height, width, kind):
    x = torch.randn(1, 5, height, width, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(7, 5, 3, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    filters = kind(weight)
    ours, direct = frozen_conv2d(x, filters, bias).relu_(), F.conv2d(x, weight, bias, padding=1).relu()
    torch.testing.assert_close(ours, direct, rtol=1e-11, atol=1e-11)
    upstream = torch.randn_like(direct)
    (gradient,) = torch.autograd.grad(ours, x, upstream)
    (expected,) = torch.autograd.grad(direct, x, upstream)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)


FOLLOWING = {
    "relu": (True, None, F.relu),
    "max": (True, "max", lambda x: F.max_pool2d(F.relu(x), 2)),
    "average": (True, "average", lambda x: F.avg_pool2d(F.relu(x), 2)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("following", FOLLOWING)
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (2, 3), (6, 8), (5, 7), (22, 17), (19, 30), (33, 6)])
def test_relu_and_pooling_inside_equal_torchs(monkeypatch, kind, following, height, width):
    """Values and gradients, in strips of several heights."""
    relu, pool, reference = FOLLOWING[following]
    x = torch.randn(1, 5, height, width, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(7, 5, 3, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    direct = reference(F.conv2d(x, weight, bias, padding=1))
    upstream = torch.randn_like(direct)
    (expected,) = torch.autograd.grad(direct, x, upstream)
    for tiles in (1, 12, 1000):
        monkeypatch.setattr("nst_lightning.features.kernels.winograd._STRIP_IN_CACHE", 1)
        monkeypatch.setattr("nst_lightning.features.kernels.direct._STRIP", 8 * 16 * 7 * tiles)
        monkeypatch.setattr("nst_lightning.features.kernels.winograd._LEAST_TILES", tiles)
        ours = frozen_conv2d(x, kind(weight), bias, relu, pool)
        torch.testing.assert_close(ours, direct, rtol=1e-11, atol=1e-11)
        assert ours.is_contiguous(memory_format=torch.channels_last)
        (gradient,) = torch.autograd.grad(ours, x, upstream)
        torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)


def test_of_equal_largest_values_one_takes_the_gradient():
    """The left column's, and of that the upper."""
    tiles = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    tiles[..., 2:, :] = torch.tensor([[-1.0, -1, 3, 5], [-1, -1, 5, 5]])
    sink = PooledSink(tiles, 1, 4, 4, "max")
    sink.write(0, tiles.view(4, 4, 1))
    assert sink.result.flatten().tolist() == [1, 1, 0, 5]
    assert sink.codes.read(0, 2, tiles).flatten().tolist() == [1, 1, 0, 3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("weights", ["compact", "narrow"])
@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(value, weights, dtype):
    """At every layer, although a CPU's ReLU within a product makes 0 of it."""
    extractor = CompactVGG19(weights)
    extractor.set_compute_dtype(dtype)
    image = torch.full((1, 3, 64, 64), 0.5)
    for rows in (slice(3, 4), slice(None)):
        image[..., rows, rows] = value
        for name, features in extractor(image, list(extractor.strides)).items():
            assert not features.isfinite().all(), name


def test_value_by_hand():
    """A filter of ones over an image of ones counts the pixels under it."""
    ones = torch.ones(1, 1, 4, 5, dtype=torch.float64)
    counted = frozen_conv2d(ones, WinogradFilter(torch.ones(1, 1, 3, 3, dtype=torch.float64)), torch.zeros(1).double())
    expected = torch.tensor([[4.0, 6, 6, 6, 4], [6, 9, 9, 9, 6], [6, 9, 9, 9, 6], [4, 6, 6, 6, 4]]).double()
    torch.testing.assert_close(counted[0, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_strips_do_not_show(monkeypatch, dtype):
    x, weight = torch.randn(1, 4, 30, 26, dtype=dtype), torch.randn(6, 4, 3, 3, dtype=dtype)
    whole = frozen_conv2d(x, WinogradFilter(weight), torch.zeros(6, dtype=dtype))
    for name, value in (("_STRIP", 36 * 6 * 7 * 3), ("_STRIP_IN_CACHE", 1), ("_LEAST_TILES", 15)):
        monkeypatch.setattr(f"nst_lightning.features.kernels.winograd.{name}", value)
    strips = frozen_conv2d(x, WinogradFilter(weight), torch.zeros(6, dtype=dtype))
    # Products of other numbers of columns round otherwise, in units of the largest results, not of those near zero.
    rounding = (0.016 if dtype == torch.bfloat16 else 5e-6) * float(whole.abs().max())
    torch.testing.assert_close(strips, whole, rtol=0, atol=rounding)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.008), (torch.float32, 2e-6)])
def test_error_of_one_layer(dtype, limit):
    """Against float64; the direct algorithm in bfloat16 has 0.0017, the customary points would have 0.015."""
    x = F.avg_pool2d(torch.randn(1, 128, 24, 24).relu(), 3, 1, 1).to(dtype)
    weight, bias = (torch.randn(256, 128, 3, 3) * 0.04).to(dtype), torch.zeros(256, dtype=dtype)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    result = frozen_conv2d(x, WinogradFilter(weight), bias)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert (result.double() - exact).norm() / exact.norm() < limit


LAYERS = ["relu1_1", "relu3_1", "relu4_2"]


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_network_with_winograd_equals_the_direct_one(network, pooling):
    """In float32, gradients included, at a ragged size."""
    results = []
    for algorithm in ("direct", "winograd"):
        extractor = network(pooling=pooling, convolution=algorithm)
        image = torch.rand(1, 3, 37, 50, generator=torch.Generator().manual_seed(1)).requires_grad_()
        features = extractor(image, LAYERS)
        sum(x.square().mean() for x in features.values()).backward()
        results.append((features, image.grad))
        assert bool(extractor._filters) == (algorithm == "winograd")
    (expected, gradient), (features, other) = results
    for name in LAYERS:
        torch.testing.assert_close(features[name], expected[name], rtol=1e-4, atol=1e-5)
    assert (other - gradient).norm() / gradient.norm() < 1e-4


def test_automatic_choice_follows_precision_and_device(network):
    extractor, image = network(), torch.rand(1, 3, 32, 32)
    for dtype, chosen in ((torch.float32, True), (torch.float64, False), (torch.bfloat16, True)):
        extractor.set_compute_dtype(dtype)
        features = extractor(image, ["relu3_1"])["relu3_1"]
        assert bool(extractor._filters) == chosen
        assert features.is_contiguous(memory_format=torch.channels_last) == chosen
    elsewhere = network().to("meta")
    elsewhere._choose_algorithms()
    assert not elsewhere._filters


def test_narrow_layers_are_convolved_directly(tiny_weights):
    extractor = VGG19(str(tiny_weights))
    assert extractor(torch.rand(1, 3, 16, 16), ["relu1_1"])["relu1_1"].is_contiguous()
    assert not extractor._filters


def test_rescaling_the_network_transforms_its_filters_anew(network):
    extractor, image = network(unit_activations=True), torch.rand(1, 3, 64, 64)
    extractor.set_compute_dtype(torch.bfloat16)
    before = extractor(image, ["relu3_1"])["relu3_1"]
    extractor = extractor.rescaled([image], whole_walk(extractor))
    after = extractor(image, ["relu3_1"])["relu3_1"].float()
    assert not torch.equal(before.float(), after)
    direct = network(convolution="direct", unit_activations=True)
    direct = direct.rescaled([image], whole_walk(direct))
    expected = direct(image, ["relu3_1"])["relu3_1"]
    assert (after - expected).norm() / expected.norm() < 0.05
