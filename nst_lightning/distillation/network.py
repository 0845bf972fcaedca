"""The student: VGG-19's layers with fewer channels, and linear maps to the teacher's width, or of low rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.features.compact import TAPS, CompactVGG19
from nst_lightning.features.convolutions import CONVOLUTION_NAMES, LAST_OF_BLOCK
from nst_lightning.features.extractor import Extractor, Features
from nst_lightning.features.weights import IMAGENET_MEAN, IMAGENET_STD

TEACHER_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512)  # conv1_1 ... conv5_1
NAMES = CONVOLUTION_NAMES[: len(TEACHER_WIDTHS)]


class CompactNetwork(Extractor):
    """A trainable VGG-19 of any widths and ranks, for batches; the extractor that ships is `CompactVGG19`.

    Widths are the channels of conv1_1 ... conv5_1. Ranks are of what each convolution returns, 0 for those that are not
    factored (see `FactoredFilter`), and for these of what it sees, 0 for all channels.
    """

    strides = CompactVGG19.strides

    def __init__(
        self,
        widths: Sequence[int],
        teacher_widths: Sequence[int] = TEACHER_WIDTHS,
        ranks: Sequence[int] = (),
        input_ranks: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.widths, self.teacher_widths = tuple(widths), tuple(teacher_widths)
        self.ranks = tuple(ranks) or (0,) * len(self.widths)
        self.input_ranks = tuple(input_ranks) or (0,) * len(self.widths)
        channels = (3, *self.widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(seen or before, rank or after, 3, padding=1, bias=not rank)
            for before, after, rank, seen in zip(channels, self.widths, self.ranks, self.input_ranks, strict=False)
        )
        self.expansions = nn.ModuleDict(
            {str(i): nn.Conv2d(rank, self.widths[i], 1) for i, rank in enumerate(self.ranks) if rank}
        )
        self.reductions = nn.ModuleDict(
            {str(i): nn.Conv2d(channels[i], n, 1, bias=False) for i, n in enumerate(self.input_ranks) if n}
        )
        self.maps = nn.ParameterDict(
            {
                name.replace("conv", "relu"): nn.Parameter(torch.eye(theirs, ours))
                for name, theirs, ours in zip(NAMES, teacher_widths, self.widths, strict=True)
                if name.replace("conv", "relu") in TAPS and theirs != ours
            }
        )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def convolution(self, index: int) -> nn.Conv2d:
        """The convolution of `NAMES` at this index, or its factor of 3x3."""
        return cast("nn.Conv2d", self.convolutions[index])

    def expansion(self, index: int) -> nn.Conv2d | None:
        """The last factor of a convolution of low rank, with the bias."""
        return cast("nn.Conv2d", self.expansions[str(index)]) if self.ranks[index] else None

    def reduction(self, index: int) -> nn.Conv2d | None:
        """The first factor of a convolution of low rank that sees few channels."""
        return cast("nn.Conv2d", self.reductions[str(index)]) if self.input_ranks[index] else None

    def factors(self, index: int) -> list[nn.Conv2d]:
        """What the convolution of this index consists of."""
        return [f for f in (self.reduction(index), self.convolution(index), self.expansion(index)) if f is not None]

    def convolve(self, index: int, x: Tensor) -> Tensor:
        """A layer before its ReLU: (B, in, H, W) -> (B, out, H, W)."""
        reduction = self.reduction(index)
        result: Tensor = self.convolution(index)(x if reduction is None else reduction(x))
        expansion = self.expansion(index)
        return result if expansion is None else cast("Tensor", expansion(result))

    def use_layers(self, layers: Iterable[str]) -> None:
        """Check that these layers exist; all stay, since others may be asked for later."""
        self.check_layers(layers, argument="layers")

    def projection(self, layer: str) -> Tensor | None:
        """The map of a layer to the teacher's channels (C, c) as it is now, or None where there is no need of one."""
        return self.maps[layer].detach() if layer in self.maps else None

    def forward(self, image: Tensor, layers: Iterable[str] = TAPS) -> Features:
        """Compute narrow features of (B, 3, H, W), RGB in [0, 1]: (B, c, h, w) a layer, c being the student's width."""
        wanted, found = set(layers), {}
        x = (image - self.mean) / self.std
        for index, name in enumerate(NAMES):
            x = F.relu(self.convolve(index, x))
            tap = name.replace("conv", "relu")
            if tap in wanted:
                found[tap] = x
                if len(found) == len(wanted):
                    break
            if name in LAST_OF_BLOCK:
                x = F.max_pool2d(x, 2)
        return found

    def project(self, tap: str, features: Tensor) -> Tensor:
        """Apply a layer's map to narrow features (B, c, h, w): the teacher's channels, (B, C, h, w)."""
        return torch.einsum("tc,bchw->bthw", self.maps[tap], features) if tap in self.maps else features

    def backproject(self, tap: str, gradient: Tensor) -> Tensor:
        """Turn a gradient of the teacher's channels (B, C, h, w) into one of narrow features: `project` transposed."""
        return torch.einsum("tc,bthw->bchw", self.maps[tap], gradient) if tap in self.maps else gradient

    def projected_gram(self, tap: str, features: Tensor) -> Tensor:
        """Gram matrices (B, C, C) of the projected features, formed from the narrow ones.

        In plain operations, which training differentiates twice; `gram_matrix` can be differentiated once.
        """
        flat = features.flatten(2)
        narrow: Tensor = flat @ flat.transpose(1, 2) / flat.shape[2]
        return self.maps[tap] @ narrow @ self.maps[tap].T if tap in self.maps else narrow


def teacher_widths(teacher: VGG19) -> list[int]:
    """Channels of conv1_1 ... conv5_1."""
    return [cast("nn.Conv2d", layer).out_channels for layer in teacher.convolutions[: len(NAMES)]]


def teacher_network(teacher: VGG19) -> CompactNetwork:
    """VGG-19 in the form of a student with all channels."""
    full = CompactNetwork(teacher_widths(teacher), teacher_widths(teacher))
    for index in range(len(NAMES)):
        full.convolution(index).load_state_dict(teacher.convolutions[index].state_dict())
    return full


def check_sizes(
    widths: Sequence[int], full: Sequence[int], ranks: Sequence[int] | None, input_ranks: Sequence[int] | None
) -> None:
    """Refuse by a UserError widths and ranks that no student of a teacher with full widths can have."""
    if len(widths) != len(full) or not all(0 < w <= most for w, most in zip(widths, full, strict=True)):
        raise UserError(f"model.widths: must be {len(full)} numbers from 1 to VGG-19's own {full}, got {widths}")
    for name, given in (("ranks", ranks), ("input_ranks", input_ranks)):
        if given is not None and (len(given) != len(widths) or min(given) < 0):
            raise UserError(f"model.{name}: must be {len(widths)} numbers of at least 0, got {given}")
    of_outputs = ranks or [0] * len(widths)
    if any(q and not r for q, r in zip(input_ranks or (), of_outputs, strict=False)):
        raise UserError(f"model.input_ranks: must be 0 where model.ranks is, got {input_ranks}")
