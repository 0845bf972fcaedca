"""Where VGG-19's weights come from, which set they are, and whether they can be trusted.

The places are tried in this order: a path given, the environment variable ``NST_VGG19_WEIGHTS``, torch hub's cache, a
download by torchvision. A place that the user named (path or variable) and that fails ends the search: falling back to
another set of weights would change the picture without a word. Nothing here executes code from a file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.paths import expand

ENVIRONMENT_VARIABLE = "NST_VGG19_WEIGHTS"
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)  # their indices in torchvision's features
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # on the 0..255 scale

# Norms of the first eight filters of conv1_2 in Simonyan and Zisserman's original network. Input scale and channel
# order touch only conv1_1, so these recognise the set in either form.
_CAFFE_CONV1_2 = (1.25921, 0.80837, 1.29624, 0.69853, 0.98685, 1.10074, 0.95962, 0.46807)
_CAFFE_CONV1_1_MAGNITUDE = 0.1565  # mean |w| for BGR 0..255 input; folded for ImageNet-normalised RGB it is 9.02

Layout = Literal["auto", "torchvision", "caffe"]


@dataclass(frozen=True)
class VGG19Weights:
    """The sixteen convolutions (or the first of them), for RGB input with the ImageNet mean and standard deviation.

    Attributes:
        convolutions: Pairs of weight (out, in, 3, 3) and bias (out,), float32, from conv1_1 on.
        origin: One phrase for the start-up line: set, file, first digits of its SHA-256.
        family: ``caffe`` for the network Gatys et al. used, ``torchvision`` for ``IMAGENET1K_V1``, else ``unknown``.
    """

    convolutions: list[tuple[Tensor, Tensor]]
    origin: str
    family: Literal["caffe", "torchvision", "unknown"]


def load_vgg19_weights(
    path: str | os.PathLike[str] | None = None,
    *,
    layout: Layout = "auto",
    sha256: str | None = None,
    argument: str = "model.extractor.weights",
) -> VGG19Weights:
    """Find, check and read VGG-19's convolutions.

    Args:
        path: A ``.pth``, ``.pt`` or ``.safetensors`` file, or None to search.
        layout: How the input of the stored network is to be prepared: ``torchvision`` (RGB, ImageNet normalisation)
            or ``caffe`` (BGR, 0..255, mean subtracted); ``auto`` recognises the Caffe network by its filters.
        sha256: Expected SHA-256 of the file, or its first digits.
        argument: The configuration key named in messages.

    Raises:
        UserError: If no place has usable weights; the message names every place and the reason.
    """
    tried: list[str] = []
    for name, value in ((argument, path), (ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE))):
        if value:
            try:
                return read_vgg19_weights(expand(value, name), layout=layout, sha256=sha256)
            except UserError as error:
                tried.append(f"{name} ({error})")
                raise UserError(_nothing_found(tried)) from None
        tried.append(f"{name} (not set)")

    from torchvision.models import VGG19_Weights  # noqa: PLC0415 - importing torchvision costs a second

    url = VGG19_Weights.IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if cached.is_file():
        try:
            return read_vgg19_weights(cached, layout=layout, sha256=sha256)
        except UserError as error:
            tried.append(f"cache ({error})")
            raise UserError(_nothing_found(tried)) from None
    tried.append(f"cache ({cached}: no such file)")
    try:
        VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
        return read_vgg19_weights(cached, layout=layout, sha256=sha256)
    except Exception as error:  # whatever the network, the disk or the hash check raises
        tried.append(f"download of {url} ({type(error).__name__}: {error})")
    raise UserError(_nothing_found(tried))


def _nothing_found(tried: list[str]) -> str:
    return (
        f"no VGG-19 weights; tried in this order: {'; '.join(tried)}; download vgg19-dcbb9e9d.pth once with a network, "
        f"or set {ENVIRONMENT_VARIABLE} to a .pth or .safetensors file"
    )


def read_vgg19_weights(path: Path, *, layout: Layout = "auto", sha256: str | None = None) -> VGG19Weights:
    """Read one file; see `load_vgg19_weights` for the arguments.

    Raises:
        UserError: If the file is missing, damaged, fails its hash or does not hold VGG-19's convolutions.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    digest = _sha256(path)
    expected = sha256 or _hash_in_name(path.name)
    if expected and not digest.startswith(expected.lower()):
        raise UserError(
            f"{path}: SHA-256 must start with {expected}, got {digest[: max(8, len(expected))]}; fetch it again"
        )
    convolutions = _convolutions(_read_tensors(path), path)
    family: Literal["caffe", "torchvision", "unknown"] = "unknown"
    if _is_caffe_network(convolutions):
        family = "caffe"
    elif digest.startswith("dcbb9e9d"):
        family = "torchvision"
    if layout == "auto":
        layout = "caffe" if family == "caffe" and _expects_bgr_255(convolutions) else "torchvision"
    if layout == "caffe":
        convolutions[0] = _fold_caffe_input(*convolutions[0])
    label = {"caffe": "original Caffe set", "torchvision": "torchvision IMAGENET1K_V1", "unknown": "unknown set"}[
        family
    ]
    return VGG19Weights(convolutions, f"{label} from {path} (sha256 {digest[:8]})", family)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _hash_in_name(name: str) -> str | None:
    """Torch hub's convention: ``vgg19-dcbb9e9d.pth`` carries the first digits of its own hash."""
    match = re.search(r"-([0-9a-f]{8,64})\.", name)
    return match.group(1) if match else None


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415

            return load_file(path)
        if path.suffix in {".pth", ".pt"}:
            content = torch.load(path, map_location="cpu", weights_only=True)
            content = content.get("state_dict", content) if isinstance(content, Mapping) else content
            if isinstance(content, Mapping):
                return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
            raise UserError(f"{path}: must hold a state dict, got {type(content).__name__}; save model.state_dict()")
    except UserError:
        raise
    except Exception as error:  # damaged files raise half a dozen types; none of their texts fits on a line
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path}: cannot be read as weights ({reason}); fetch the file again") from None
    raise UserError(
        f"{path}: must end in .pth, .pt or .safetensors, got {path.suffix or 'no suffix'}; convert the file"
    )


def _convolutions(tensors: Mapping[str, Tensor], path: Path) -> list[tuple[Tensor, Tensor]]:
    """Take the convolutions in order; widths are free, so that narrow test networks have the same form."""
    prefix = next((p for p in ("features.", "", "module.features.") if f"{p}0.weight" in tensors), None)
    if prefix is None:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise UserError(
            f"{path}: must hold 'features.0.weight' or '0.weight' as torchvision's vgg19 does, got {some} ..."
        )
    convolutions: list[tuple[Tensor, Tensor]] = []
    channels = 3
    for index in CONVOLUTIONS:
        key = f"{prefix}{index}"
        weight, bias = tensors.get(f"{key}.weight"), tensors.get(f"{key}.bias")
        if weight is None or bias is None:
            raise UserError(f"{path}: has no '{key}.weight' and '{key}.bias'; it is not VGG-19, choose another file")
        out = weight.shape[0] if weight.ndim else 0
        if weight.shape != (out, channels, 3, 3) or bias.shape != (out,):
            raise UserError(
                f"{path}: '{key}.weight' must be (C, {channels}, 3, 3), got {tuple(weight.shape)} with a bias of "
                f"{tuple(bias.shape)}; it is not VGG-19"
            )
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise UserError(f"{path}: '{key}' must be finite, got NaN or infinity; fetch the file again")
        convolutions.append((weight.float(), bias.float()))
        channels = out
    return convolutions


def _is_caffe_network(convolutions: list[tuple[Tensor, Tensor]]) -> bool:
    norms = convolutions[1][0].flatten(1).norm(dim=1)[: len(_CAFFE_CONV1_2)]
    return len(norms) == len(_CAFFE_CONV1_2) and bool(torch.allclose(norms, torch.tensor(_CAFFE_CONV1_2), rtol=0.01))


def _expects_bgr_255(convolutions: list[tuple[Tensor, Tensor]]) -> bool:
    return float(convolutions[0][0].abs().mean()) < 8 * _CAFFE_CONV1_1_MAGNITUDE


def _fold_caffe_input(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite conv1_1 for normalised RGB: BGR, the 0..255 scale and Caffe's mean move into weight and bias.

    With x_bgr = 255 (std z + mean) - caffe_mean for a normalised value z, w x + b = (255 std w) z + (b + w shift). The
    two networks agree except in the outermost pixel, where zero padding stands for slightly different colours.
    """
    mean, std = (torch.tensor(v).flip(0) for v in (IMAGENET_MEAN, IMAGENET_STD))
    shift = 255 * mean - torch.tensor(CAFFE_MEAN_BGR)
    folded = (weight * (255 * std)[None, :, None, None]).flip(1)
    return folded, bias + torch.einsum("oihw,i->o", weight, shift)
