"""Reading files of weights, whatever their names say; nothing in a file is executed."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from nst_lightning.errors import UserError

# How other programs' files begin, or are called where their format has no beginning of its own.
_FOREIGN_STARTS = {
    b"\x89HDF": "an HDF5 file, as Keras writes it",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
    b"MATLAB": "a MATLAB file, as MatConvNet's are",
}
_FOREIGN_SUFFIXES = {
    ".caffemodel": "a Caffe model",
    ".onnx": "an ONNX graph",
    ".t7": "a Torch 7 file",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite model",
    ".msgpack": "a Flax file",
    ".h5": "an HDF5 file, as Keras writes it",
    ".npy": "a NumPy array",
    ".mat": "a MATLAB file, as MatConvNet's are",
}
_CONVERT = (
    "convert it to .safetensors, .pth or .npz with the keys conv1_1.weight, conv1_1.bias, conv1_2.weight and so on"
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file: safetensors, PyTorch's formats old and new, or NumPy's .npz, whatever its suffix.

    Returns:
        Tensors by name; those in nested mappings have the names of all levels, with dots between them.

    Raises:
        UserError: If it is damaged or something else, with what to do.
    """
    with path.open("rb") as file:
        start = file.read(16)
    foreign = next((what for mark, what in _FOREIGN_STARTS.items() if start.startswith(mark)), None)
    foreign = foreign or _FOREIGN_SUFFIXES.get(path.suffix.lower())
    if foreign is not None:
        raise UserError(f"{path}: must be .safetensors, .pth or .npz, got {foreign}; {_CONVERT}")
    try:
        content = _content(path, start)
    except UserError:
        raise
    except Exception as error:  # damaged files raise half a dozen types; none of their texts fits on a line
        raise UserError(f"{path}: cannot be read as weights ({_reason(error)}); {_remedy(error)}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: must hold a state dict, got {type(content).__name__}; save model.state_dict()")
    return dict(_flat(content, ""))


def _content(path: Path, start: bytes) -> Any:
    names: list[str] = []
    if start.startswith(b"PK"):
        # PyTorch says below what is wrong with one that is damaged.
        with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as file:
            names = file.namelist()
    elif start[8:9] == b"{" or path.suffix == ".safetensors":
        return load_file(path)
    if any(name.endswith(".npy") for name in names):
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fiu"}
    if any("/code/" in name for name in names):
        raise UserError(f"{path}: must hold a state dict, got a TorchScript program; save its state_dict()")
    return torch.load(path, map_location="cpu", weights_only=True)


def _flat(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


def _reason(error: Exception) -> str:
    """What an error says, in at most a line."""
    unsupported = re.search(r"Unsupported (?:global|class|operand)[^\n]*?([\w.]+\.\w+)", str(error))
    if unsupported:
        return f"it holds more than tensors: {unsupported.group(1)}"
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _remedy(error: Exception) -> str:
    if "Unsupported" in str(error):
        return "that would be executed, so it is not loaded; save model.state_dict()"
    return "fetch the file again"
