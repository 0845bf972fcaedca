"""The student's file: half precision, torchvision's names for convolutions, ``maps.LAYER`` for the maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from nst_lightning.distillation.network import NAMES, CompactNetwork
from nst_lightning.errors import UserError
from nst_lightning.features.compact import read_compact_weights
from nst_lightning.features.weights import CONVOLUTIONS
from nst_lightning.images.atomic import replacing


def save_student(path: Path, student: CompactNetwork, metadata: Mapping[str, str]) -> None:
    """Write a student's weights, with facts about its making.

    Raises:
        UserError: If a weight is beyond half precision.
    """
    tensors: dict[str, Tensor] = {}
    for index, key in zip(range(len(NAMES)), CONVOLUTIONS, strict=False):
        for name, value in student.convolution(index).state_dict().items():
            tensors[f"features.{key}.{name}"] = value
        expansion = student.expansion(index)
        if expansion is not None:
            assert expansion.bias is not None
            tensors[f"features.{key}.expansion"] = expansion.weight.detach()[:, :, 0, 0]
            tensors[f"features.{key}.bias"] = expansion.bias.detach()
    tensors |= {f"maps.{tap}": widening.detach() for tap, widening in student.maps.items()}
    halves = {name: value.cpu().half().contiguous() for name, value in tensors.items()}
    if not all(bool(value.isfinite().all()) for value in halves.values()):
        raise UserError("student: its weights must be within half precision's range, got larger ones")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(save(halves, dict(metadata)))


def load_student(path: Path) -> CompactNetwork:
    """Read a student's weights, to train on.

    Raises:
        UserError: If the file does not hold a student.
    """
    try:
        loaded = read_compact_weights(path, argument="model.student")
    except UserError as error:
        raise UserError(f"student: '{path}' cannot be read as a student's weights ({error})") from None
    ranks = [0 if layer.expansion is None else len(layer.weight) for layer in loaded.convolutions]
    student = CompactNetwork([len(layer.bias) for layer in loaded.convolutions], ranks=ranks)
    student.maps = nn.ParameterDict(loaded.maps)  # those of a smaller teacher have other sizes
    for index, (weight, bias, factor) in enumerate(loaded.convolutions):
        expansion = student.expansion(index)
        if expansion is None or factor is None:
            student.convolution(index).load_state_dict({"weight": weight, "bias": bias})
        else:
            student.convolution(index).load_state_dict({"weight": weight})
            expansion.load_state_dict({"weight": factor[:, :, None, None], "bias": bias})
    return student
