"""VGG-19's convolutions: their names, and a network that has as many in memory as were asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.features.extractor import Extractor
from nst_lightning.features.kernels.convolution import FilterBank
from nst_lightning.features.kernels.direct import DirectFilter
from nst_lightning.features.kernels.factored import FactoredFilter
from nst_lightning.features.kernels.pointwise import pointwise
from nst_lightning.features.kernels.winograd import WinogradFilter
from nst_lightning.hardware.accelerator import multiplies_tiles

# Winograd's algorithm pays where arithmetic costs more than moving data about, which is a matter of channels and of the
# type: the smaller and the larger number of a layer's two must be at least this. Measured on two cores, bfloat16 with
# AVX512-BF16 and float32 with AVX2. With AMX it never pays in bfloat16: arithmetic costs next to nothing there.
WINOGRAD_CHANNELS = {torch.bfloat16: (128, 128), torch.float32: (64, 64)}
_WINOGRAD_CHANNELS_NARROW = {torch.bfloat16: (64, 128), torch.float32: (96, 96)}  # of the narrow part of a layer

BLOCKS = (2, 2, 4, 4, 4)  # convolutions a block; a pooling layer lies between blocks


def layer_names() -> Iterator[tuple[str, str, int]]:
    """Names of each convolution and of its rectified result, and pixels per cell, in order of depth."""
    for block, depth in enumerate(BLOCKS, start=1):
        for index in range(1, depth + 1):
            yield f"conv{block}_{index}", f"relu{block}_{index}", 2 ** (block - 1)


CONVOLUTION_NAMES = tuple(conv for conv, _, _ in layer_names())


def depth_of(layer: str) -> int:
    """Convolutions down to a layer."""
    return CONVOLUTION_NAMES.index(layer.replace("relu", "conv")) + 1


LAST_OF_BLOCK = frozenset(f"conv{block}_{depth}" for block, depth in enumerate(BLOCKS, start=1))


class Weights(NamedTuple):
    """A convolution."""

    weight: Tensor  # (out, in, 3, 3); with fewer of either where the other factors are there, see `FactoredFilter`
    bias: Tensor  # (out,)
    expansion: Tensor | None = None  # (out, r), what follows a convolution that returns r channels
    reduction: Tensor | None = None  # (q, in), what comes before a convolution of q channels


def in_units(convolutions: Iterable[Sequence[Tensor | None]], scale: float) -> list[Weights]:
    """Divide all activations by a number; only the first weight and all biases carry it.

    Rectifiers and pooling commute with positive factors.
    """
    given = (Weights(*found) for found in convolutions)  # type: ignore[arg-type]
    return [w._replace(weight=w.weight if i else w.weight / scale, bias=w.bias / scale) for i, w in enumerate(given)]


class Convolution(nn.Conv2d):
    """A convolution of 3x3, maybe of low rank, whose weights are given."""

    bias: Tensor

    def __init__(self, weights: Weights) -> None:
        weight = weights.weight
        # On no device, or it would draw random weights first, for a second and 80 MB.
        super().__init__(weight.shape[1], weight.shape[0], 3, padding=1, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(weights.bias, requires_grad=False)
        self.expansion, self.reduction = (
            None if factor is None else nn.Parameter(factor, requires_grad=False)
            for factor in (weights.expansion, weights.reduction)
        )

    def forward(self, x: Tensor, padded: bool = False) -> Tensor:
        """Convolve (B, in, H, W), which may have a border already."""
        padding = 0 if padded else 1
        if self.reduction is not None:
            x = pointwise(x, self.reduction)
        if self.expansion is None:
            return F.conv2d(x, self.weight, self.bias, padding=padding)
        return pointwise(F.conv2d(x, self.weight, padding=padding), self.expansion, self.bias)

    def takes_winograd(self, algorithm: str) -> bool:
        """Whether Winograd's algorithm is taken: not without channels enough, and where it never pays if asked for.

        Args:
            algorithm: auto, direct or winograd.
        """
        weight = self.weight
        pays = weight.dtype != torch.bfloat16 or not multiplies_tiles(weight.device)
        if algorithm == "direct" or (algorithm == "auto" and not pays):
            return False
        narrow = self.expansion is not None
        least = (_WINOGRAD_CHANNELS_NARROW if narrow else WINOGRAD_CHANNELS).get(weight.dtype)
        fewer, more = sorted(weight.shape[:2])
        return least is not None and fewer >= least[0] and more >= least[1]

    def filters(self, algorithm: str) -> FilterBank | None:
        """The fast form: the direct one if the algorithm is ``direct``, else Winograd's, or None if not taken."""
        bank: FilterBank
        if algorithm == "direct":
            bank = DirectFilter(self.weight)
        elif self.takes_winograd(algorithm):
            bank = WinogradFilter(self.weight)
        else:
            return None
        return bank if self.expansion is None else FactoredFilter(bank, self.expansion, self.reduction)


class ConvolutionStack(Extractor):
    """Frozen convolutions in VGG-19's order, in memory down to the deepest layer that was asked for.

    Weights are float32, from conv1_1 on, and must fit together; `again` reads them once more, for when they are needed
    as they were given.
    """

    def __init__(self, convolutions: Iterable[Weights], again: Callable[[], Iterable[Weights]]) -> None:
        super().__init__()
        self._prepared_on: torch.device | None = None  # where algorithms were chosen; None when it is to be done anew
        self._asked = 0  # convolutions that the deepest layer asked for needs
        self._lock = threading.RLock()
        self._again = again  # a file read is better than a second copy of everything in memory
        self.convolutions = nn.ModuleList(Convolution(weights) for weights in convolutions)

    def use_layers(self, layers: Iterable[str]) -> None:
        """Release the convolutions below the deepest layer that anyone has asked for; they are read again at need."""
        layers = list(layers)
        self.check_layers(layers, argument="layers")
        with self._lock:
            # One stays where nobody asks for any: it says device and type of those that are read again.
            self._asked = max([1, self._asked, *(depth_of(layer) for layer in layers)])
            if self._asked < len(self.convolutions):
                self.convolutions = self.convolutions[: self._asked]
        self._grow(self._asked)

    def _grow(self, depth: int) -> None:
        """Have at least the first so many convolutions in memory."""
        with self._lock, torch.no_grad():
            have = len(self.convolutions)
            self._asked = max(self._asked, depth)
            if depth <= have:
                return
            given = list(self._again())
            if depth > len(given):
                raise UserError(
                    f"layers: {CONVOLUTION_NAMES[depth - 1]} is not in the file of this {type(self).__name__}, which "
                    f"ends at {CONVOLUTION_NAMES[len(given) - 1]}; take a whole file"
                )
            like = self._convolution(0).weight
            for weights in given[have:depth]:
                self.convolutions.append(Convolution(weights).to(like.device, like.dtype))
            self._prepared_on = None

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Store the convolutions in this type, so that nothing is cast at each evaluation."""
        with self._lock:  # another thread may look through this network already
            if all(weight.dtype == dtype for weight in self.convolutions.parameters()):
                return
            if self._convolution(0).weight.dtype.itemsize < min(4, dtype.itemsize):
                self._restore(dtype)
            self.convolutions.to(dtype=dtype)
            self._prepared_on = None

    @torch.no_grad()
    def _restore(self, dtype: torch.dtype) -> None:
        """Take the weights again as they were given, in a type."""
        for layer, weights in zip(self.convolutions, self._again(), strict=False):
            for name, value in weights._asdict().items():
                if value is not None:
                    getattr(layer, name).data = value.to(getattr(layer, name).device, dtype)
        self._prepared_on = None

    def reachable(self) -> list[str]:
        """Layers that the convolutions in memory reach."""
        kept = CONVOLUTION_NAMES[: len(self.convolutions)]
        return [layer for layer in self.strides if layer.replace("relu", "conv") in kept]

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which no copy shares."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As a copy has it."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.RLock()

    def _convolution(self, index: int) -> Convolution:
        return cast("Convolution", self.convolutions[index])
