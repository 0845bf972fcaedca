"""Intel's GPUs for Lightning, which (as of 2.6) knows none: an accelerator named ``xpu``, and what else it leaves open.

Lightning is imported here at once, so this module only where it is needed anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy

from nst_lightning.errors import UserError

_KNOWN = {"cpu", "cuda", "mps", "tpu"}  # kinds for which Lightning chooses strategy and autocast itself


class XPUAccelerator(Accelerator):
    """Devices that `torch.xpu` counts."""

    def setup_device(self, device: torch.device) -> None:
        """Make it the current one."""
        if device.type != "xpu":
            raise ValueError(f"device: must be an xpu, got {device}")
        torch.xpu.set_device(device)

    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        """What PyTorch's allocator has counted, in bytes and in numbers of blocks."""
        return dict(torch.xpu.memory_stats(device))

    def teardown(self) -> None:
        """Hand back memory that was freed."""
        torch.xpu.empty_cache()

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> list[int]:
        """Numbers of devices: of a count, a list or its text, or -1 for all.

        Raises:
            UserError: If one of them is not there.
        """
        there = torch.xpu.device_count()
        try:
            if isinstance(devices, str) and "," not in devices:
                devices = int(devices)
            if isinstance(devices, int):
                wanted = list(range(there if devices == -1 else devices))
            else:
                parts = devices.split(",") if isinstance(devices, str) else devices
                wanted = [int(part) for part in parts if str(part).strip()]
        except ValueError:
            wanted = []
        if not wanted or not set(wanted) <= set(range(there)):
            raise UserError(
                f"trainer.devices: must be a number up to {there} or a list of numbers below, got {devices}; 1 takes "
                "the first"
            )
        return wanted

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        """The devices of these numbers."""
        return [torch.device("xpu", index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        """How many there are."""
        return torch.xpu.device_count()

    @staticmethod
    def is_available() -> bool:
        """Whether there are any."""
        return torch.xpu.device_count() > 0

    @staticmethod
    def name() -> str:
        """As Lightning calls it."""
        return "xpu"


def register() -> None:
    """Make it known to Lightning, unless a Lightning to come knows one."""
    if XPUAccelerator.name() not in AcceleratorRegistry:
        AcceleratorRegistry.register(XPUAccelerator.name(), XPUAccelerator, description="Intel GPUs")


def trainer_parts(kind: str, devices: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a trainer, with what Lightning would choose as for a CPU or for CUDA on a kind that it does not know.

    Args:
        kind: Of device.
        devices: As the trainer is given them.
        options: Strategy, precision and plugins.
    """
    if kind in _KNOWN:
        return options
    more = dict(options)
    if options["strategy"] == "auto":
        index = AcceleratorRegistry.get(kind).parse_devices(devices)[0]
        more["strategy"] = SingleDeviceStrategy(torch.device(kind, index))
    if options["precision"] == "bf16-mixed":
        given = options.get("plugins") or []
        given = given if isinstance(given, list) else [given]
        more |= {"precision": None, "plugins": [*given, MixedPrecision("bf16-mixed", kind)]}
    return more
