"""Processes that work on one picture together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Collective(Protocol):
    """Processes that divide the tiles of a picture among themselves.

    Attributes:
        rank: Which of them this is.
        size: How many there are.
    """

    rank: int
    size: int

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place; the same bits for all of them."""
        ...


class OneProcess:
    """A process that does all the work by itself."""

    rank, size = 0, 1

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are: there is nothing to add."""


class ProcessGroup:
    """The processes of torch.distributed's default group."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Add up over the processes, with one message for all tensors of a type."""
        for kind in sorted({tensor.dtype for tensor in tensors}, key=str):
            some = [tensor for tensor in tensors if tensor.dtype == kind]
            if len(some) == 1 and some[0].is_contiguous():
                dist.all_reduce(some[0])
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in some])
            dist.all_reduce(flat)
            for tensor, summed in zip(some, torch.split(flat, [t.numel() for t in some]), strict=True):
                tensor.copy_(summed.view_as(tensor))
