"""Three small networks, each of which sees a window and says whether it holds a face, and where in it.

Zhang et al. 2016, Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.faces.weights import Shape, read_weights


class _Layer(NamedTuple):
    """A convolution with PReLU, and the maximum over some of its cells."""

    channels: int
    kernel: int
    pool: tuple[int, int] | None = None  # kernel and stride
    ceil: bool = True  # whether windows that reach over the edge count


class _Kind(NamedTuple):
    layers: Sequence[_Layer]
    hidden: int  # units behind the convolutions, 0 for none: heads are then convolutions of 1x1
    heads: Sequence[int]  # units of each: the window's offsets, landmarks, and face or not
    cells: int  # that the last convolution leaves, a side


_KINDS = {
    "pnet": _Kind((_Layer(10, 3, (2, 2)), _Layer(16, 3), _Layer(32, 3)), 0, (4, 2), 1),
    "rnet": _Kind((_Layer(28, 3, (3, 2)), _Layer(48, 3, (3, 2), False), _Layer(64, 2)), 128, (4, 2), 3),
    "onet": _Kind(
        (_Layer(32, 3, (3, 2)), _Layer(64, 3, (3, 2), False), _Layer(64, 3, (2, 2)), _Layer(128, 2)),
        256,
        (4, 10, 2),
        3,
    ),
}


class Cascaded:
    """One of the three, by name: ``pnet`` looks at windows of 12 px, everywhere, ``rnet`` of 24, ``onet`` of 48."""

    def __init__(self, name: str) -> None:
        self._kind = _KINDS[name]
        self._arrays = read_weights(name, _shapes(self._kind))

    def __call__(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """What is in windows.

        Args:
            windows: (N, 3, H, W), RGB in [-1, 1].

        Returns:
            Probabilities of a face (N,), and offsets of its left, top, right and bottom from the window's in shares of
            the window (N, 4); of ``pnet``, which takes pictures of any size, (N, h, w) and (N, 4, h, w).
        """
        kind, arrays = self._kind, iter(self._arrays)
        values = windows
        for layer in kind.layers:
            kernel, bias, slope = next(arrays), next(arrays), next(arrays)
            values = F.prelu(F.conv2d(values, kernel.permute(3, 2, 0, 1), bias), slope.flatten())
            if layer.pool is not None:
                values = F.max_pool2d(values, *layer.pool, ceil_mode=layer.ceil)
        if kind.hidden:  # columns first, then rows, then channels
            kernel, bias, slope = next(arrays), next(arrays), next(arrays)
            values = F.prelu(values.permute(0, 3, 2, 1).flatten(1) @ kernel + bias, slope)
        heads = [
            values @ kernel + bias if kind.hidden else F.conv2d(values, kernel.permute(3, 2, 0, 1), bias)
            for kernel, bias in zip(arrays, arrays, strict=True)
        ]
        return torch.softmax(heads[-1], dim=1)[:, 1], heads[0]


def _shapes(kind: _Kind) -> list[Shape]:
    """Of the arrays in the order in which they are stored, with channels last, as Keras has them."""
    shapes: list[Shape] = []
    channels = 3
    for layer in kind.layers:
        shapes += [(layer.kernel, layer.kernel, channels, layer.channels), (layer.channels,), (1, 1, layer.channels)]
        channels = layer.channels
    if kind.hidden:
        shapes += [(channels * kind.cells**2, kind.hidden), (kind.hidden,), (kind.hidden,)]
    for units in kind.heads:
        shapes += [(kind.hidden, units) if kind.hidden else (1, 1, channels, units), (units,)]
    return shapes
