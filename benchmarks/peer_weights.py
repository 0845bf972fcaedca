"""Writes the weights that other programs for style transfer look for, from those that this one can get.

    python benchmarks/peer_weights.py weights/hub/checkpoints --caffe neural-style-pt/models/vgg19-d01eb7cb.pth

The folder is a torch hub's, so that `TORCH_HOME=weights` gives torchvision both networks without a download:

* `vgg16-397923af.pth`: torchvision's VGG-16, as the judges have it (the extra `judge`).
* `vgg19-dcbb9e9d.pth`: the VGG-19 that a fit would take (`NST_VGG19_WEIGHTS`, for one). torchvision reads it under its
  own name, whichever set it is; the set is printed.

With `--caffe`, the same VGG-19 for programs that feed it BGR from 0 to 255 less Caffe's mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from nst_lightning.features.weights import CAFFE_MEAN_BGR, IMAGENET_MEAN, IMAGENET_STD, load_vgg19_weights
from nst_lightning.judging.weights import backbone_weights


def state_of(network: torch.nn.Module, convolutions: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """What `load_state_dict` of a torchvision VGG takes.

    Args:
        network: The VGG, on any device, `meta` too.
        convolutions: Weight (out, in, 3, 3) and bias (out,) of each, in order.

    Returns:
        Tensors by name. The classifier, which no style transfer asks for, is zeros that take no space in a file.
    """
    state = {name: torch.zeros(()).expand(value.shape) for name, value in network.state_dict().items()}
    layers = [name.removesuffix(".weight") for name in state if name.startswith("features.") and "weight" in name]
    for name, (weight, bias) in zip(layers, convolutions, strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.clone(), bias.clone()
    return state


def for_caffe_input(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite conv1_1 for normalised RGB as one for BGR from 0 to 255 less Caffe's mean.

    With z = (x_rgb + caffe_mean) / (255 std) - mean / std for Caffe's x, w z + b = (w / (255 std)) x + (b + w shift).
    The two agree but for the outermost pixel, where the zeros of the padding stand for slightly different colours.
    """
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (IMAGENET_MEAN, IMAGENET_STD))
    shift = (torch.tensor(CAFFE_MEAN_BGR, dtype=torch.float64).flip(0) / 255 - mean) / std
    scaled = (weight.double() / (255 * std)[None, :, None, None]).flip(1)
    return scaled.float(), (bias.double() + torch.einsum("oihw,i->o", weight.double(), shift)).float()


def vgg16(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of torchvision's VGG-16 from `conv0.weight`, `conv0.bias` and so on, as `backbone_weights` gives them."""
    with torch.device("meta"):
        network = torchvision.models.vgg16()
    return state_of(network, [(weights[f"conv{index}.weight"], weights[f"conv{index}.bias"]) for index in range(13)])


def vgg19(convolutions: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """State of torchvision's VGG-19 from its sixteen convolutions."""
    with torch.device("meta"):
        network = torchvision.models.vgg19()
    return state_of(network, convolutions)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="checkpoints of a torch hub")
    parser.add_argument("--caffe", type=Path, metavar="FILE", help="VGG-19 for BGR from 0 to 255 goes here")
    parser.add_argument("--vgg19", metavar="FILE", help="take this VGG-19")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.save(vgg16(backbone_weights("vgg16")), arguments.folder / "vgg16-397923af.pth")
    found = load_vgg19_weights(arguments.vgg19, argument="--vgg19")
    print(found.origin)
    torch.save(vgg19(found.convolutions), arguments.folder / "vgg19-dcbb9e9d.pth")
    if arguments.caffe is not None:
        convolutions = [for_caffe_input(*found.convolutions[0]), *found.convolutions[1:]]
        torch.save(vgg19(convolutions), arguments.caffe)


if __name__ == "__main__":
    main()
