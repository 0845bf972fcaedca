"""AlexNet and VGG-16 as the judges walk through them, layer by layer, so that few maps are held at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.features.weights import IMAGENET_MEAN, IMAGENET_STD

# Of each block of VGG-16 the convolutions (Simonyan and Zisserman 2015, configuration D).
_BLOCKS = (2, 2, 3, 3, 3)
VGG16_SMALLEST = 16  # pixels of a side at which each layer has a cell
# Stride and padding of AlexNet's convolutions (Krizhevsky 2014, One Weird Trick), and those that pooling comes after.
_ALEXNET = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
_POOLED = (0, 1)
ALEXNET_SMALLEST = 31

Weights = Mapping[str, Tensor]


def vgg16(
    weights: Weights, image: Tensor, pool: Callable[[Tensor], Tensor] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield VGG-16's rectified layers.

    Args:
        weights: As `backbone_weights` gives them, of any widths.
        image: (1, 3, H, W), RGB in [0, 1], sides of at least 16 px.
        pool: What stands between blocks; max pooling by default.

    Yields:
        ``relu1_1`` to ``relu5_3`` and (1, C, h, w).
    """
    x, index = normalised(image), 0
    for block, count in enumerate(_BLOCKS, start=1):
        if block > 1:
            x = F.max_pool2d(x, 2) if pool is None else pool(x)
        for place in range(1, count + 1):
            # In place: the largest maps are as large as all else together.
            x = F.conv2d(x, weights[f"conv{index}.weight"], weights[f"conv{index}.bias"], padding=1).relu_()
            yield f"relu{block}_{place}", x
            index += 1


def stride_of(layer: str) -> int:
    """Pixels a side that a cell of a layer of VGG-16 stands for: 4 of ``relu3_1``."""
    return 1 << (int(layer[len("relu")]) - 1)


def alexnet(weights: Weights, image: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield AlexNet's rectified layers, ``relu1`` to ``relu5``; as `vgg16`, for sides of at least 31 px."""
    x = normalised(image)
    for index, (stride, padding) in enumerate(_ALEXNET):
        kernel, bias = weights[f"conv{index}.weight"], weights[f"conv{index}.bias"]
        x = F.relu(F.conv2d(x, kernel, bias, stride=stride, padding=padding))
        yield f"relu{index + 1}", x
        if index in _POOLED:
            x = F.max_pool2d(x, 3, 2)


def normalised(image: Tensor) -> Tensor:
    """What torchvision's networks take: ImageNet's mean and deviation are 0 and 1.

    It is LPIPS' scaling layer, too: (2x - 1 + 0.03) / 0.458 is (x - 0.485) / 0.229, and so in green and blue.
    """
    mean, std = (torch.tensor(values).to(image).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / std
