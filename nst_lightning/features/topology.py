"""VGG-19's layers (Simonyan and Zisserman, 2015) at any widths: names, order of arithmetic, early stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_lightning.errors import UserError
from nst_lightning.features.extractor import Extractor, Features, MemoryUse
from nst_lightning.features.kernels.convolution import FilterBank, frozen_conv2d
from nst_lightning.features.kernels.direct import DirectFilter
from nst_lightning.features.kernels.factored import FactoredFilter
from nst_lightning.features.kernels.pooling import average_pool, l2_pool, max_pool
from nst_lightning.features.kernels.winograd import WinogradFilter
from nst_lightning.features.weights import IMAGENET_MEAN, IMAGENET_STD

Pooling = Literal["max", "average", "l2"]
Padding = Literal["zeros", "replicate"]
Algorithm = Literal["auto", "direct", "winograd"]

# Winograd's algorithm pays where arithmetic costs more than moving data about, which is a matter of channels and of the
# type: the smaller and the larger number of a layer's two must be at least this. Measured on two cores, bfloat16 with
# AVX512-BF16 and float32 with AVX2.
WINOGRAD_CHANNELS = {torch.bfloat16: (128, 128), torch.float32: (64, 64)}
_WINOGRAD_CHANNELS_NARROW = {torch.bfloat16: (64, 128), torch.float32: (96, 96)}  # of the narrow part of a layer

_WORKING_SPACE = 350 << 20  # bytes of strips, thread pools and what the allocator holds back

BLOCKS = (2, 2, 4, 4, 4)  # convolutions a block; a pooling layer lies between blocks

# Factors that bring the mean magnitude after pooling back to that of max pooling, as in Crowson's
# style-transfer-pytorch; without them deep layers fade.
POOLING_RESCALE = {"max": 1.0, "average": 2.0, "l2": 0.78}


def _names() -> Iterator[tuple[str, str, int]]:
    for block, depth in enumerate(BLOCKS, start=1):
        for index in range(1, depth + 1):
            yield f"conv{block}_{index}", f"relu{block}_{index}", 2 ** (block - 1)


CONVOLUTION_NAMES = tuple(conv for conv, _, _ in _names())


def _depth(layer: str) -> int:
    """Convolutions down to a layer."""
    return CONVOLUTION_NAMES.index(layer.replace("relu", "conv")) + 1


LAST_OF_BLOCK = frozenset(f"conv{block}_{depth}" for block, depth in enumerate(BLOCKS, start=1))
POOLS: dict[Pooling, Callable[[Tensor], Tensor]] = {"max": max_pool, "average": average_pool, "l2": l2_pool}


class Weights(NamedTuple):
    """A convolution.

    Attributes:
        weight: (out, in, 3, 3); with fewer of either where the other factors are there, see `FactoredFilter`.
        bias: (out,).
        expansion: (out, r), what follows a convolution that returns r channels.
        reduction: (q, in), what comes before a convolution of q channels.
    """

    weight: Tensor
    bias: Tensor
    expansion: Tensor | None = None
    reduction: Tensor | None = None


class _Convolution(nn.Conv2d):
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
            x = F.conv2d(x, self.reduction[:, :, None, None])
        if self.expansion is None:
            return F.conv2d(x, self.weight, self.bias, padding=padding)
        return F.conv2d(F.conv2d(x, self.weight, padding=padding), self.expansion[:, :, None, None], self.bias)

    @property
    def wide(self) -> bool:
        """Whether there are channels enough for Winograd's algorithm to pay."""
        narrow = self.expansion is not None
        least = (_WINOGRAD_CHANNELS_NARROW if narrow else WINOGRAD_CHANNELS).get(self.weight.dtype)
        fewer, more = sorted(self.weight.shape[:2])
        return least is not None and fewer >= least[0] and more >= least[1]

    def filters(self, *, winograd: bool, choose: bool) -> FilterBank | None:
        """The fast form.

        Args:
            winograd: Whether Winograd's algorithm may be taken where it pays.
            choose: Whether the layer is to have a form of its own also where it does not.
        """
        bank: FilterBank
        if winograd and self.wide:
            bank = WinogradFilter(self.weight)
        elif choose:
            bank = DirectFilter(self.weight)
        else:
            return None
        return bank if self.expansion is None else FactoredFilter(bank, self.expansion, self.reduction)


class VGGNetwork(Extractor):
    """Frozen convolutions in VGG-19's order, only as deep as the deepest layer asked for.

    Args:
        convolutions: Float32 weights from conv1_1 on; they must fit together.
        pooling: Max as in the trained network, average as Gatys et al. advise, or l2 (root mean square).
        rescale_pooling: For average and l2: multiply by the factor that keeps magnitudes at those of max pooling.
        padding: What the first layer sees beyond the border: zeros (the mean colour) or the nearest pixel.
        convolution: Algorithm of wide layers: direct; winograd, with fewer products and more rounding (2e-6 of a
            layer's values in float32, 0.006 in bfloat16); or auto, which is winograd on a CPU (a third less time for
            an evaluation) and direct elsewhere and in float64.
        again: Reads the convolutions once more, for when they are needed as they were given.

    Raises:
        UserError: If a choice does not exist.
    """

    strides = {name: stride for conv, relu, stride in _names() for name in (conv, relu)}  # noqa: RUF012

    def __init__(
        self,
        convolutions: Iterable[Weights],
        pooling: Pooling,
        rescale_pooling: bool,
        padding: Padding,
        convolution: Algorithm,
        again: Callable[[], Iterable[Weights]],
    ) -> None:
        super().__init__()
        check_choice("pooling", pooling, Pooling)
        check_choice("padding", padding, Padding)
        check_choice("convolution", convolution, Algorithm)
        if rescale_pooling and pooling == "max":
            raise UserError(
                "model.extractor.rescale_pooling: needs pooling average or l2, got max; leave one of them out"
            )
        self.pooling: Pooling = pooling
        self.padding: Padding = padding
        self.pooling_scale = POOLING_RESCALE[pooling] if rescale_pooling else 1.0
        self.convolution: Algorithm = convolution
        self._filters: dict[int, FilterBank] = {}  # by layer, from the weights as they are
        self._prepared_on: torch.device | None = None  # where algorithms were chosen; None when it is to be done anew
        self._order = torch.contiguous_format
        self._asked = 0  # convolutions that the deepest layer asked for needs
        self._growing = threading.RLock()
        self._again = again  # a file read is better than a second copy of everything in memory
        self.convolutions = nn.ModuleList(_Convolution(weights) for weights in convolutions)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def use_layers(self, layers: Iterable[str]) -> None:
        """Release the convolutions below the deepest layer that anyone has asked for; they are read again at need."""
        layers = list(layers)
        self.check_layers(layers, argument="layers")
        with self._growing:
            self._asked = max([self._asked, *(_depth(layer) for layer in layers)])
            if self._asked < len(self.convolutions):
                self.convolutions = self.convolutions[: self._asked]
        self._grow(self._asked)

    def _grow(self, depth: int) -> None:
        """Have at least the first so many convolutions in memory."""
        with self._growing, torch.no_grad():
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
                self.convolutions.append(_Convolution(weights).to(like.device, like.dtype))
            self._prepared_on = None

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Store the convolutions in this type, so that nothing is cast at each evaluation; see the base class."""
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

    def halo(self, layers: Iterable[str]) -> int:
        """See the base class; a convolution spoils one more cell, and pooling one of two is spoilt."""
        wanted, spoilt, reach = set(layers), 0, 0
        for name, rectified, stride in _names():
            spoilt += 1
            if name in wanted or rectified in wanted:
                reach = spoilt * stride
            if name in LAST_OF_BLOCK:
                spoilt = -(-spoilt // 2)
        return reach

    def memory(self, layers: Iterable[str]) -> MemoryUse:
        """See the base class; each layer keeps its rectified result, or a byte a cell where it is pooled at once.

        When the pass back reaches the first layers, their results and two gradients of their size are there. Measured
        on a CPU.
        """
        wanted, kept = set(layers), 0.0
        first = self._convolution(0).weight
        widest = 0.0
        fixed = _WORKING_SPACE
        per_pixel: dict[str, float] = {}
        for (name, rectified, stride), layer in zip(_names(), self.convolutions, strict=False):
            convolution = cast("_Convolution", layer)
            weight = convolution.weight
            values = per_pixel[name] = per_pixel[rectified] = len(convolution.bias) / stride**2
            transformed = 5 if convolution.wide and self.convolution != "direct" else 2
            fixed += transformed * weight.numel() * weight.dtype.itemsize
            fused = name in LAST_OF_BLOCK and not wanted & {name, rectified} and self.pooling != "l2"
            kept += values / 4 if fused else values * weight.dtype.itemsize
            widest = max(widest, values * weight.dtype.itemsize * (not fused))
        return MemoryUse(fixed, 1.05 * max(kept, 3 * widest), 2.5 * widest, per_pixel, first.dtype.itemsize)

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which no copy shares."""
        return {name: value for name, value in self.__dict__.items() if name != "_growing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As a copy has it."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._growing = threading.RLock()

    def _convolution(self, index: int) -> _Convolution:
        return cast("_Convolution", self.convolutions[index])

    def _choose_algorithms(self) -> torch.memory_format:
        """Transform the filters of wide layers, before feature maps come to lie between what stays in memory.

        Returns:
            The order of dimensions that the layers want: channels lie innermost for matrix products, that is in half
            precision and in Winograd's algorithm. Elsewhere the gain is small, and the plain order makes every feature
            equal torchvision's to the last bit.
        """
        first = self._convolution(0).weight
        if self._prepared_on != first.device:
            self._prepared_on = first.device
            self._filters.clear()
            automatic = self.convolution == "auto" and first.device.type == "cpu"
            if automatic or self.convolution == "winograd":
                self._take_filters(choose=False)
            inside = bool(self._filters) or first.dtype.itemsize == 2
            self._order = torch.channels_last if inside else torch.contiguous_format
            self.convolutions.to(memory_format=self._order)  # type: ignore[call-overload, unused-ignore]
            if inside and automatic:
                self._take_filters(choose=True)
        return self._order

    def _take_filters(self, *, choose: bool) -> None:
        for index in range(choose and self.padding == "replicate", len(self.convolutions)):
            if index not in self._filters:
                found = self._convolution(index).filters(winograd=not choose, choose=choose)
                if found is not None:
                    self._filters[index] = found

    def _convolve(self, index: int, x: Tensor) -> Tensor:
        convolution = self._convolution(index)
        if index == 0 and self.padding == "replicate":
            return convolution.forward(F.pad(x, (1, 1, 1, 1), mode="replicate"), padded=True)
        return cast("Tensor", convolution(x))

    def _steps(self, image: Tensor, wanted: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the wanted layers in order, and go no further than they are taken."""
        self._grow(max(_depth(layer) for layer in wanted))
        order = self._choose_algorithms()
        x = ((image - self.mean) / self.std).to(self._convolution(0).weight.dtype, memory_format=order)
        for index, name in enumerate(CONVOLUTION_NAMES[: len(self.convolutions)]):
            rectified = name.replace("conv", "relu")
            pool = self.pooling if name in LAST_OF_BLOCK and index + 1 < len(self.convolutions) else None
            if index in self._filters:
                bias = self._convolution(index).bias
                rectify = name not in wanted
                fused = pool if rectify and rectified not in wanted and pool != "l2" else None
                x = frozen_conv2d(x, self._filters[index], bias, rectify, fused)
                if not rectify:
                    yield name, x
                    x = F.relu(x)
            else:
                fused = None
                x = self._convolve(index, x)
                if name in wanted:
                    yield name, x
                x = F.relu(x, inplace=name not in wanted)
            if rectified in wanted:
                yield rectified, x
            if pool:
                if not fused:
                    x = POOLS[pool](x)
                if self.pooling_scale != 1.0:
                    x = x * self.pooling_scale

    def forward(self, image: Tensor, layers: Iterable[str]) -> Features:
        """Compute feature maps; see the base class."""
        return dict(self.iterate(image, layers))

    def iterate(self, image: Tensor, layers: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield feature maps in order of depth, and go no deeper than the last; see the base class."""
        missing = wanted = set(layers)
        if not wanted:
            return
        # The module decides the type of the arithmetic by the type of its weights, once, not at each operation.
        with torch.autocast(image.device.type, enabled=False):
            for name, x in self._steps(image, wanted):
                yield name, x
                missing = missing - {name}
                if not missing:
                    return


def check_choice(argument: str, value: str, allowed: object) -> None:
    """Refuse a value that a Literal type does not list.

    Raises:
        UserError: With the valid ones.
    """
    if value not in get_args(allowed):
        raise UserError(f"model.extractor.{argument}: must be one of {', '.join(get_args(allowed))}, got {value}")
