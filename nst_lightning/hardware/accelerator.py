"""What a device offers, and how ``auto`` becomes a choice."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from nst_lightning.errors import UserError
from nst_lightning.hardware.host import host_memory

Accelerator = Literal["cpu", "cuda", "mps", "xpu"]  # cuda is AMD's, too, with ROCm
Precision = Literal["32-true", "bf16-mixed", "64-true"]
# Lightning's other names for the same thing.
_ALIASES = {"32": "32-true", "bf16": "bf16-mixed", "64": "64-true", "16": "16-mixed"}
_REFUSED = {
    "16-mixed": "float16 lacks the range of Gram matrices, and scaling waits for the device at every step",
    "16-true": "half precision overflows to NaN",
    "bf16-true": "an image in bfloat16 loses the small steps",
    "transformer-engine": "the extractor has no transformer layers",
    "transformer-engine-float16": "the extractor has no transformer layers",
}
_AMX = "_is_amx_tile_supported"


@dataclass(frozen=True)
class Hardware:
    """What the chosen device offers."""

    accelerator: str  # cpu, cuda, mps, or another kind that Lightning has an accelerator for
    name: str  # as its maker calls it
    bfloat16: bool  # whether bfloat16 arithmetic is native, not emulated
    bfloat16_reason: str  # what speaks for or against it
    memory: int  # bytes that this process may use on it (container limits count)


class Choice(NamedTuple):
    """What ``auto`` became, and why."""

    value: str
    reason: str


def available() -> list[str]:
    """The kinds of device that PyTorch finds here and Lightning has an accelerator for, the fastest first."""
    # Here, as networks and losses need no Lightning, which takes seconds and 270 MiB.
    from lightning.pytorch.accelerators import AcceleratorRegistry  # noqa: PLC0415

    from nst_lightning.hardware.xpu import register  # noqa: PLC0415

    register()
    found = torch.accelerator.current_accelerator(check_available=True)
    known = AcceleratorRegistry.available_accelerators()
    return [*([found.type] if found is not None and found.type in known else []), "cpu"]


def choose_accelerator(requested: str) -> Choice:
    """Resolve ``auto`` to the fastest device there is, and ``gpu`` to the one that is no CPU.

    Raises:
        UserError: If the device asked for is not there.
    """
    there = available()
    if requested == "auto":
        return Choice(there[0], "the fastest device found")
    known = dict.fromkeys((*get_args(Accelerator), *there))
    if requested not in {*known, "gpu"}:
        raise UserError(
            f"trainer.accelerator: must be auto, {', '.join(known)}, got {requested}; auto takes the fastest that is "
            "there"
        )
    name = there[0] if requested == "gpu" and len(there) > 1 else requested
    if name not in there:
        raise UserError(
            f"trainer.accelerator: {requested} is not available on this machine, which has {', '.join(there)}; use auto"
        )
    return Choice(name, "asked for")


def split_device(name: str, argument: str) -> tuple[str, str]:
    """Kind and number of a device such as ``cuda:1``; the number is empty where none is said.

    Raises:
        UserError: If it is no number; the line begins with the argument.
    """
    kind, _, index = name.partition(":")
    if index and not index.isdecimal():
        raise UserError(f"{argument}: must be a kind such as cuda or one device such as cuda:1, got {name}; mend it")
    return kind, index


def name_device(kind: str, index: str = "") -> str:
    """A device as PyTorch calls it: with its number, 0 by default, where there may be several of its kind."""
    return kind if kind in {"cpu", "mps"} else f"{kind}:{index or 0}"


def first_device(kind: str, devices: Any) -> str:
    """The device, or the first one, that ``trainer.devices`` asks for: a number of them, or a list of which."""
    if isinstance(devices, (list, tuple)):
        return name_device(kind, str(devices[0]))
    first, comma, _ = str(devices).partition(",")
    return name_device(kind, first.strip() if comma else "")


def count_devices(accelerator: str, devices: Any) -> int:
    """How many processes a machine needs for what ``trainer.devices`` asks for."""
    if isinstance(devices, (list, tuple)):
        return len(devices)
    if str(devices) in {"auto", "-1"}:
        return 1 if accelerator == "cpu" else max(1, torch.accelerator.device_count())
    try:
        return max(1, int(devices))
    except ValueError:
        return max(1, len([part for part in str(devices).split(",") if part.strip()]))


def describe(device: torch.device | str) -> Hardware:
    """Ask the device what it offers."""
    kind = torch.device(device).type
    if kind == "cpu":
        native, reason = _cpu_bfloat16()
        return Hardware("cpu", f"{_cpu_name()}, {torch.get_num_threads()} threads", native, reason, host_memory())
    if kind == "mps":
        memory = torch.mps.recommended_max_memory()
        return Hardware("mps", f"Apple {platform.machine()}", False, "not yet measured on MPS", memory)
    module = torch.get_device_module(kind)  # CUDA, which ROCm calls itself, too, and its like
    native = bool(module.is_bf16_supported(including_emulation=False))
    reason = f"the device {'has' if native else 'lacks'} bfloat16"
    place = torch.device(device)
    return Hardware(kind, module.get_device_name(place), native, reason, torch.accelerator.get_memory_info(place)[1])


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64: Apple's do not, nor do some of Intel's."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


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
    if name == "64-true" and not has_float64(torch.device(hardware.accelerator)):
        named = {"mps": "MPS"}.get(hardware.accelerator, hardware.name)
        raise UserError(
            f"trainer.precision: 64-true needs float64, which {named} lacks; use 32-true or accelerator cpu"
        )
    if name == "bf16-mixed" and not hardware.bfloat16 and hardware.accelerator != "mps":
        return Choice(name, f"asked for, though 32-true is many times faster here: {hardware.bfloat16_reason}")
    return Choice(name, "asked for")


def compute_dtype(precision: str) -> torch.dtype:
    """Type in which the extractor works under a precision of Lightning's."""
    return {"bf16-mixed": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)


@functools.cache
def multiplies_halves(device: torch.device | str) -> bool:
    """Whether a device multiplies matrices of bfloat16 by instructions of their own, with sums in float32."""
    return sums_halves_exactly(device) or (torch.device(device).type == "cpu" and _cpu_bfloat16()[0])


@functools.cache
def multiplies_tiles(device: torch.device | str) -> bool:
    """Whether a device is a CPU with AMX, which oneDNN has products of bfloat16 matrices of another kind for."""
    return torch.device(device).type == "cpu" and _has(_AMX)


@functools.cache
def sums_halves_exactly(device: torch.device | str) -> bool:
    """Whether a device gives products of bfloat16 matrices in float32; a CPU rounds them to bfloat16.

    It is tried: CUDA does, while not every release for AMD's and Intel's devices has that product.
    """
    if torch.device(device).type == "cpu":
        return False
    small = torch.zeros(16, 16, dtype=torch.bfloat16, device=device)
    try:
        torch.mm(small, small, out_dtype=torch.float32)
    except (RuntimeError, TypeError):
        return False
    return True


@functools.cache
def fuses_activations(device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether products and convolutions of a type can rectify their results in passing: oneDNN's can, on a CPU.

    It is tried, as the operation is PyTorch's own matter; it is what its compiler makes of such a network.
    """
    if torch.device(device).type != "cpu":
        return False
    small = torch.zeros(16, 16, dtype=dtype, device="cpu")
    try:
        torch.ops.mkldnn._linear_pointwise(small, small, small[0], "relu", [], "")
    except (RuntimeError, AttributeError):
        return False
    return True


def cached_values(device: torch.device | str) -> int:
    """How many float32 values to work on at a time: on a CPU what its cache holds, elsewhere as many as there are."""
    return 1 << 62 if prefers_large_operations(device) else 1 << 20


def prefers_large_operations(device: torch.device | str) -> bool:
    """Whether one large operation is faster than several smaller ones that compute less: not so on a CPU."""
    return torch.device(device).type != "cpu"


def _cpu_bfloat16() -> tuple[bool, str]:
    for name, probe in (("AMX", _AMX), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if _has(probe):
            return True, f"the processor has {name}"
    return False, "the processor has neither AVX512-BF16 nor AMX"


def _has(probe: str) -> bool:
    return bool(getattr(torch.cpu, probe, lambda: False)())


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"
