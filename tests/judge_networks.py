"""Networks of true and of small widths, with random weights."""

from __future__ import annotations

import torch

VGG16 = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
SMALL_VGG16 = (4, 4, 6, 6, 8, 8, 8, 10, 10, 10, 12, 12, 12)
ALEXNET = (64, 192, 384, 256, 256)
SMALL_ALEXNET = (4, 6, 8, 6, 6)


def random_weights(widths, sides=None, seed=0):
    """Convolutions whose activations stay alive (He's scaling), and weights of LPIPS' layers."""
    generator = torch.Generator().manual_seed(seed)
    sides = sides or [3] * len(widths)
    layers = [1, 3, 6, 9, 12] if len(widths) == 13 else range(5)
    found, channels = {}, 3
    for index, (width, side) in enumerate(zip(widths, sides, strict=True)):
        scale = (2 / (side**2 * channels)) ** 0.5
        found[f"conv{index}.weight"] = torch.randn(width, channels, side, side, generator=generator) * scale
        found[f"conv{index}.bias"] = torch.randn(width, generator=generator) * 0.1
        channels = width
    for number, index in enumerate(layers):
        found[f"lin{number}"] = torch.rand(widths[index], generator=generator)
    return found


def random_alexnet(widths=SMALL_ALEXNET):
    return random_weights(widths, [11, 5, 3, 3, 3])


def random_vgg16(widths=SMALL_VGG16):
    return random_weights(widths)
