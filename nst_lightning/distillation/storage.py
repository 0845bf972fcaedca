"""The student's file: torchvision's names for convolutions, ``maps.LAYER`` for the maps; half precision or 8 bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from nst_lightning.distillation.network import NAMES, CompactNetwork
from nst_lightning.errors import UserError
from nst_lightning.features.compact import SCALE, read_compact_weights
from nst_lightning.features.weights import CONVOLUTIONS
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder

LARGEST_FILE = 8 << 20  # bytes: a student that is larger in half precision is written in 8 bits
EIGHT_BITS_FROM = 1 << 16  # number of values from which a tensor is; its errors average out


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round (K, ...) to whole numbers from -127 to 127, int8, with a factor (K,) that brings each channel back."""
    largest = weight.detach().float().flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    scale = largest / 127
    return (weight.detach().float() / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8), scale


def save_student(path: Path, student: CompactNetwork, metadata: Mapping[str, str]) -> None:
    """Write a student's weights, with facts about its making: half precision, or 8 bits.

    Eight bits for large tensors, of a student that is larger than a package should carry in half precision; they cost
    0.002 of the gradient's cosine. A weight beyond half precision is a UserError.
    """
    tensors: dict[str, Tensor] = {}
    for index, key in zip(range(len(NAMES)), CONVOLUTIONS, strict=False):
        tensors |= {f"features.{key}.{name}": value for name, value in student.convolution(index).state_dict().items()}
        if (reduction := student.reduction(index)) is not None:
            tensors[f"features.{key}.reduction"] = reduction.weight.detach()[:, :, 0, 0]
        if (expansion := student.expansion(index)) is not None:
            tensors[f"features.{key}.expansion"] = expansion.weight.detach()[:, :, 0, 0]
            tensors[f"features.{key}.bias"] = expansion.state_dict()["bias"]
    tensors |= {f"maps.{tap}": projection.detach() for tap, projection in student.maps.items()}
    too_large = 2 * sum(value.numel() for value in tensors.values()) > LARGEST_FILE
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if too_large and value.numel() >= EIGHT_BITS_FROM:
            stored[name], stored[name + SCALE] = (part.cpu().contiguous() for part in eight_bits(value))
        else:
            stored[name] = value.cpu().half().contiguous()
    if not all(bool(value.isfinite().all()) for value in stored.values()):
        raise UserError("student: its weights must be within half precision's range, got larger ones")
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(save(stored, dict(metadata)))


def earlier_runs(path: Path) -> list[dict[str, str]]:
    """What a student's file says of the trainings that made it, the first one first."""
    facts = read_compact_weights(path, argument="model.student").metadata
    last = {key: facts[key] for key in ("training", "steps", "data", "commit", "version") if facts.get(key)}
    told = facts.get("history", "[]")
    try:
        before = json.loads(told)
    except ValueError:  # written by hand, as in files of earlier versions
        before = [{"training": told}]
    return [*(before if isinstance(before, list) else []), *[last] * bool(last)]


def load_student(path: Path) -> CompactNetwork:
    """Read a student's weights, to train on; a UserError if the file holds none."""
    try:
        loaded = read_compact_weights(path, argument="model.student")
    except UserError as error:
        raise UserError(f"student: '{path}' cannot be read as a student's weights ({error})") from None
    ranks = [0 if layer.expansion is None else len(layer.weight) for layer in loaded.convolutions]
    seen = [0 if layer.reduction is None else len(layer.reduction) for layer in loaded.convolutions]
    student = CompactNetwork([len(layer.bias) for layer in loaded.convolutions], ranks=ranks, input_ranks=seen)
    student.maps = nn.ParameterDict(loaded.maps)  # those of a smaller teacher have other sizes
    for index, (weight, bias, last, first) in enumerate(loaded.convolutions):
        expansion, reduction = student.expansion(index), student.reduction(index)
        if expansion is None or last is None:
            student.convolution(index).load_state_dict({"weight": weight, "bias": bias})
        else:
            student.convolution(index).load_state_dict({"weight": weight})
            expansion.load_state_dict({"weight": last[:, :, None, None], "bias": bias})
        if reduction is not None and first is not None:
            reduction.load_state_dict({"weight": first[:, :, None, None]})
    return student
