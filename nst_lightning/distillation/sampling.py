"""Feature maps of teacher and student on the way from the image down, and positions in them to fit layers on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.distillation.network import NAMES, CompactNetwork
from nst_lightning.features.convolutions import LAST_OF_BLOCK

Map = Callable[[Tensor], Tensor]


class LayerSamples:
    """What teacher and student see in one layer after the other, on all images.

    For each layer `targets`, then any of `responses` and `patches`, then `pass_on`. Feature maps of one layer of all
    images are in memory, in half precision. Images are (1, 3, h, w), RGB in [0, 1]; a layer has about so many samples.
    """

    def __init__(self, teacher: CompactNetwork, images: Sequence[Tensor], samples: int, seed: int) -> None:
        self._teacher, self._generator = teacher, torch.Generator().manual_seed(seed)
        self._of_teacher = [_half((image - teacher.mean) / teacher.std) for image in images]
        self._of_student = list(self._of_teacher)
        self._each = -(-samples // len(images))
        self._positions: list[Tensor] = []

    def targets(self, index: int) -> Tensor:
        """What the teacher's convolution of this index returns before ReLU, at newly drawn positions: (N, C)."""
        self._positions = [
            torch.randperm(x[0, 0].numel(), generator=self._generator)[: self._each] for x in self._of_teacher
        ]
        return self._advance(self._of_teacher, self._teacher.convolution(index))

    def responses(self, of: Map) -> Tensor:
        """A map of what the student's layer sees, (1, c, h, w) -> (1, k, h, w), at the positions: (N, k)."""
        return torch.cat([_at(of(x.float()), c) for x, c in zip(self._of_student, self._positions, strict=True)])

    def patches(self, of: Map = lambda x: x) -> Tensor:
        """The same with a position's neighbours, channel by channel as filters have them: (N, 9 k)."""
        return self.responses(lambda x: F.unfold(of(x), 3, padding=1)[..., None])

    def pass_on(self, index: int, layer: Map) -> Tensor:
        """Apply ReLU to what the student's layer returns, go on to the next one, and return values at the positions."""
        values = self._advance(self._of_student, layer).relu()
        if NAMES[index] in LAST_OF_BLOCK:
            self._of_teacher, self._of_student = (
                [F.max_pool2d(x, 2) for x in maps] for maps in (self._of_teacher, self._of_student)
            )
        return values

    def _advance(self, maps: list[Tensor], layer: Map) -> Tensor:
        """Put what a layer makes of maps in their place, behind ReLU; returns values before it at the positions."""
        values = []
        for i, x in enumerate(maps):
            before = layer(x.float())
            values.append(_at(before, self._positions[i]))
            maps[i] = _half(F.relu(before))
        return torch.cat(values)


def _half(x: Tensor) -> Tensor:
    """Half precision, in its range."""
    return x.clamp(max=torch.finfo(torch.half).max).half()


def _at(features: Tensor, positions: Tensor) -> Tensor:
    """Values (N, C) of (1, C, h, w) at flat indices."""
    return features.flatten(2)[0, :, positions].T
