"""What an evaluation asks of a device: operations, kernels, and reads for which the host waits. Nothing is timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from programs import synchronize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from nst_lightning.hardware.recording import suspended

_WAITS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_NO_WORK = ("empty", "new_empty", "_unsafe_view", "_reshape_alias", "lift_fresh", "detach")  # names that begin so


class Operators(TorchDispatchMode):
    """Counts the operators that compute something, by name, and those for which the host waits.

    A view is no work, nor is memory without values. The host waits where the answer, or its shape, is a value that it
    must know, and where a tensor is copied from another device to the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchDispatchMode."""
        answer = func(*args, **(kwargs or {}))
        name, waits = str(func), any(tag in func.tags for tag in _WAITS)
        if func is torch.ops.aten.index.Tensor:  # with numbers it needs no value
            waits = any(index is not None and index.dtype in {torch.bool, torch.uint8} for index in args[1])
        self.reads[name] += waits or _to_host(args, answer)
        if not _is_view(func) and not func._schema.name.removeprefix("aten::").startswith(_NO_WORK):
            self.work[name] += 1
        return answer


def _to_host(args: Any, answer: Any) -> bool:
    if not isinstance(answer, torch.Tensor) or answer.device.type != "cpu":
        return False
    return any(isinstance(x, torch.Tensor) and x.device.type != "cpu" for x in tree_flatten(args)[0])


def _is_view(func: Any) -> bool:
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def operations(step: Callable[[], Any]) -> int:
    """Floating-point operations of a step's products and convolutions, as executed: Winograd's need fewer."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def kernels_on_cuda(step: Callable[[], Any]) -> int:
    """Kernels that a step starts, from the profiler; copies are none."""
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415 - where there is CUDA alone

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
        synchronize("cuda")
    on_device = [e for e in found.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in on_device)


def counts(step: Callable[[], Any], accelerator: str) -> dict[str, int]:
    """What a step that has been made before takes, for a measurement's facts; it is made two or three times."""
    with suspended():  # what a CUDA graph replays is seen by none of these
        with Operators() as seen:
            step()
        work = kernels_on_cuda(step) if accelerator == "cuda" else seen.work.total()
        return {"operations": operations(step), "kernels": work, "host_reads": seen.reads.total()}
