"""What a device offers, and how ``auto`` becomes a choice. Nothing else asks what device it runs on."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.memory import free_host_memory, host_memory

_Method = TypeVar("_Method", bound=Callable[..., Any])

Accelerator = Literal["cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed", "64-true"]

# Lightning's other names for the same thing.
_ALIASES = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "64": "64-true",
    "16": "16-mixed",
}
_REFUSED = {
    "16-mixed": "float16 lacks the range of Gram matrices, and scaling waits for the device at every step",
    "16-true": "half precision overflows to NaN",
    "bf16-true": "an image in bfloat16 loses the small steps",
    "transformer-engine": "the extractor has no transformer layers",
    "transformer-engine-float16": "the extractor has no transformer layers",
}


@dataclass(frozen=True)
class Hardware:
    """What the chosen device offers.

    Attributes:
        accelerator: cpu, cuda or mps.
        name: The device as its maker calls it.
        bfloat16: Whether bfloat16 arithmetic is native, not emulated.
        bfloat16_reason: What speaks for or against it.
        memory: Bytes that this process may use on the device (container limits count).
        capture: Whether kernels can be captured into a graph and replayed.
    """

    accelerator: Accelerator
    name: str
    bfloat16: bool
    bfloat16_reason: str
    memory: int
    capture: bool


class Choice(NamedTuple):
    """What ``auto`` became, and why."""

    value: str
    reason: str


def choose_accelerator(requested: str) -> Choice:
    """Resolve ``auto`` to the fastest device there is.

    Raises:
        UserError: If the device asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if requested == "auto":
        return Choice(next(name for name, there in available.items() if there), "the fastest device found")
    name = "cuda" if requested == "gpu" and not available["mps"] else "mps" if requested == "gpu" else requested
    if name not in get_args(Accelerator):
        raise UserError(
            f"trainer.accelerator: must be auto, {', '.join(get_args(Accelerator))}, got {requested}; auto takes the "
            "fastest that is there"
        )
    if not available[name]:
        there = ", ".join(key for key, value in available.items() if value)
        raise UserError(
            f"trainer.accelerator: {requested} is not available on this machine, which has {there}; use auto"
        )
    return Choice(name, "asked for")


def describe(accelerator: str) -> Hardware:
    """Ask the device what it offers."""
    if accelerator == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        capability = f"{properties.major}.{properties.minor}"
        native = properties.major >= 8
        reason = f"CUDA capability {capability} {'has' if native else 'lacks'} bfloat16"
        return Hardware("cuda", properties.name, native, reason, properties.total_memory, True)
    if accelerator == "mps":
        memory = torch.mps.recommended_max_memory()
        return Hardware("mps", f"Apple {platform.machine()}", False, "not yet measured on MPS", memory, False)
    native, reason = _cpu_bfloat16()
    return Hardware("cpu", f"{_cpu_name()}, {torch.get_num_threads()} threads", native, reason, host_memory(), False)


def choose_precision(requested: str | int | None, hardware: Hardware) -> Choice:
    """Resolve ``auto``, and refuse what cannot work.

    Returns:
        One of `Precision` and its reason.

    Raises:
        UserError: For a precision with which the image would not survive.
    """
    name = _ALIASES.get(str(requested), str(requested))
    if requested is None or name == "auto":
        return Choice("bf16-mixed" if hardware.bfloat16 else "32-true", hardware.bfloat16_reason)
    if name in _REFUSED or name not in get_args(Precision):
        why = _REFUSED.get(name, "it is unknown")
        raise UserError(
            f"trainer.precision: must be auto, {', '.join(get_args(Precision))}, got {requested} ({why}); use auto"
        )
    if name == "64-true" and hardware.accelerator == "mps":
        raise UserError("trainer.precision: 64-true needs float64, which MPS lacks; use 32-true or accelerator cpu")
    if name == "bf16-mixed" and not hardware.bfloat16 and hardware.accelerator != "mps":
        return Choice(name, f"asked for, though 32-true is many times faster here: {hardware.bfloat16_reason}")
    return Choice(name, "asked for")


def compute_dtype(precision: str) -> torch.dtype:
    """Type in which the extractor works under a precision of Lightning's."""
    return {"bf16-mixed": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)


def allow_tf32(allowed: bool) -> None:
    """Say whether CUDA may round the factors of float32 products and convolutions to TF32's 10 bits.

    Sums of bfloat16 products stay float32 in any case, also where a long sum is shared out and put together again.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """`allow_tf32` within a context: these are settings of the whole process."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, matmul.allow_bf16_reduced_precision_reduction
    allow_tf32(allowed)
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, matmul.allow_bf16_reduced_precision_reduction = before


def outside_autocast(method: _Method) -> _Method:
    """Run a method that takes an image first without autocast on the image's device.

    Under ``bf16-mixed`` Lightning calls a training step within it, and it would round the statistics' small matrices,
    not only what the extractor computes in bfloat16 by its own choice.
    """

    @functools.wraps(method)
    def outside(self: Any, image: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(image.device.type, enabled=False):
            return method(self, image, *args, **kwargs)

    return cast("_Method", outside)


def widest_dtype(accelerator: str) -> torch.dtype:
    """The most precise floating type of a device; MPS has no float64."""
    return torch.float32 if accelerator == "mps" else torch.float64


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
    workers = min(len(matrices), _threads.get() or torch.get_num_threads())
    with one_thread():
        if workers < 2 or matrices[0].device.type != "cpu":
            return [function(matrix) for matrix in matrices]
        largest_first = sorted(range(len(matrices)), key=lambda i: -len(matrices[i]))
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = dict(zip(largest_first, pool.map(function, [matrices[i] for i in largest_first]), strict=True))
        return [found[i] for i in range(len(matrices))]


@functools.cache
def multiplies_halves(accelerator: str) -> bool:
    """Whether a device multiplies matrices of bfloat16 by instructions of their own, with sums in float32."""
    return accelerator == "cuda" or (accelerator == "cpu" and _cpu_bfloat16()[0])


def cached_values(accelerator: str) -> int:
    """How many float32 values to work on at a time: on a CPU what its cache holds, elsewhere as many as there are."""
    return 1 << 20 if accelerator == "cpu" else 1 << 62


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # constants of malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library (glibc, so Linux only) to keep freed memory for the next evaluation.

    Feature maps of tens of megabytes are otherwise handed back and fetched again, page by page, several times an
    evaluation, which costs about a tenth of its time.

    Returns:
        Whether the library took the settings.
    """
    return _set_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1})


def hand_back_large_blocks() -> bool:
    """Undo `keep_freed_memory` for blocks of 32 MiB and more, which leave holes in the heap that nothing fits into.

    For large images: it takes a twentieth of the time and saves a third of the memory.

    Returns:
        Whether the library took the settings.
    """
    return _set_malloc({_MMAP_MAX: 1 << 16, _MMAP_THRESHOLD: 1 << 25})  # 32 MiB is the most that it takes


def hand_back_freed_memory() -> None:
    """Give the system all that was freed and kept for later: work of another size does not fit into it anyway."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _set_malloc(settings: dict[int, int]) -> bool:
    """Change settings of glibc's allocator; another library has none of them."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) for name, value in settings.items())


def free_memory(accelerator: str) -> int:
    """Bytes that can still be taken on a device, container limits included; 0 where that cannot be told."""
    if accelerator == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if accelerator == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    return free_host_memory()


def resident_memory(accelerator: str) -> int:
    """Bytes that this process has taken on a device already; 0 where that cannot be told."""
    if accelerator == "cuda":
        return int(torch.cuda.memory_reserved())
    if accelerator == "mps":
        return int(torch.mps.current_allocated_memory())
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """State of PyTorch's random numbers, on the CPU and on a device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type in {"cuda", "mps"}:
        module = torch.cuda if device.type == "cuda" else torch.mps
        states[device.type] = module.get_rng_state()
    return states


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Go on with the random numbers of `random_states`; those of another kind of device are of no use here."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        (torch.cuda if device.type == "cuda" else torch.mps).set_rng_state(states[device.type])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "not enough memory" in said


def _cpu_bfloat16() -> tuple[bool, str]:
    cpu = torch.cpu
    for name, probe in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(cpu, probe, lambda: False)():
            return True, f"the processor has {name}"
    return False, "the processor has neither AVX512-BF16 nor AMX"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"
