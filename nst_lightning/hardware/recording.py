"""Computations that a device makes again and again: recorded once, then replayed at a single word of the host.

An evaluation and the step that follows are some hundreds of kernels, each of which the host has to launch; a fast GPU
is done with a picture of 512 px before the host is. A CUDA graph holds them all. What is recorded is fixed: addresses
of tensors, shapes, numbers that the host has put in. So whoever records says what that is (`fixed`), and where it
changes a computation is made by the host again, and then recorded anew.

Before anything is recorded it is rehearsed, with an eye on whatever would make the host wait for the device, which no
graph can hold: a recording that fails leaves PyTorch in an uncertain state. The first replay, and some later ones, are
compared with what the host makes of the same tensors. Where a computation cannot be recorded it goes on as it was,
which one line says.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nst_lightning.errors import UserError, notice
from nst_lightning.hardware.rehearsal import Keeping, Rehearsal, WaitError, place_of

VARIABLE = "NST_CUDA_GRAPHS"
Compute: TypeAlias = Callable[[], Sequence[Tensor]]
Recorder: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what is to be recorded, and returns what replays it; what is recorded has not been done then."""

_REHEARSAL = 2  # the computation, counted from 1, that is looked at; the first one makes tables and chooses algorithms
_COMPARED = frozenset(8**power for power in range(1, 6))  # replays, counted from 1, that are compared once more
_AGREE = 1e-2  # relative, by norm; other sums of bfloat16 products differ by a tenth of that
_MOST_CHANGES = 8  # of what is fixed, after which nothing is recorded any more
_MOST_VALUES = 1 << 23  # of an image: some 1670 px a side


def recorder_for(device: torch.device, values: int) -> Recorder | None:
    """What records computations on a device; None where they are launched one by one.

    A large picture keeps a GPU busy by itself, and a recording of it would keep the memory of an evaluation.

    Args:
        device: Where tensors are.
        values: Of the image.

    Raises:
        UserError: If the environment variable `VARIABLE` is neither 0 nor 1.
    """
    wanted = os.environ.get(VARIABLE, "1")
    if wanted not in {"0", "1"}:
        raise UserError(f"{VARIABLE}: must be 0 or 1, got {wanted}; 0 launches all kernels one by one")
    make = RECORDERS.get(device.type) if wanted == "1" and is_worth_it(values) else None
    return None if make is None else make(device)


def is_worth_it(values: int) -> bool:
    """Whether an image of so many values is small enough for a GPU to wait for its host."""
    return values <= _MOST_VALUES


class CudaGraphs:
    """Records CUDA graphs on a device.

    They have their memory in common, as they run one after the other on one stream. It is another memory when none of
    them is left: PyTorch does not go on with one that has been given up, nor with one in which a recording failed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs = weakref.WeakSet[torch.cuda.CUDAGraph]()
        self._pool: Any = None
        self.has_failed = False

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record what a function does on the device."""
        with _one_at_a_time, torch.cuda.device(self._device):
            if not self._graphs:
                torch._C._cuda_clearCublasWorkspaces()
                self._pool = torch.cuda.graph_pool_handle()
            graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
            try:
                # Other threads, which may make other pictures, may do what this one may not while it records.
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    function()
            except BaseException:
                self._clean_up(before)
                raise
            self._graphs.add(graph)
        return graph.replay

    def _clean_up(self, stream: Any) -> None:
        """Leave a recording that has failed, with whose stream and memory PyTorch would go on."""
        self.has_failed = True
        torch.cuda.set_stream(stream)
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)


_one_at_a_time = threading.Lock()  # as PyTorch asks, in a process
_cuda_graphs = functools.cache(CudaGraphs)


def _of_cuda(device: torch.device) -> Recorder | None:
    """Nothing is recorded any more where that has failed once."""
    graphs = _cuda_graphs(device)
    return None if graphs.has_failed else graphs


RECORDERS: dict[str, Callable[[torch.device], Recorder | None]] = {"cuda": _of_cuda}
"""What records on devices of a kind."""


_suspended: ContextVar[bool] = ContextVar("suspended", default=False)


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Let the host launch everything for a while, so that what it launches can be counted."""
    before = _suspended.set(True)
    try:
        yield
    finally:
        _suspended.reset(before)


class Repeated:
    """A computation on a device that is made again and again.

    Args:
        record: As `recorder_for` returned it.
        subject: What is computed, for a notice: ``evaluations``.
    """

    def __init__(self, record: Recorder, subject: str) -> None:
        self._record, self._subject = record, subject
        self._fixed: Mapping[str, Hashable] = {}
        self._replay: Callable[[], None] | None = None
        self._results: Sequence[Tensor] = ()
        self._kept: list[Tensor] = []  # what is read at each replay, which nobody else may keep
        self._made = self._replays = self._changes = 0
        self._given_up = False

    @property
    def is_recorded(self) -> bool:
        """Whether the next one is replayed, if nothing changes."""
        return self._replay is not None

    def __call__(
        self, fixed: Mapping[str, Hashable], compute: Compute, written: Sequence[Tensor] = ()
    ) -> Sequence[Tensor]:
        """Compute.

        Args:
            fixed: What a recording depends on besides the values of tensors, by names that a user understands.
            compute: The computation, on tensors that stay where they are.
            written: Those that it changes in place and reads. What it writes without reading need not be named.

        Returns:
            What `compute` returns; after a replay always the same tensors.
        """
        if self._given_up or _suspended.get():
            return compute()
        if fixed != self._fixed:
            self._begin_anew(fixed)
        if self._replay is not None:
            return self._replayed(compute, bool(written))
        self._made += 1
        if self._given_up or self._made < _REHEARSAL:
            return compute()
        if self._made == _REHEARSAL:
            return self._rehearsed(compute, written)
        return self._recorded(compute, written)

    def _begin_anew(self, fixed: Mapping[str, Hashable]) -> None:
        changed = [name for name in fixed if name in self._fixed and fixed[name] != self._fixed[name]]
        self.forget()
        self._fixed = fixed
        self._changes += bool(changed)
        if self._changes > _MOST_CHANGES:
            self._give_up(f"{changed[0]} changes again and again")

    def _replayed(self, compute: Compute, changes: bool) -> Sequence[Tensor]:
        assert self._replay is not None
        self._replay()
        self._replays += 1
        if self._replays not in _COMPARED or changes:
            return self._results
        try:
            made = compute()
        except torch.OutOfMemoryError:
            return self._results  # there is no memory for both; what was compared before was the same
        if not _is_finite(made) or _agree(made, self._results):
            return self._results
        self._give_up("the host computes another result: is a term random, or does it count?")
        return made

    def forget(self) -> None:
        """Give up what was recorded, and its memory; the next computations are as the first ones."""
        self._fixed, self._replay, self._results, self._kept = {}, None, (), []
        self._made = self._replays = 0

    def _rehearsed(self, compute: Compute, written: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute with an eye on what waits."""
        before = [tensor.clone() for tensor in written]
        try:
            with Rehearsal():  # type: ignore[no-untyped-call]
                return compute()
        except WaitError as wait:
            self._give_up(f"{place_of(wait.__traceback__)} {wait}")
            _copy(before, written)
        return compute()

    def _recorded(self, compute: Compute, written: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute, then record the same and compare; where that fails everything is as it was computed."""
        try:
            before = [tensor.clone() for tensor in written]
        except torch.OutOfMemoryError:
            return compute()
        made = compute()
        results: list[Tensor] = []
        keeping = Keeping()

        def kept() -> None:
            with keeping:
                results.extend(compute())

        after: list[Tensor] = []
        try:
            after = [tensor.clone() for tensor in written]
            _copy(before, written)
            replay = self._record(kept)
            # What has been computed in place of being recorded does not count.
            _copy(before, written)
            for tensor in results:
                tensor.zero_()
            replay()
            finite, agrees = _is_finite([*made, *after]), _agree([*made, *after], [*results, *written])
        except RuntimeError as error:
            cause = error.__context__ or error  # PyTorch says the end of a recording that failed, and then why
            self._give_up(f"PyTorch says: {str(cause).splitlines()[0]}")
        else:
            if finite and agrees:
                self._replay, self._results, self._kept = replay, results, keeping.kept
                return results
            if finite:  # else it is tried again: numbers that are none cannot be compared
                self._give_up("what is replayed is not what the host computes")
        _copy(after, written[: len(after)])
        return made

    def _give_up(self, why: str) -> None:
        self.forget()
        self._given_up = True
        notice(
            f"{self._subject} are launched kernel by kernel and not as a CUDA graph, which takes longer and makes the "
            f"same picture: {why}"
        )


def _copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    for value, place in zip(values, into, strict=True):
        place.copy_(value)


def _is_finite(tensors: Sequence[Tensor]) -> bool:
    return bool(torch.stack([torch.isfinite(x).all() for x in tensors if x.is_floating_point()]).all())


def _agree(made: Sequence[Tensor], replayed: Sequence[Tensor]) -> bool:
    """Whether tensors are the same, up to `_AGREE`; False for values that are no numbers. One read."""
    return bool(torch.stack([*_agreements(made, replayed)]).all())


def _agreements(made: Sequence[Tensor], replayed: Sequence[Tensor]) -> Iterator[Tensor]:
    for one, other in zip(made, replayed, strict=True):
        if one.is_floating_point():
            # By the largest value, as squares of small gradients underflow.
            unit = one.abs().max().clamp(min=torch.finfo(one.dtype).tiny)
            yield torch.linalg.vector_norm((one - other) / unit) <= _AGREE * torch.linalg.vector_norm(one / unit)
        else:
            yield (one == other).all()
