"""The student's file: half precision, torchvision's names for convolutions, ``maps.LAYER`` for the maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nst_lightning.distillation.network import NAMES, CompactNetwork
from nst_lightning.errors import UserError
from nst_lightning.features.compact import TAPS
from nst_lightning.features.weights import CONVOLUTIONS


def save_student(path: Path, student: CompactNetwork, metadata: Mapping[str, str]) -> None:
    """Write a student's weights, with facts about its making.

    Raises:
        UserError: If a weight is beyond half precision.
    """
    tensors: dict[str, Tensor] = {}
    for index, key in zip(range(len(NAMES)), CONVOLUTIONS, strict=False):
        for name, value in student.convolution(index).state_dict().items():
            tensors[f"features.{key}.{name}"] = value
    tensors |= {f"maps.{tap}": student.maps[tap].detach() for tap in TAPS}
    halves = {name: value.cpu().half().contiguous() for name, value in tensors.items()}
    if not all(bool(value.isfinite().all()) for value in halves.values()):
        raise UserError("student: its weights must be within half precision's range, got larger ones")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(halves, partial, dict(metadata))
    partial.replace(path)


def load_student(path: Path) -> CompactNetwork:
    """Read a student's weights, to train on.

    Raises:
        UserError: If the file does not hold a student.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
        widths = [len(tensors[f"features.{key}.bias"]) for key in CONVOLUTIONS[: len(NAMES)]]
        student = CompactNetwork(widths, [0] * len(NAMES))
        for tap, parameter in student.maps.items():
            parameter.data = torch.empty_like(tensors[f"maps.{tap}"])
        state = {f"maps.{tap}": tensors[f"maps.{tap}"] for tap in TAPS}
        for index, key in zip(range(len(NAMES)), CONVOLUTIONS, strict=False):
            for name in ("weight", "bias"):
                state[f"convolutions.{index}.{name}"] = tensors[f"features.{key}.{name}"]
        student.load_state_dict(state)
    except Exception as error:  # missing, damaged or another network's
        reason = str(error).split("\n")[0][:150] or type(error).__name__
        raise UserError(f"student: '{path}' cannot be read as a student's weights ({reason})") from None
    return student
