"""VGG-19 against torchvision, and its variants against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from terms import whole_walk
from torchvision.models import vgg

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
RELUS = [name for name in VGG19.strides if name.startswith("relu")]


def image(height: int = 24, width: int = 26, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def torchvision_layers(network: torch.nn.Sequential, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every layer of torchvision's network, named by counting its poolings and convolutions."""
    result: dict[str, torch.Tensor] = {}
    block, index = 1, 0
    x = (x - MEAN) / STD
    for module in network[:-1]:  # the last pooling has no name
        x = module(x)
        if isinstance(module, torch.nn.MaxPool2d):
            block, index = block + 1, 0
        elif isinstance(module, torch.nn.Conv2d):
            index += 1
            result[f"conv{block}_{index}"] = x.clone()  # ReLU may work in place
        else:
            result[f"relu{block}_{index}"] = x.clone()
    return result


def torchvision_network(widths: list[int]) -> torch.nn.Sequential:
    """The feature part of vgg19, whose table is `cfgs["E"]`, with a width for each of its sixteen convolutions."""
    remaining = list(widths)
    table = [entry if entry == "M" else remaining.pop(0) for entry in vgg.cfgs["E"]]
    return vgg.make_layers(table, batch_norm=False)


def test_all_layers_equal_torchvision_bitwise_at_real_width(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision_network([width for width in vgg.cfgs["E"] if width != "M"]).requires_grad_(False)
    path = tmp_path / "wide.safetensors"
    save_file(network.state_dict(), path)
    ours = VGG19(str(path), convolution="direct")
    path.unlink()
    assert len(VGG19.strides) == 32
    picture = image(33, 34)
    expected = torchvision_layers(network, picture)
    features = ours(picture, VGG19.strides)
    assert set(features) == set(expected) == set(VGG19.strides)
    for name, feature in features.items():
        assert torch.equal(feature, expected[name]), name
        stride = VGG19.strides[name]
        assert feature.shape[-2:] == (33 // stride, 34 // stride)
        assert float(feature.abs().sum()) > 0


@pytest.mark.parametrize("size", [(17, 31), (16, 47), (33, 19)])
def test_odd_sizes_equal_torchvision_and_round_down(tiny_weights, size):
    state = load_file(tiny_weights)
    biases = sorted((int(key.split(".")[1]), len(value)) for key, value in state.items() if key.endswith("bias"))
    network = torchvision_network([width for _, width in biases])
    network.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    picture = image(*size)
    with torch.no_grad():
        expected = torchvision_layers(network, picture)
    for name, feature in VGG19(str(tiny_weights))(picture, VGG19.strides).items():
        block = int(name[4])
        height, width = size
        for _ in range(block - 1):
            height, width = height // 2, width // 2
        assert feature.shape[-2:] == (height, width)
        assert torch.equal(feature, expected[name]), name


@pytest.mark.parametrize(
    ("layers", "count"),
    [(["conv1_1"], 1), (["relu1_1"], 1), (["relu2_1", "conv1_2"], 3), (["relu4_2", "relu1_1"], 10), (["relu5_4"], 16)],
)
def test_only_as_deep_as_needed(tiny_weights, layers, count):
    network = VGG19(str(tiny_weights))
    full = network(image(), layers)
    network.use_layers(layers)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == count
    assert len(list(network.parameters())) == 2 * count
    features = network(image(), layers)
    assert set(features) == set(layers)
    assert all(torch.equal(features[name], full[name]) for name in layers)


def test_deeper_convolutions_do_not_run_even_when_they_are_there(tiny_weights):
    network = VGG19(str(tiny_weights))
    ran = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, *_: ran.append(module))
    network(image(), iter(["relu2_1", "relu1_1"]))
    assert len(ran) == 3


def test_too_small_images_are_known_by_the_stride(tiny_weights):
    network = VGG19(str(tiny_weights))
    assert network.smallest_side(["relu1_1", "relu4_2", "conv3_1"]) == (8, "relu4_2")
    assert network(image(8, 9), ["relu4_2"])["relu4_2"].shape[-2:] == (1, 1)


# Pooling and padding


def pool_with_loops(x: np.ndarray, kind: str) -> np.ndarray:
    channels, height, width = x.shape
    result = np.zeros((channels, height // 2, width // 2))
    for c in range(channels):
        for i in range(height // 2):
            for j in range(width // 2):
                values = [x[c, 2 * i + a, 2 * j + b] for a in range(2) for b in range(2)]
                if kind == "max":
                    result[c, i, j] = max(values)
                elif kind == "average":
                    result[c, i, j] = sum(values) / 4
                else:
                    result[c, i, j] = (sum(value * value for value in values) / 4) ** 0.5
    return result


@pytest.mark.parametrize(
    ("pooling", "rescale", "factor"),
    [("max", False, 1), ("average", False, 1), ("l2", False, 1), ("average", True, 2.0), ("l2", True, 0.78)],
)
def test_pooling_against_loops(tiny_weights, pooling, rescale, factor):
    state = load_file(tiny_weights)
    network = VGG19(str(tiny_weights), pooling=pooling, rescale_pooling=rescale)
    features = network(image(13, 14), ["relu1_2", "conv2_1", "relu2_2", "conv3_1"])
    for before, after, index in (("relu1_2", "conv2_1", 5), ("relu2_2", "conv3_1", 10)):
        pooled = pool_with_loops(features[before][0].double().numpy(), pooling) * factor
        weight, bias = (state[f"features.{index}.{part}"].double() for part in ("weight", "bias"))
        expected = F.conv2d(torch.from_numpy(pooled)[None], weight, bias, padding=1)
        torch.testing.assert_close(features[after].double(), expected, rtol=1e-4, atol=1e-5)


def test_l2_pooling_has_finite_gradients_where_nothing_is_active(tmp_path, tiny_weights):
    state = load_file(tiny_weights)
    state["features.2.bias"] = state["features.2.bias"] - 1e3  # the whole layer before the pooling is silent
    save_file(state, tmp_path / "silent.safetensors")
    picture = image().requires_grad_()
    VGG19(str(tmp_path / "silent.safetensors"), pooling="l2")(picture, ["relu2_1"])["relu2_1"].sum().backward()
    assert torch.isfinite(picture.grad).all()


def test_replicate_padding_against_manual_padding(tiny_weights):
    state = load_file(tiny_weights)
    picture = image(9, 10)
    normalised = ((picture - MEAN) / STD)[0].double().numpy()
    padded = torch.from_numpy(np.pad(normalised, ((0, 0), (1, 1), (1, 1)), mode="edge"))[None]
    expected = F.conv2d(padded, state["features.0.weight"].double(), state["features.0.bias"].double())
    layers = ["conv1_1", "relu1_1", "conv1_2"]
    replicate = VGG19(str(tiny_weights), padding="replicate")(picture, layers)
    zeros = VGG19(str(tiny_weights))(picture, layers)
    torch.testing.assert_close(replicate["conv1_1"].double(), expected, rtol=1e-5, atol=1e-5)
    interior = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(replicate["conv1_1"][interior], zeros["conv1_1"][interior], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(replicate["conv1_1"], zeros["conv1_1"], atol=1e-2)
    # Only the first layer is padded so; the next sees zeros.
    weight, bias = (state[f"features.2.{part}"].double() for part in ("weight", "bias"))
    second = F.conv2d(expected.clamp(min=0), weight, bias, padding=1)
    torch.testing.assert_close(replicate["conv1_2"].double(), second, rtol=1e-4, atol=1e-5)


# Unit activations


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_unit_activations(tiny_weights, pooling):
    pictures = [image(32, 36), image(40, 33, seed=1)]
    plain = VGG19(str(tiny_weights), pooling=pooling)
    scaled = VGG19(str(tiny_weights), pooling=pooling, unit_activations=True)
    scaled = scaled.rescaled(pictures, whole_walk(scaled))
    before = [plain(picture, VGG19.strides) for picture in pictures]
    after = [scaled(picture, VGG19.strides) for picture in pictures]
    at_one = 0
    for name in RELUS:
        original = sum(features[name].double().mean((0, 2, 3)) for features in before) / 2
        mean = sum(features[name].double().mean((0, 2, 3)) for features in after) / 2
        floor = 0.1 * original.mean()
        audible = original > floor
        at_one += int(audible.sum())
        torch.testing.assert_close(mean[audible], torch.ones_like(mean[audible]), rtol=1e-3, atol=0)
        torch.testing.assert_close(mean[~audible], original[~audible] / floor, rtol=1e-3, atol=1e-6)
        # One factor a channel, the same for both pictures and for the layer before ReLU.
        factor = 1 / torch.maximum(original, floor)
        for old, new in zip(before, after, strict=True):
            for layer in (name, name.replace("relu", "conv")):
                expected = old[layer].double() * factor.view(1, -1, 1, 1)
                error = (new[layer] - expected).norm() / expected.norm().clamp(min=1e-9)
                assert float(error) < 1e-4, layer
    assert at_one > 60  # most of the 132 channels are not silent


def test_unit_activations_are_a_copys(tiny_weights):
    """The network itself stays as it is, also for pictures to come, and the copy whatever becomes of it."""
    network = VGG19(str(tiny_weights), unit_activations=True)
    weights = [parameter.clone() for parameter in network.parameters()]
    scaled = network.rescaled([image()], whole_walk(network))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), weights, strict=True))
    assert not torch.equal(next(scaled.parameters()), weights[0])
    other = network.rescaled([image(seed=3)], whole_walk(network))
    assert not torch.equal(next(scaled.parameters()), next(other.parameters()))
    before = scaled(image(), ["relu3_1"])["relu3_1"]
    scaled.use_layers(["relu3_1"])
    scaled.set_compute_dtype(torch.bfloat16)
    scaled.set_compute_dtype(torch.float32)
    assert torch.equal(scaled(image(), ["relu3_1"])["relu3_1"], before)
    scaled(image(), ["relu5_4"])  # what was released is read and scaled again
    assert torch.equal(scaled(image(), ["relu3_1"])["relu3_1"], before)


# Units of the original network


def test_normalised_units_divide_every_layer_of_the_caffe_network(tiny_weights, monkeypatch):
    layers = ["conv1_1", "relu1_2", "conv3_1", "relu4_2", "relu5_4"]
    stored = VGG19(str(tiny_weights))(image(), layers)
    unknown = VGG19(str(tiny_weights), units="normalised")(image(), layers)
    assert all(torch.equal(stored[layer], unknown[layer]) for layer in layers)  # only Caffe's has that unit
    monkeypatch.setattr("nst_lightning.features.weights._is_caffe_network", lambda convolutions: True)
    scaled = VGG19(str(tiny_weights), layout="torchvision", units="normalised")(image(), layers)
    for layer in layers:
        torch.testing.assert_close(scaled[layer] * (255 * 0.225), stored[layer], rtol=1e-4, atol=1e-5)


# Types and gradients


def test_bfloat16_is_close_to_float32_and_64_bits_closer(tiny_weights):
    names = list(VGG19.strides)
    picture = image(48, 40)
    exact = VGG19(str(tiny_weights))
    exact.set_compute_dtype(torch.float64)
    reference = exact(picture.double(), names)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        network = VGG19(str(tiny_weights))
        network.set_compute_dtype(dtype)
        for name, feature in network(picture, names).items():
            assert feature.dtype == dtype
            error = float((feature.double() - reference[name]).norm() / reference[name].norm())
            assert error < tolerance, (name, dtype)


def test_parameters_are_frozen_and_the_image_gets_a_gradient(tiny_weights):
    network = VGG19(str(tiny_weights))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not list(network.buffers()) or not any(buffer.requires_grad for buffer in network.buffers())
    picture = image().requires_grad_()
    network(picture, ["relu4_2"])["relu4_2"].square().sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    assert float(picture.grad.abs().max()) > 0
    # Central differences in double precision along one direction.
    network.set_compute_dtype(torch.float64)
    direction = torch.randn(picture.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def loss(step: float) -> float:
        return float(network(picture.detach().double() + step * direction, ["relu4_2"])["relu4_2"].square().sum())

    slope = (loss(1e-7) - loss(-1e-7)) / 2e-7
    assert float((picture.grad.double() * direction).sum()) == pytest.approx(slope, rel=1e-3)


def test_autocast_is_ignored(tiny_weights):
    network = VGG19(str(tiny_weights))
    plain = network(image(), ["relu3_1"])["relu3_1"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16  # the region does something
        inside = network(image(), ["relu3_1"])["relu3_1"]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


# Messages


def test_unknown_layers_are_refused_with_the_nearest_and_all_valid_ones(tiny_weights):
    network = VGG19(str(tiny_weights))
    for call in (
        lambda: network.use_layers(["relu4_1", "relu42"]),
        lambda: network.check_layers(["relu42"], argument="model.terms"),
    ):
        with pytest.raises(UserError) as error:
            call()
        message = str(error.value)
        assert "no layer 'relu42' in VGG19; did you mean relu4_2?" in message
        assert message.endswith("valid: " + ", ".join(VGG19.strides))
        assert "\n" not in message
    with pytest.raises(UserError) as error:
        network.use_layers(["zzz"])
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"pooling": "mean"}, r"model\.extractor\.pooling: must be one of max, average, l2, got mean"),
        ({"units": "bytes"}, r"model\.extractor\.units: must be one of stored, normalised, got bytes"),
        ({"padding": "reflect"}, r"model\.extractor\.padding: must be one of zeros, replicate, got reflect"),
        ({"rescale_pooling": True}, r"rescale_pooling: needs pooling average or l2, got max"),
    ],
)
def test_wrong_arguments_are_refused(tiny_weights: Path, arguments, match):
    with pytest.raises(UserError, match=match):
        VGG19(str(tiny_weights), **arguments)
