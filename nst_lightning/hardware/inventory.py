"""What devices there are, each with what it offers; a fault of a driver is a fact like others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from nst_lightning.hardware import accelerator, memory


def gpu_support() -> str | None:
    """What kind of GPU this PyTorch is built for; None if for none."""
    for name, label in {"cuda": "CUDA", "hip": "ROCm", "xpu": "XPU"}.items():
        version = getattr(torch.version, name, None)
        if version:
            return f"{label} {version}"
    return "MPS" if torch.backends.mps.is_built() else None


def devices(kind: str) -> Iterator[dict[str, Any]]:
    """Each device of a kind: ``accelerator`` and ``index``, and what it offers, or its ``problem``.

    Memory is in bytes; ``precision`` is what ``auto`` takes.
    """
    count = 1 if kind == "cpu" else torch.accelerator.device_count()
    for index in range(count):
        facts: dict[str, Any] = {"accelerator": kind, "index": index}
        try:
            with contextlib.nullcontext() if count == 1 else torch.accelerator.device_index(index):
                hardware = accelerator.describe(kind)
                precision = accelerator.choose_precision("auto", hardware)
                facts |= {"name": hardware.name, "bytes": hardware.memory, "free_bytes": memory.free_memory(kind)}
                facts |= {"precision": precision.value, "precision_reason": precision.reason}
        except RuntimeError as error:  # another program has it for itself, or its driver is not well
            facts["problem"] = str(error).split("\n", maxsplit=1)[0]
        yield facts


def in_words(facts: dict[str, Any]) -> str:
    """A device of `devices` in one line."""
    own_memory = facts["accelerator"] != "cpu"
    name = f"{facts['accelerator']}:{facts['index']}" if own_memory else "cpu"
    if "problem" in facts:
        return f"{name}: cannot be used ({facts['problem']})"
    sizes = [f"{facts[key] / 2**30:.1f} GiB" for key in ("bytes", "free_bytes")]
    held = f"; {sizes[0]}, of which {sizes[1]} free" if own_memory else ""
    return f"{name}: {facts['name']}{held}; {facts['precision']} ({facts['precision_reason']})"
