"""Bytes of a device that tensors hold, now and at most."""

from __future__ import annotations

import weakref

import torch

_BLOCK = 512  # bytes that PyTorch's allocator for CUDA rounds each request up to


class LiveBytes:
    """What `torch.cuda.memory_allocated` and `max_memory_allocated` would say of tensors.

    Each storage counts once, however many tensors look at it, until the last one is gone. Not counted is what kernels
    and libraries take for themselves, nor that the allocator leaves up to 1 MiB at the end of a large block undivided.

    Attributes:
        now: Bytes.
        peak: The most there were since `begin`.
    """

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}  # by address of the storage

    def begin(self) -> None:
        """Forget the peak."""
        self.peak = self.now

    def hold(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, if it is a new one."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._sizes:
            return
        self._sizes[address] = size = -(-storage.nbytes() // _BLOCK) * _BLOCK
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, address).atexit = False  # type: ignore[misc]

    def _release(self, address: int) -> None:
        self.now -= self._sizes.pop(address)
