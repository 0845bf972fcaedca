"""All judges together: their names, which way is better, and what each says of a picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.hardware.numerics import tf32_allowed
from nst_lightning.judging import borders
from nst_lightning.judging.backbones import Weights, stride_of, vgg16
from nst_lightning.judging.clipping import clipped
from nst_lightning.judging.colors import color_distance
from nst_lightning.judging.dists import dists
from nst_lightning.judging.hatching import SMALLEST, hatching
from nst_lightning.judging.keeping import Distance, Kept
from nst_lightning.judging.lpips import VGG_LAYERS, lpips_alexnet
from nst_lightning.judging.structure import structure_distance
from nst_lightning.judging.style import LAYERS, cells_closed, matrices_closed
from nst_lightning.judging.tiles import cells, make_tiles
from nst_lightning.judging.weights import backbone_weights, dists_weights


class Judge(NamedTuple):
    """What a number means."""

    better: Literal["lower", "higher", "one"]  # the last: the nearer to 1
    beside: Literal["content", "style", "both", ""]  # what the result is held against
    networks: tuple[str, ...] = ()
    smallest: int = SMALLEST  # sides in pixels of what it looks at


JUDGES = {
    "lpips_alex": Judge("lower", "content", ("alexnet",)),
    "lpips_vgg": Judge("lower", "content", ("vgg16",)),
    "dists": Judge("lower", "content", ("vgg16", "dists")),
    "cfsd": Judge("lower", "content", ("vgg16",)),
    "gram": Judge("higher", "style", ("vgg16",)),
    "sliced": Judge("higher", "style", ("vgg16",)),
    "colors": Judge("lower", "style", smallest=1),
    "hatching": Judge("one", "both"),
    "borders": Judge("one", "", smallest=borders.SMALLEST),
    "clipped": Judge("lower", "", smallest=1),
}

_BY_LAYERS = ("lpips_vgg", "gram", "sliced")  # of VGG-16, in one walk


def check_sizes(names: Sequence[str], result: tuple[int, ...], style: tuple[int, ...], path: str = "") -> None:
    """See that judges have enough to look at.

    Args:
        names: Of `JUDGES`.
        result: Height and width.
        style: Likewise, as it is judged beside that result; see `pictures.size_of_style`.
        path: Of the result, for the message.

    Raises:
        UserError: A picture is too small for one of them.
    """
    for argument, (height, width) in (("RESULT", result), ("STYLE", style)):
        looks = [name for name in names if argument == "RESULT" or JUDGES[name].beside in {"style", "both"}]
        without = [name for name in looks if JUDGES[name].smallest > min(height, width)]
        if not without:
            continue
        least = max(JUDGES[name].smallest for name in without)
        file = f" for '{path}'" if path else ""
        others = ",".join(name for name in names if name not in without)
        raise UserError(
            f"{argument}: must have sides of at least {least} px to be judged by {', '.join(without)}, got "
            f"{width}x{height}{file}; give a larger result" + (f", or ask --judges {others} alone" if others else "")
        )


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
        check_sizes(self.names, tuple(result.shape[-2:]), tuple(style.shape[-2:]))
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
            "borders": lambda: borders.border_step(result),
            "clipped": lambda: clipped(result),
        }

    def _by_layers(self, result: Tensor, content: Tensor, style: Tensor) -> dict[str, float]:
        """Judges that look at VGG-16's layers, all in one walk: the maps of one layer of a tile are held at a time."""
        asked = [name for name in self.names if name in _BY_LAYERS]
        if not asked:
            return {}
        weights = self._networks["vgg16"]
        kept = [Kept(picture, asked) for picture in (result, content, style)]
        channels = {layer: weights[f"lin{index}"] for index, layer in enumerate(VGG_LAYERS)}
        distance = Distance(result, channels) if "lpips_vgg" in asked else None
        _walk(weights, [result, content], kept[:2], distance)
        if asked != ["lpips_vgg"]:
            _walk(weights, [style], kept[2:], None)
        said: dict[str, Callable[[], float]] = {
            "lpips_vgg": lambda: distance.value if distance else 0.0,
            "gram": lambda: statistics.fmean(matrices_closed(*(one.grams[layer] for one in kept)) for layer in LAYERS),
            "sliced": lambda: statistics.fmean(cells_closed(*(one.sampled(layer) for one in kept)) for layer in LAYERS),
        }
        return {name: said[name]() for name in asked}


def _walk(weights: Weights, pictures: Sequence[Tensor], kept: Sequence[Kept], distance: Distance | None) -> None:
    """Walk through pictures of one size, tile by tile; keep of each what is asked for, and measure their distance."""
    last = LAYERS[-1] if distance is None else VGG_LAYERS[-1]
    for tile in make_tiles(*pictures[0].shape[-2:]):
        rows, columns = tile.crop.slices
        walks = [vgg16(weights, picture[..., rows, columns]) for picture in pictures]
        layer = ""
        while layer != last:
            found = [next(walk) for walk in walks]
            layer = found[0][0]
            maps = [cells(tile, features, stride_of(layer)) for _, features in found]
            for features, keeper in zip(maps, kept, strict=True):
                keeper.add(layer, features, tile)
            if distance is not None:
                distance.add(layer, *maps)
            del found, maps, features  # while the walks go on nothing but them holds maps, each its newest
