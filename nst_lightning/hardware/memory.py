"""How much memory a device has left, and what becomes of memory that was freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import psutil
import torch

from nst_lightning.hardware.host import free_host_memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # constants of malloc.h
# What libraries and threads work with, where memory comes from the heap: strips, too. Measured.
_OF_A_HEAP = 140 << 20
# For what cuBLAS works with PyTorch asks its own allocator, once for each thread that multiplies, of which there are
# two, as the way back has its own: `torch.backends.cuda.cublas_workspace_size` says how much; before there was that
# function, 32 MiB from Hopper on and else little more than 8 (CublasHandlePool.cpp). cuBLASLt shares it.
_THREADS, _OF_CUBLAS = 2, 32 << 20
_OF_KERNELS = 16 << 20  # of convolutions and transforms, while they run: a guess, as it depends on the algorithm
_LARGE = 1200  # pixels of the long side
_ASKED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")  # by the environment


@contextlib.contextmanager
def freed_memory_kept(*, large: bool = False) -> Iterator[None]:
    """Let the C library (glibc, so Linux only) keep freed memory for the next evaluation, as long as the context lasts.

    Feature maps of tens of megabytes are otherwise handed back and fetched again, page by page, several times an
    evaluation, which costs about a tenth of its time.

    glibc cannot be asked for its settings. What the environment says of them stays; else they are afterwards those at
    which its own adjustment ends in a process that frees blocks of 32 MiB: larger blocks are handed back at once, the
    heap's end from 64 MiB on. The adjustment itself stays off, as any setting switches it off for good (mallopt(3)),
    and what the program has set by ``mallopt`` is lost.

    Args:
        large: Hand back blocks of 32 MiB and more, which leave holes in the heap that nothing fits into: for large
            images it takes a twentieth of the time and saves a third of the memory.
    """
    mapped = {_MMAP_MAX: 1 << 16, _MMAP_THRESHOLD: 1 << 25}  # as it comes, and the most that it takes
    for_a_run = {**(mapped if large else {_MMAP_MAX: 0}), _TRIM_THRESHOLD: 2**31 - 1}
    asked = any(name in os.environ for name in _ASKED) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    changed = not asked and _set_malloc(for_a_run)
    try:
        yield
    finally:
        if changed:
            _set_malloc({**mapped, _TRIM_THRESHOLD: 1 << 26})


def is_large(longest: int) -> bool:
    """Whether work on an image of so many pixels a side has blocks of memory that are better handed back than kept."""
    return longest > _LARGE


def hand_back_freed_memory() -> None:
    """Give the system all that was freed and kept for later: work of another size does not fit into it anyway."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    # `torch.accelerator.empty_cache` is an error with PyTorch built for the processor alone, and on MPS before 2.13.
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is not None:
        torch.get_device_module(found.type).empty_cache()


def _set_malloc(settings: dict[int, int]) -> bool:
    """Change settings of glibc's allocator; another library has none of them."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) for name, value in settings.items())


class Supply(NamedTuple):
    """Where memory of a device comes from, as far as plans must know."""

    heap: bool  # with holes between blocks; memory is taken when it is written, and filters have several forms
    working_space: int  # bytes for libraries, besides what tensors hold


HEAP = Supply(True, _OF_A_HEAP)


def supply(device: torch.device | str) -> Supply:
    """Where memory of a device comes from."""
    kind = torch.device(device).type
    if kind == "cpu":
        return HEAP
    ask = getattr(torch.backends.cuda, "cublas_workspace_size", None) if kind == "cuda" else None
    each = _OF_CUBLAS if ask is None else int(ask())
    return Supply(False, _THREADS * each + _OF_KERNELS)


def free_memory(device: torch.device | str) -> int:
    """Bytes that can still be taken on a device, container limits included."""
    kind = torch.device(device).type
    if kind == "cpu":
        return free_host_memory()
    if kind == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    place = torch.device(device)
    # Kept for whoever asks next.
    idle = torch.accelerator.memory_reserved(place) - torch.accelerator.memory_allocated(place)
    return int(torch.accelerator.get_memory_info(place)[0]) + int(idle)


def resident_memory(device: torch.device | str) -> int:
    """Bytes that this process has taken on a device already."""
    kind = torch.device(device).type
    if kind == "cpu":
        return int(psutil.Process().memory_info().rss)
    if kind == "mps":
        return int(torch.mps.current_allocated_memory())
    return int(torch.accelerator.memory_allocated(torch.device(device)))


def bytes_there(tensors: Iterable[torch.Tensor], device: torch.device | str) -> int:
    """Bytes of tensors that lie on a device already; 0 of a heap's, of which nobody can tell what else holds them."""
    kind = torch.device(device).type
    if kind == "cpu":
        return 0
    found = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t.device.type == kind}
    return sum(found.values())


def free_within(limit: float | None, device: torch.device | str) -> int:
    """Bytes that a process can still take on a device of which it may have so many GiB in all; None: no limit."""
    free = free_memory(device)
    return free if limit is None else min(free, max(0, int(limit * 2**30) - resident_memory(device)))


def shares_memory(device: torch.device | str) -> bool:
    """Whether all processes of a machine take their memory for a device from the same place: from the heap, that is."""
    return torch.device(device).type == "cpu"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    said = str(error).lower()
    # Of devices, Windows, Linux, and of cuBLAS, cuDNN and cuFFT, which allocate for themselves.
    words = ("out of memory", "not enough memory", "allocate memory", "alloc_failed", "allocation_failed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(some in said for some in words)
