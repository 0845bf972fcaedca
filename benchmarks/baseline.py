"""The yardstick: style transfer as tutorials and scripts write it, in plain PyTorch and nothing else.

float32, NCHW, VGG-19 as a chain of modules with ReLU out of place, Gram matrices divided by their number of elements,
``torch.optim.LBFGS`` with its usual history of 100, and a loss that is read at every evaluation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = (2, 2, 4, 4, 1)  # up to conv5_1
CONTENT = "conv4_2"
STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
STYLE_WEIGHT = 1e6


def names() -> list[str]:
    """Names of the convolutions in order."""
    return [f"conv{block}_{index}" for block, depth in enumerate(BLOCKS, 1) for index in range(1, depth + 1)]


class Network(nn.Module):
    """VGG-19 up to conv5_1.

    Args:
        weights: Pairs of weight and bias for each convolution.
        mean: (1, 3, 1, 1), of the images that the network was trained on.
        std: The same.
    """

    def __init__(self, weights: list[tuple[Tensor, Tensor]], mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean.clone(), std.clone()
        self.layers = nn.ModuleDict()
        for name, (weight, bias) in zip(names(), weights, strict=False):
            if name.endswith("_1") and name != "conv1_1":
                self.layers[f"pool{name[4]}"] = nn.MaxPool2d(2, 2)
            self.layers[name] = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            self.layers[name].load_state_dict({"weight": weight, "bias": bias})
            self.layers[name.replace("conv", "relu")] = nn.ReLU()
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features after ReLU, under the convolution's name: (1, 3, H, W) in [0, 1] -> (1, C, h, w) each."""
        x = (image - self.mean.to(image)) / self.std.to(image)
        features = {}
        for name, layer in self.layers.items():
            x = layer(x)
            if name.startswith("relu"):
                features[name.replace("relu", "conv")] = x
        return features


def gram(features: Tensor) -> Tensor:
    """F Fᵀ / (C h w)."""
    _, channels, height, width = features.shape
    flat = features.view(channels, height * width)
    return flat @ flat.T / (channels * height * width)


def make_step(network: Network, content: Tensor, style: Tensor) -> tuple[Callable[[], float], Tensor]:
    """Prepare a run from the content image.

    Args:
        network: On the device of the images.
        content: (1, 3, H, W), RGB in [0, 1].
        style: (1, 3, h, w), the same.

    Returns:
        A function that makes one evaluation and update and returns the loss before it, and the image.
    """
    with torch.no_grad():
        target = network(content)[CONTENT]
        grams = {name: gram(features) for name, features in network(style).items() if name in STYLE}
    image = content.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=1, history_size=100, tolerance_grad=-1, tolerance_change=-1)
    losses = [0.0]

    def closure() -> Tensor:
        optimizer.zero_grad()
        features = network(image)
        loss = F.mse_loss(features[CONTENT], target)
        for name in STYLE:
            loss = loss + STYLE_WEIGHT * F.mse_loss(gram(features[name]), grams[name])
        loss.backward()
        losses[0] = loss.item()
        return loss

    def step() -> float:
        optimizer.step(closure)
        return losses[0]

    return step, image
