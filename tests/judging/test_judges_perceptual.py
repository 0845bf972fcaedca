"""LPIPS, DISTS and CFSD against other programs of the same, and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import rand_image
from judge_networks import ALEXNET, VGG16, random_alexnet, random_vgg16

from nst_lightning.errors import UserError
from nst_lightning.judging.backbones import alexnet, vgg16
from nst_lightning.judging.dists import dists
from nst_lightning.judging.lpips import VGG_LAYERS, layer_distance, lpips_alexnet
from nst_lightning.judging.structure import _cells, self_similarity_divergence, structure_distance
from nst_lightning.judging.weights import backbone_weights, dists_weights


def pair(height, width):
    one = rand_image(height, width, 1)
    return one, (0.7 * one + 0.3 * rand_image(height, width, 2)).clamp(0, 1)


def lpips_vgg(weights, one, other):
    maps = zip(vgg16(weights, one), vgg16(weights, other), strict=True)
    layers = [(ours, theirs) for (name, ours), (_, theirs) in maps if name in VGG_LAYERS]
    return sum(layer_distance(*both, weights[f"lin{index}"]) for index, both in enumerate(layers))


def by_torchmetrics(net, weights, one, other):
    """LPIPS by torchmetrics' program and torchvision's network, with these weights."""
    program = pytest.importorskip("torchmetrics.functional.image.lpips")._LPIPS(net=net, pnet_rand=True)
    convolutions = [part for part in program.net.modules() if isinstance(part, torch.nn.Conv2d)]
    for index, convolution in enumerate(convolutions):
        convolution.weight.data = weights[f"conv{index}.weight"]
        convolution.bias.data = weights[f"conv{index}.bias"]
    for index, layer in enumerate(program.lins):
        layer.model[-1].weight.data = weights[f"lin{index}"].view(1, -1, 1, 1)
    return float(program(one, other, normalize=True))


@pytest.mark.parametrize("size", [(64, 64), (49, 70)])
def test_lpips_is_that_of_torchmetrics(size):
    one, other = pair(*size)
    weights = random_alexnet(ALEXNET)
    assert lpips_alexnet(weights, one, other) == pytest.approx(by_torchmetrics("alex", weights, one, other), rel=1e-4)
    weights = random_vgg16(VGG16)
    assert lpips_vgg(weights, one, other) == pytest.approx(by_torchmetrics("vgg", weights, one, other), rel=1e-4)


def test_lpips_of_a_layer_by_hand():
    one, other = rand_image(3, 4, 1)[:, :2] - 0.5, rand_image(3, 4, 2)[:, :2]
    channels = torch.tensor([0.5, 2.0])
    total = 0.0
    for row in range(3):
        for column in range(4):
            a, b = (features[0, :, row, column].double().numpy() for features in (one, other))
            difference = a / np.sqrt((a**2).sum()) - b / np.sqrt((b**2).sum())
            total += 0.5 * difference[0] ** 2 + 2 * difference[1] ** 2
    assert layer_distance(one, other, channels) == pytest.approx(total / 12, rel=1e-5)


def test_networks_see_what_torchvision_makes_of_a_picture():
    """The first layer, by the numbers of its documentation."""
    weights, image = random_vgg16(), rand_image(16, 16)
    red, green, blue = image[0]
    normalised = torch.stack([(red - 0.485) / 0.229, (green - 0.456) / 0.224, (blue - 0.406) / 0.225])[None]
    expected = torch.conv2d(normalised, weights["conv0.weight"], weights["conv0.bias"], padding=1).relu()
    torch.testing.assert_close(next(vgg16(weights, image))[1], expected)


def test_names_and_sizes_of_layers():
    found = {name: tuple(x.shape[1:]) for name, x in vgg16(random_vgg16(), rand_image(33, 48))}
    assert list(found)[:5] == ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"]
    assert found["relu3_3"] == (8, 8, 12)
    assert list(found)[-1] == "relu5_3"
    assert found["relu5_3"] == (12, 2, 3)
    assert [tuple(x.shape[2:]) for _, x in alexnet(random_alexnet(), rand_image(31, 63))][-1] == (1, 3)


@pytest.mark.parametrize("size", [(48, 64), (51, 50)])
def test_dists_is_that_of_torchmetrics(size, monkeypatch):
    module = pytest.importorskip("torchmetrics.functional.image.dists")
    weights, (one, other) = random_vgg16(VGG16), pair(*size)

    def network(**_):
        import torchvision

        net = torchvision.models.vgg16(weights=None)
        convolutions = [part for part in net.features if isinstance(part, torch.nn.Conv2d)]
        for index, convolution in enumerate(convolutions):
            convolution.weight.data = weights[f"conv{index}.weight"]
            convolution.bias.data = weights[f"conv{index}.bias"]
        return net

    monkeypatch.setattr(module, "vgg16", network)
    expected = float(module.DISTSNetwork().requires_grad_(False)(one, other))
    assert 0.01 < expected < 1
    assert dists(weights, dists_weights(), one, other) == pytest.approx(expected, rel=1e-3)


def test_dists_reduces_to_a_short_side_of_256():
    """A picture whose pixels are drawn three times as large."""
    channels = torch.full((2, 3 + 4 + 6 + 8 + 10 + 12), 1 / 86)
    small = pair(256, 260)
    large = [picture.repeat_interleave(3, 2).repeat_interleave(3, 3) for picture in small]
    expected = dists(random_vgg16(), channels, *small)
    assert dists(random_vgg16(), channels, *large) == pytest.approx(expected, rel=0.05)
    assert dists(random_vgg16(), channels, *(picture[..., :256] for picture in large)) != pytest.approx(
        expected, rel=0.1
    )


def by_loop(ours, theirs):
    """CFSD row by row, in float64: the sum over rows, as the authors' program has it, for as many as 128x128."""
    ours, theirs = (cells.double().numpy() / cells.shape[1] for cells in (ours, theirs))
    total = 0.0
    for mine, their in zip(ours, theirs, strict=True):
        p, q = np.exp(theirs @ their), np.exp(ours @ mine)
        p, q = p / p.sum(), q / q.sum()
        total += (p * np.log(p / q)).sum()
    return total * 128**2 / len(ours)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_cfsd_is_that_of_a_plain_loop(scale):
    ours, theirs = (scale * rand_image(300, 7, seed)[0, 0] for seed in (1, 2))
    assert self_similarity_divergence(ours, theirs) == pytest.approx(by_loop(ours, theirs), rel=1e-4)
    assert self_similarity_divergence(ours, ours) == pytest.approx(0, abs=1e-4)


def test_cfsd_looks_from_the_content():
    """Kullback and Leibler's divergence has a direction, of the content from the result."""
    ours, theirs = 30 * rand_image(60, 4, 1)[0, 0], 15 * rand_image(60, 4, 2)[0, 0]
    there, back = (self_similarity_divergence(*both) for both in ((ours, theirs), (theirs, ours)))
    assert there == pytest.approx(by_loop(ours, theirs), rel=1e-4)
    assert not math.isclose(there, back, rel_tol=0.1)


def test_cfsd_takes_relu3_1_and_does_not_grow_with_the_picture():
    weights, (one, other) = random_vgg16(), pair(32, 48)
    cells = [dict(vgg16(weights, picture))["relu3_1"][0].flatten(1).T for picture in (one, other)]
    assert torch.equal(_cells(weights, one), cells[0])
    whole = structure_distance(weights, one, other)
    assert whole == pytest.approx(by_loop(*cells), rel=1e-3)
    twice = structure_distance(weights, torch.cat([one, one], 3), torch.cat([other, other], 3))
    assert twice == pytest.approx(whole, rel=0.2)


def test_cfsd_reduces_to_512():
    weights, seen = random_vgg16(), []
    one = torch.full((1, 3, 32, 1024), 0.5)

    def look(weights, image):
        seen.append(tuple(image.shape[-2:]))
        return vgg16(weights, image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nst_lightning.judging.structure.vgg16", look)
        structure_distance(weights, one, one)
    assert seen == [(16, 512)] * 2


def test_the_true_networks_are_those_of_the_authors():
    """With the extra alone: LPIPS' own weights are in torchmetrics, too."""
    try:
        networks = {"alex": backbone_weights("alexnet"), "vgg": backbone_weights("vgg16")}
    except UserError as error:
        pytest.skip(str(error))
    module = pytest.importorskip("torchmetrics.functional.image.lpips")
    for net, weights in networks.items():
        program = module._LPIPS(net=net, pnet_rand=True)  # its lins are the authors'
        for index, layer in enumerate(program.lins):
            torch.testing.assert_close(layer.model[-1].weight.flatten(), weights[f"lin{index}"], rtol=0, atol=0)
    one, other = pair(64, 64)
    assert networks["vgg"]["conv12.weight"].shape == (512, 512, 3, 3)
    assert lpips_alexnet(networks["alex"], one, other) == pytest.approx(
        by_torchmetrics("alex", networks["alex"], one, other), rel=1e-4
    )
