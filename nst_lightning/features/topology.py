"""VGG-19's layers (Simonyan and Zisserman, 2015) at any widths: names, order of arithmetic, early stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.features.convolutions import (
    CONVOLUTION_NAMES,
    LAST_OF_BLOCK,
    Convolution,
    ConvolutionStack,
    Weights,
    depth_of,
    layer_names,
)
from nst_lightning.features.extractor import Features, MemoryUse
from nst_lightning.features.footprint import Step, footprint, footprint_of_operations, on_the_way
from nst_lightning.features.kernels.convolution import FilterBank, frozen_conv2d
from nst_lightning.features.kernels.pooling import average_pool, l2_pool, max_pool
from nst_lightning.features.weights import IMAGENET_MEAN, IMAGENET_STD
from nst_lightning.hardware.accelerator import prefers_large_operations
from nst_lightning.hardware.numerics import without_autocast

Pooling = Literal["max", "average", "l2"]
Padding = Literal["zeros", "replicate"]
Algorithm = Literal["auto", "direct", "winograd"]

# Factors that bring the mean magnitude after pooling back to that of max pooling, as in Crowson's
# style-transfer-pytorch; without them deep layers fade.
POOLING_RESCALE = {"max": 1.0, "average": 2.0, "l2": 0.78}


POOLS: dict[Pooling, Callable[[Tensor], Tensor]] = {"max": max_pool, "average": average_pool, "l2": l2_pool}


class VGGNetwork(ConvolutionStack):
    """Frozen convolutions in VGG-19's order, only as deep as the deepest layer asked for.

    For the convolutions see `ConvolutionStack`, for the choices `VGG19`; one that does not exist is a UserError.
    """

    strides = {name: stride for conv, relu, stride in layer_names() for name in (conv, relu)}  # noqa: RUF012

    def __init__(
        self,
        convolutions: Iterable[Weights],
        pooling: Pooling,
        rescale_pooling: bool,
        padding: Padding,
        convolution: Algorithm,
        again: Callable[[], Iterable[Weights]],
    ) -> None:
        super().__init__(convolutions, again)
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
        self._order = torch.contiguous_format
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def halo(self, layers: Iterable[str]) -> int:
        """See the base class; a convolution spoils one more cell, and pooling one of two is spoilt."""
        wanted, spoilt, reach = set(layers), 0, 0
        for name, rectified, stride in layer_names():
            spoilt += 1
            if name in wanted or rectified in wanted:
                reach = spoilt * stride
            if name in LAST_OF_BLOCK:
                spoilt = -(-spoilt // 2)
        return reach

    def memory(self, layers: Iterable[str], held: Mapping[str, float] | None = None) -> MemoryUse:
        """See the base class; `footprint` says what is counted."""
        wanted, held = set(layers), held or {}
        networks = 2 if self.unit_activations else 1  # itself, and the copy that `rescaled` makes
        filters, plain, inputs, steps, apart = 0, 0, 3.0, list[Step](), list[Step]()
        depth = max([1, *(depth_of(layer) for layer in wanted)])  # others may be in memory, for another run
        per_pixel: dict[str, float] = {}
        for index, ((name, rectified, stride), layer) in enumerate(
            zip(layer_names(), self.convolutions, strict=False), start=1
        ):
            convolution = cast("Convolution", layer)
            weight = convolution.weight
            values = per_pixel[name] = per_pixel[rectified] = len(convolution.bias) / stride**2
            transformed = 5 if convolution.takes_winograd(self.convolution) else 2
            filters += networks * transformed * weight.numel() * weight.dtype.itemsize
            plain += networks * sum(p.numel() * p.element_size() for p in convolution.parameters())
            if index > depth:
                continue
            pool = name in LAST_OF_BLOCK and index < depth
            here = wanted & {name, rectified}
            fused = pool and not here and self.pooling != "l2"
            left = held.get(name, 0.0) + held.get(rectified, 0.0)
            steps.append(Step(inputs, values, bool(here), fused, 1 + (name in wanted), left))
            apart.append(steps[-1]._replace(pooled=pool))
            inputs = values / 4 if pool else values
        itemsize = self._convolution(0).weight.dtype.itemsize
        sums = on_the_way(apart, itemsize)
        reached = {
            name: sums[index] for index, names in enumerate(layer_names()) for name in names[:2] if index < len(sums)
        }
        there = MemoryUse(plain, *footprint_of_operations(apart, itemsize), per_pixel, itemsize, reached)
        return MemoryUse(filters, *footprint(steps, itemsize), per_pixel, itemsize, accelerated=there)

    def _choose_algorithms(self) -> tuple[torch.memory_format, dict[int, FilterBank]]:
        """Transform the filters of layers with many channels, before feature maps fill the memory between them.

        Returns:
            The order of dimensions that the layers want, and the transformed filters by layer. Channels lie innermost
            for matrix products, that is in half precision and in Winograd's algorithm. Elsewhere the gain is small, and
            the plain order makes every feature equal torchvision's to the last bit.
        """
        with self._lock:  # another thread may look through this network, too
            first = self._convolution(0).weight
            if self._prepared_on != first.device:
                automatic = self.convolution == "auto" and not prefers_large_operations(first.device)
                filters = self._transformed({}, choose=False) if automatic or self.convolution == "winograd" else {}
                inside = bool(filters) or first.dtype.itemsize == 2
                self._order = torch.channels_last if inside else torch.contiguous_format
                self.convolutions.to(memory_format=self._order)  # type: ignore[call-overload, unused-ignore]
                self._filters = filters | self._transformed(filters, choose=True) if inside and automatic else filters
                self._prepared_on = first.device
            return self._order, self._filters

    def _transformed(self, known: Container[int], *, choose: bool) -> dict[int, FilterBank]:
        """Filters by layer: those that Winograd's algorithm pays for or, to choose, all not yet known."""
        layers = [i for i in range(choose and self.padding == "replicate", len(self.convolutions)) if i not in known]
        algorithm = "direct" if choose else self.convolution
        found = {index: self._convolution(index).filters(algorithm) for index in layers}
        return {index: bank for index, bank in found.items() if bank is not None}

    def _convolve(self, index: int, x: Tensor) -> Tensor:
        convolution = self._convolution(index)
        if index == 0 and self.padding == "replicate":
            return convolution.forward(F.pad(x, (1, 1, 1, 1), mode="replicate"), padded=True)
        return cast("Tensor", convolution(x))

    def _steps(self, image: Tensor, wanted: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield the wanted layers in order, and go no further than they are taken."""
        self._grow(max(depth_of(layer) for layer in wanted))
        order, filters = self._choose_algorithms()
        x = ((image - self.mean) / self.std).to(self._convolution(0).weight.dtype, memory_format=order)
        may_fuse = bool(filters) and _is_finite(image)
        for index, name in enumerate(CONVOLUTION_NAMES[: len(self.convolutions)]):
            rectified = name.replace("conv", "relu")
            pool = self.pooling if name in LAST_OF_BLOCK and index + 1 < len(self.convolutions) else None
            if index in filters:
                bias = self._convolution(index).bias
                rectify = name not in wanted and may_fuse
                fused = pool if rectify and rectified not in wanted and pool != "l2" else None
                x = frozen_conv2d(x, filters[index], bias, rectify, fused)
                if name in wanted:
                    yield name, x
                if not rectify:
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
        """Compute feature maps."""
        return dict(self.iterate(image, layers))

    def iterate(self, image: Tensor, layers: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield feature maps in order of depth, and go no deeper than the last."""
        missing = wanted = set(layers)
        if not wanted:
            return
        # The module decides the type of the arithmetic by the type of its weights, once, not at each operation.
        with without_autocast(image.device):
            for name, x in self._steps(image, wanted):
                yield name, x
                missing = missing - {name}
                if not missing:
                    return


def _is_finite(image: Tensor) -> bool:
    """Whether a picture holds nothing but numbers; to be told so would keep an accelerator waiting, and is not asked.

    Where ReLU is computed with what comes before it, a CPU's library makes 0 of NaN, and nobody would learn of it.
    """
    return prefers_large_operations(image.device) or bool(image.detach().sum().isfinite())


def check_choice(argument: str, value: str, allowed: object) -> None:
    """Refuse a value that a Literal type does not list.

    Raises:
        UserError: With the valid ones.
    """
    if value not in get_args(allowed):
        raise UserError(f"model.extractor.{argument}: must be one of {', '.join(get_args(allowed))}, got {value}")
