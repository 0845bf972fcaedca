"""What decides the bits of a result: types, the number of threads, autocast, random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_Answer = TypeVar("_Answer")


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
    """The most precise floating type of a device; MPS has no float64."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def has_eigenvalues(device: torch.device) -> bool:
    """Whether PyTorch computes the eigenvalues of matrices on a device; not on MPS."""
    return device.type != "mps"


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


def side_by_side(function: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    """A function of each matrix; on a CPU several at a time, with a thread each.

    LAPACK gains little from a second thread, and what it returns depends on how many it has; here it has one always.
    """
    return list(_SideBySide.apply(function, *matrices))


class _SideBySide(torch.autograd.Function):
    """The gradients of all come at once, in order.

    PyTorch goes back through operations in the order in which they were made, which it counts for each thread: left to
    itself it would add the gradients of several matrices of one origin up in another order from time to time.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], *matrices: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        with torch.enable_grad():
            leaves = [matrix.detach().requires_grad_(matrix.requires_grad) for matrix in matrices]
            ctx.pairs = [(leaf, found) for leaf, found in zip(leaves, _of_each(function, leaves), strict=True)]
        return tuple(found.detach() for _, found in ctx.pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        slopes = [
            None
            if slope is None or not leaf.requires_grad
            else torch.autograd.grad(found, leaf, slope, retain_graph=True)[0]
            for (leaf, found), slope in zip(ctx.pairs, upstream, strict=True)
        ]
        return (None, *slopes)


def _of_each(function: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    workers = min(len(matrices), _threads.get() or torch.get_num_threads())
    with one_thread():
        if workers < 2 or matrices[0].device.type != "cpu":
            return [function(matrix) for matrix in matrices]
        largest_first = sorted(range(len(matrices)), key=lambda i: -len(matrices[i]))
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = dict(zip(largest_first, pool.map(function, [matrices[i] for i in largest_first]), strict=True))
        return [found[i] for i in range(len(matrices))]


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
