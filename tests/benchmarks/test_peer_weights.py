"""Weights for other programs: they are torchvision's in name and shape, and Caffe's input gives the same features."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision

from nst_lightning.config.presets import beside_package


@pytest.fixture
def peer_weights(monkeypatch):
    monkeypatch.syspath_prepend(str(beside_package("benchmarks")))
    import peer_weights

    yield peer_weights
    sys.modules.pop("peer_weights", None)


def convolutions_of(network):
    return [
        (layer.weight.detach(), layer.bias.detach()) for layer in network.features if isinstance(layer, torch.nn.Conv2d)
    ]


@pytest.mark.parametrize(("name", "count"), [("vgg16", 13), ("vgg19", 16)])
def test_torchvision_reads_the_state_back(peer_weights, tmp_path, name, count):
    make = getattr(torchvision.models, name)
    with torch.device("meta"):
        shapes = [layer.weight.shape for layer in make().features if isinstance(layer, torch.nn.Conv2d)]
    generator = torch.Generator().manual_seed(1)
    given = [(torch.rand(shape, generator=generator), torch.rand(shape[0], generator=generator)) for shape in shapes]
    assert len(given) == count
    named = {f"conv{i}.{kind}": pair[j] for i, pair in enumerate(given) for j, kind in enumerate(("weight", "bias"))}
    state = peer_weights.vgg16(named) if name == "vgg16" else peer_weights.vgg19(given)
    file = tmp_path / f"{name}.pth"
    torch.save(state, file)
    numbers = sum(weight.numel() + bias.numel() for weight, bias in given)
    assert file.stat().st_size < 4 * numbers + 100_000  # the classifier takes no space
    with torch.device("meta"):
        network = make()
    network.load_state_dict(torch.load(file, weights_only=True), assign=True)  # strict: no name is missing or too much
    for (weight, bias), (has_weight, has_bias) in zip(given, convolutions_of(network), strict=True):
        assert torch.equal(weight, has_weight)
        assert torch.equal(bias, has_bias)


def test_caffe_input_gives_the_same_features(peer_weights):
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(4, 3, 3, 3, generator=generator), torch.randn(4, generator=generator)
    picture = torch.rand(1, 3, 6, 7, generator=generator)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (picture - mean[:, None, None]) / std[:, None, None]
    caffe = 255 * picture[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    expected = torch.nn.functional.conv2d(normalised, weight, bias)
    actual = torch.nn.functional.conv2d(caffe, *peer_weights.for_caffe_input(weight, bias))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    swapped = torch.nn.functional.conv2d(caffe.flip(1), *peer_weights.for_caffe_input(weight, bias))
    assert not torch.allclose(swapped, expected, rtol=1e-2, atol=1e-2)
