"""All judges together: their names, which way is better, and what each says of a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.hardware.numerics import tf32_allowed
from nst_lightning.judging.backbones import vgg16
from nst_lightning.judging.borders import border_step
from nst_lightning.judging.clipping import clipped
from nst_lightning.judging.colors import color_distance
from nst_lightning.judging.dists import dists
from nst_lightning.judging.hatching import SMALLEST, hatching
from nst_lightning.judging.lpips import VGG_LAYERS, layer_distance, lpips_alexnet
from nst_lightning.judging.structure import structure_distance
from nst_lightning.judging.style import LAYERS, gram_closed, sliced_closed
from nst_lightning.judging.weights import backbone_weights, dists_weights


class Judge(NamedTuple):
    """What a number means."""

    better: Literal["lower", "higher", "one"]  # the last: the nearer to 1
    beside: Literal["content", "style", "both", ""]  # what the result is held against
    networks: tuple[str, ...] = ()


JUDGES = {
    "lpips_alex": Judge("lower", "content", ("alexnet",)),
    "lpips_vgg": Judge("lower", "content", ("vgg16",)),
    "dists": Judge("lower", "content", ("vgg16", "dists")),
    "cfsd": Judge("lower", "content", ("vgg16",)),
    "gram": Judge("higher", "style", ("vgg16",)),
    "sliced": Judge("higher", "style", ("vgg16",)),
    "colors": Judge("lower", "style"),
    "hatching": Judge("one", "both"),
    "borders": Judge("one", ""),
    "clipped": Judge("lower", ""),
}


class Panel:
    """Judges with their networks, on a device.

    Args:
        names: Of `JUDGES`.
        device: Where the networks compute, in float32.

    Raises:
        UserError: A package that carries a network's weights is not installed.
    """

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.names, self.device = tuple(names), torch.device(device)
        needed = {network for name in names for network in JUDGES[name].networks}
        self._networks = {
            name: {key: tensor.to(self.device) for key, tensor in backbone_weights(name).items()}
            for name in sorted(needed - {"dists"})
        }
        self._dists = dists_weights().to(self.device) if "dists" in needed else None

    @torch.no_grad()
    def judge(self, result: Tensor, content: Tensor, style: Tensor) -> dict[str, float]:
        """Say what each judge says of a picture.

        Args:
            result: (1, 3, H, W), RGB in [0, 1], sides of at least 48 px.
            content: The same shape.
            style: (1, 3, h, w).

        Returns:
            A number for each name; not a number where content and style are one picture and nothing is to be closed.

        Raises:
            UserError: A picture is too small.
        """
        for name, picture in (("a result", result), ("a style beside it", style)):
            height, width = picture.shape[-2:]
            if min(height, width) < SMALLEST:
                raise UserError(
                    f"RESULT: must be so large that {name} has sides of at least {SMALLEST} px, got {width}x{height}; "
                    "give a larger one"
                )
        result, content, style = (picture.to(self.device).clamp(0, 1) for picture in (result, content, style))
        with tf32_allowed(False):
            scores = self._by_layers(result, content, style)
            for name, ask in self._others(result, content, style).items():
                if name in self.names:
                    scores[name] = ask()
        return {name: scores[name] for name in self.names}

    def _others(self, result: Tensor, content: Tensor, style: Tensor) -> dict[str, Callable[[], float]]:
        """Judges that look at a picture by themselves."""
        networks = self._networks
        return {
            "lpips_alex": lambda: lpips_alexnet(networks["alexnet"], result, content),
            "dists": lambda: dists(networks["vgg16"], cast("Tensor", self._dists), result, content),
            "cfsd": lambda: structure_distance(networks["vgg16"], result, content),
            "colors": lambda: color_distance(result, style),
            "hatching": lambda: hatching(result, content, style),
            "borders": lambda: border_step(result),
            "clipped": lambda: clipped(result),
        }

    def _by_layers(self, result: Tensor, content: Tensor, style: Tensor) -> dict[str, float]:
        """Judges that look at VGG-16's layers, all in one walk: the maps of one layer are held at a time."""
        weights = self._networks.get("vgg16", {})
        layers = {"lpips_vgg": VGG_LAYERS, "gram": LAYERS, "sliced": LAYERS}
        said: dict[str, list[float]] = {name: [] for name in layers if name in self.names}
        missing = {layer for name in said for layer in layers[name]}
        walks = zip(*(vgg16(weights, picture) for picture in (result, content, style)), strict=True) if said else ()
        for (layer, ours), (_, start), (_, goal) in walks:
            if "lpips_vgg" in said and layer in VGG_LAYERS:
                channels = weights[f"lin{VGG_LAYERS.index(layer)}"]
                said["lpips_vgg"].append(layer_distance(ours, start, channels))
            if "gram" in said and layer in LAYERS:
                said["gram"].append(gram_closed(ours, start, goal))
            if "sliced" in said and layer in LAYERS:
                said["sliced"].append(sliced_closed(ours, start, goal))
            missing.discard(layer)
            if not missing:
                break
        return {
            name: math.fsum(values) if name == "lpips_vgg" else statistics.fmean(values)
            for name, values in said.items()
        }
