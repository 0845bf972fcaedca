"""Optimisers of two modes: schedule-free ones step from one point and mean another one to be seen.

Defazio et al. 2024, "The Road Less Scheduled": the gradient is that at y, and the result is x, a mean of the iterates.
Their package (schedulefree) holds both in the parameter, x after `eval()` and y after `train()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer


def has_modes(optimizer: Optimizer) -> bool:
    """Whether an optimiser has modes of its own; none of PyTorch's has."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def to_stepping(optimizer: Optimizer) -> None:
    """Let an optimiser step from now on."""
    if has_modes(optimizer):
        cast("Any", optimizer).train()


def to_result(optimizer: Optimizer) -> None:
    """Put what an optimiser has found into its parameters."""
    if has_modes(optimizer):
        cast("Any", optimizer).eval()


@contextlib.contextmanager
def showing_result(optimizer: Optimizer, parameter: Tensor) -> Iterator[None]:
    """Hold the result in the only parameter for a while, and restore to the last bit what is stepped from."""
    if not has_modes(optimizer):
        yield
        return
    stepped_from = parameter.detach().clone()
    to_result(optimizer)
    try:
        yield
    finally:
        to_stepping(optimizer)
        with torch.no_grad():
            parameter.copy_(stepped_from)
