"""What decides the bits of a result: types, the number of threads, autocast, random numbers."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch

from nst_lightning.hardware.accelerator import has_float64, multiplies_tiles

_TILE = 32  # bfloat16 numbers of a row that AMX multiplies at a time
_FEW, _SHARED = 128, 512  # terms that oneDNN always adds up alike, and gives to two threads or more
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


def threads_share_sums(device: torch.device | str, dtype: torch.dtype, terms: int) -> bool:
    """Whether the bits of a product of matrices depend on the number of threads, for sums of so many terms.

    Where a processor has AMX, oneDNN (3.12) lets threads share out the sums of a bfloat16 product, 256 terms each at
    least. And it adds up 32 terms at a time or, where they divide evenly, some less, as it sees fit for the rows that
    a thread has; not so for few. Its convolutions, and its products on other processors, do neither.
    """
    if dtype != torch.bfloat16 or not multiplies_tiles(device):
        return False
    tiles = -(-terms // _TILE)
    return terms >= _SHARED or (terms > _FEW and terms % _TILE > 0 and terms % (2 * tiles) == 0)


def asks_for_tf32() -> bool:
    """Whether the program has allowed TF32 in products of matrices, where PyTorch leaves it out unless told."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Say whether CUDA may round the factors of float32 products and convolutions to TF32's 10 bits, for a while.

    Sums of bfloat16 products stay float32 in any case, also where a long sum is shared out and put together again.
    These are settings of the whole process, under two sets of names: PyTorch refuses to tell the older ones where a
    program has made use of the newer ones, and then these alone are changed.
    """
    backends = cast("Any", torch.backends)
    matmul, cudnn = backends.cuda.matmul, backends.cudnn
    places = [matmul, cudnn.conv, cudnn.rnn, backends.mkldnn.matmul]
    before = [place.fp32_precision for place in places]
    reduced = matmul.allow_bf16_reduced_precision_reduction
    level, convolutions = _told(torch.get_float32_matmul_precision), _told(lambda: cudnn.allow_tf32)
    try:
        if level is not None:
            matmul.allow_tf32 = allowed
        if convolutions is not None:
            cudnn.allow_tf32 = allowed
        for place in places[:3]:
            place.fp32_precision = "tf32" if allowed else "ieee"
        matmul.allow_bf16_reduced_precision_reduction = False
        yield
    finally:
        if level is not None:
            torch.set_float32_matmul_precision(level)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
        matmul.allow_bf16_reduced_precision_reduction = reduced


def _told(question: Callable[[], _Answer]) -> _Answer | None:
    try:
        return question()
    except RuntimeError:
        return None


def without_autocast(device: torch.device) -> torch.autocast:
    """A context in which operations on a device keep the types that they are given.

    Under ``bf16-mixed`` Lightning calls a training step with autocast, which would round the small matrices of losses,
    not only what the network computes in bfloat16 by its own choice.
    """
    return torch.autocast(device.type, enabled=False)


def widest_dtype(device: torch.device | str) -> torch.dtype:
    """The most precise floating type of a device; MPS has no float64, and some of Intel's GPUs have none."""
    return torch.float64 if has_float64(torch.device(device)) else torch.float32


_threads: ContextVar[int | None] = ContextVar("threads", default=None)  # that there are outside of `one_thread`


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let the CPU work with one thread, for small things that must not depend on how many there are.

    Threads share a sum over a whole tensor out among themselves, and LAPACK its eigenvalues, so the last bits depend on
    their number; products of matrices, convolutions and sums over rows do not. L-BFGS makes 0.005 of a difference of
    1e-7 within ten evaluations, and processes that share a picture have fewer threads each than one that has it alone.
    """
    before = torch.get_num_threads()
    outside = _threads.set(_threads.get() or before)
    torch.set_num_threads(1)  # costs less than a microsecond
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _threads.reset(outside)


def side_by_side(function: Callable[[_Item], _Answer], items: Sequence[_Item]) -> list[_Answer]:
    """A function of each item, on the CPU, with a thread each, several at a time, and without gradients.

    Small matrices gain little from a second thread, and what LAPACK and products of few rows return depends on how many
    there are; here there is one always.
    """
    workers = min(len(items), _threads.get() or torch.get_num_threads())
    with one_thread(), torch.no_grad():
        if workers < 2:
            return [function(item) for item in items]
        with threads_kept():
            return list(_kept.pool(workers).map(function, items))


class _Kept:
    """Threads for `side_by_side` that stay until nobody needs them any more."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: a forked process has none of its parent's threads, and would wait for them without end."""
        self._lock, self._users, self._pools = threading.Lock(), 0, dict[int, ThreadPoolExecutor]()

    def pool(self, workers: int) -> ThreadPoolExecutor:
        """So many threads."""
        with self._lock:
            if workers not in self._pools:
                self._pools[workers] = ThreadPoolExecutor(workers, "side_by_side", initializer=_alone)
            return self._pools[workers]

    def enter(self) -> None:
        """One more who needs them."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """One less; the last one ends them."""
        with self._lock:
            self._users = max(0, self._users - 1)
            ended, self._pools = ([], self._pools) if self._users else (list(self._pools.values()), {})
        for pool in ended:
            pool.shutdown()


_kept = _Kept()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_kept.forget)


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """Let the threads of `side_by_side` stay for a while.

    A new thread gets its memory from the system page by page, which takes a third of the time that small matrices do.
    """
    _kept.enter()
    try:
        yield
    finally:
        _kept.leave()


def _alone() -> None:
    """What else is true of a thread that works side by side with others."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """State of PyTorch's random numbers, on the CPU and on a device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Go on with the random numbers of `random_states`; those of another kind of device are of no use here."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type])


@contextlib.contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Let random numbers go on afterwards where they were before, on the CPU and on a device."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(states, device)
