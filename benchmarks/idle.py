"""Evaluations without arithmetic, to see in a fraction of the time what memory a run takes.

Feature maps, codes, gradients and all that the optimiser holds are asked for and written as ever; convolutions and
products of channels return what costs nothing to compute.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nst_lightning.engine.module import StyleTransfer
from nst_lightning.features.kernels import direct, strips, winograd
from nst_lightning.features.kernels.factored import FactoredFilter
from nst_lightning.losses import reductions

_ROWS = 16  # written at a time
_SCRATCH = 12 << 20  # values in half precision that convolutions work with

_scratch: list[Tensor] = []


def leave_arithmetic_out() -> None:
    """Do so from now on, in this process.

    The gradient is replaced by one that L-BFGS makes pairs of.
    """
    for bank in (direct.DirectFilter, winograd.WinogradFilter, FactoredFilter):
        bank.convolve = _convolve  # type: ignore[assignment, method-assign]
        bank.input_gradient = _input_gradient  # type: ignore[assignment, method-assign]
    reductions.torch = _Idle()  # type: ignore[attr-defined]
    reductions._multiply_halves = lambda cells, refine: _alike(cells)  # type: ignore[attr-defined]
    reductions._multiply = _alike  # type: ignore[attr-defined]
    _scratch.append(torch.zeros(_SCRATCH, dtype=torch.bfloat16))
    backward = StyleTransfer.backward

    def with_pairs(self: StyleTransfer, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        backward(self, loss, *args, **kwargs)
        assert self.image.grad is not None
        torch.mul(self.image.detach(), 1e-6, out=self.image.grad)

    StyleTransfer.backward = with_pairs  # type: ignore[method-assign]


def _convolve(self: Any, source: strips.Source, sink: Any, bias: Tensor | None) -> None:
    _write(source, sink)


def _input_gradient(self: Any, source: strips.Source, sink: Any) -> None:
    _write(source, sink)


def _write(source: strips.Source, sink: Any) -> None:
    """Rows that are all alike, through the sink's own ReLU and pooling."""
    height, width, _ = source.shape
    rows = sink.result.new_full((_ROWS, width, sink.result.shape[1]), 0.01)
    for top in range(0, height, _ROWS):
        sink.write(top, rows[: min(_ROWS, height - top)])


def _alike(cells: Tensor) -> Tensor:
    """A product of channels, as all pictures have it."""
    return torch.eye(cells.shape[1], dtype=torch.promote_types(cells.dtype, torch.float32)) * len(cells)


class _Idle:
    """PyTorch, but for products."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def mm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        """Of the right size."""
        out = a.new_empty(len(a), b.shape[1]) if out is None else out
        return out.fill_(0.01)

    @staticmethod
    def addmm(bias: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        """Likewise."""
        return _Idle.mm(a, b, out)
