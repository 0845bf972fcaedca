"""A small VGG-19 that comes with the package: a quarter of the arithmetic, and nothing to download."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.features.convolutions import Weights, in_units
from nst_lightning.features.extractor import Extractor, Walk, channel_means, unit
from nst_lightning.features.topology import Algorithm, Padding, Pooling, VGGNetwork, check_choice
from nst_lightning.features.vgg import CAFFE_UNIT, Units
from nst_lightning.features.weights import CONVOLUTIONS
from nst_lightning.files.paths import expand

EMBEDDED = {kind: Path(__file__).with_name(f"{kind}_vgg19.safetensors") for kind in ("compact", "narrow")}
EMBEDDED_SHA256 = {
    "compact": "09b563c714386558e14fcaa6091c5df074b77dc62e2c96452493976c28cebac2",
    "narrow": "6ed2e7c07269e7c0c994d9982adb2bde113510a690d95d81cab825fdf1290da9",
}

SCALE = "_scale"  # after the name of what is stored in 8 bits
_DEPTH = 13  # conv1_1 ... conv5_1
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")


class CompactWeights(NamedTuple):
    """A student's weights, float32."""

    convolutions: list[Weights]  # from conv1_1 on
    # Tapped layer -> (C, c) matrix that brings its c channels to the C of VGG-19, for layers that have fewer.
    maps: dict[str, Tensor]
    metadata: dict[str, str]  # how it was made
    sha256: str  # of the file


def read_compact_weights(path: Path, *, argument: str = "model.extractor.weights") -> CompactWeights:
    """Read a student's file; nothing in it is executed.

    Raises:
        UserError: If the file is missing, damaged, not the one that belongs to this version, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"{argument}: must be a file, got '{path}'; leave it out for the weights in the package")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for kind, expected in EMBEDDED_SHA256.items():
        if path == EMBEDDED[kind] and sha256 != expected:
            raise UserError(
                f"{path}: SHA-256 must start with {expected[:8]}, got {sha256[:8]}; install the package again"
            )
    try:
        with safe_open(path, "pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = dict(file.metadata() or {})
        tensors = {name: _widened(value, stored.get(name + SCALE)) for name, value in stored.items()}
        keys = [key for key in CONVOLUTIONS if f"features.{key}.weight" in tensors]
        convolutions = [
            Weights(
                tensors[f"features.{key}.weight"],
                tensors[f"features.{key}.bias"],
                tensors.get(f"features.{key}.expansion"),
                tensors.get(f"features.{key}.reduction"),
            )
            for key in keys
        ]
        maps = {tap: tensors[f"maps.{tap}"] for tap in TAPS if f"maps.{tap}" in tensors}
        if len(convolutions) != _DEPTH:
            raise ValueError(f"{len(convolutions)} convolutions, not {_DEPTH}")
    except Exception as error:  # damaged files raise half a dozen types
        reason = str(error).split("\n")[0][:150] or type(error).__name__
        raise UserError(
            f"{argument}: '{path}' cannot be read as a compact encoder ({reason}); leave it out for the package's own"
        ) from None
    return CompactWeights(convolutions, maps, metadata, sha256)


def _widened(stored: Tensor, scale: Tensor | None) -> Tensor:
    """Float32 of half precision, or of 8 bits, which have a scale for each output channel."""
    return stored.float() if scale is None else stored.float() * scale.float().view(-1, *[1] * (stored.ndim - 1))


class CompactVGG19(VGGNetwork):
    """VGG-19's layers, of fewer channels or of low rank, trained to steer the optimisation of an image as VGG-19 does.

    It takes VGG-19's place in any configuration that asks for no other layers than relu1_1, relu2_1, relu3_1, relu4_1,
    relu4_2 and relu5_1. Where a layer has fewer channels, `projection` is the linear map to VGG-19's own. Terms that
    are quadratic in the features (`Content`, `Gram`) apply it to small matrices, for others the features
    are projected, and either way losses have the magnitude that they have with VGG-19.

    Args:
        weights: A .safetensors file made by ``nst distill``; ``narrow`` for the package's second one, which follows
            VGG-19 less closely in half to three fifths of the time; by default the package's first.
        pooling: Max as it was trained, or average or l2 as with VGG-19, which it then follows less closely.
        rescale_pooling: For average and l2: multiply by the factor that keeps magnitudes at those of max pooling.
        padding: What the first layer sees beyond the border: zeros (the mean colour) or the nearest pixel.
        units: Scale of the activations: stored as its teacher, the original Caffe network, has them, or normalised to
            what pixels in [0, 1] give in torchvision's network.
        unit_activations: Rescale the channels of VGG-19 so that each one's mean over content and style is 1.
        convolution: Algorithm of wide layers: auto, direct or winograd; see `VGG19`.
    """

    strides = {tap: VGGNetwork.strides[tap] for tap in TAPS}  # noqa: RUF012

    def __init__(
        self,
        weights: str | None = None,
        pooling: Pooling = "max",
        rescale_pooling: bool = False,
        padding: Padding = "zeros",
        units: Units = "normalised",
        unit_activations: bool = False,
        convolution: Algorithm = "auto",
    ) -> None:
        check_choice("units", units, Units)
        path = EMBEDDED.get(weights or "compact") or expand(weights or "", "model.extractor.weights")
        loaded = read_compact_weights(path)
        scale = CAFFE_UNIT if units == "normalised" else 1.0  # see `VGG19`
        again = partial(_read_again, path, scale)
        super().__init__(in_units(loaded.convolutions, scale), pooling, rescale_pooling, padding, convolution, again)
        self.unit_activations = unit_activations
        where = "the package" if weights is None else weights
        self.origin = f"compact VGG-19 from {where} (sha256 {loaded.sha256[:8]})"
        self.family = "compact"
        for tap in TAPS:
            self.register_buffer(f"projection_{tap}", loaded.maps.get(tap), persistent=False)

    def projection(self, layer: str) -> Tensor | None:
        """The map to VGG-19's channels, (C, c), or None where there is no need of one."""
        found: Tensor | None = getattr(self, f"projection_{layer}")
        return found

    @torch.no_grad()
    def rescaled(self, images: Sequence[Tensor], walk: Walk) -> Extractor:
        """A copy whose projected channels each have a mean of 1 over these images; see `VGG19`."""
        taps = [tap for tap in TAPS if tap in self.reachable()]
        scaled = copy.deepcopy(self)
        scaled.unit_activations = False
        for tap, narrow in channel_means(images, walk, taps).items():
            projection = self.projection(tap)
            if projection is None:
                projection = torch.eye(len(narrow)).to(narrow)
            setattr(scaled, f"projection_{tap}", projection / unit(projection @ narrow)[:, None])
        return scaled


def _read_again(path: Path, scale: float) -> list[Weights]:
    return in_units(read_compact_weights(path).convolutions, scale)
