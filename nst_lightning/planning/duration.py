"""How long a run will take, from a short look at how fast this device runs the network."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from nst_lightning.features import Extractor
from nst_lightning.hardware.accelerator import prefers_large_operations

_SIDE = 160  # pixels of the image that is looked at: large enough to keep two cores busy
_LARGE_SIDE, _LEAST_SIDE = 1024, 64  # of the larger of two that an accelerator is measured at
# An evaluation's pass back costs about what the pass forward does; losses, optimiser and what moves data come on top.
_PASSES, _TWO_PASSES, _REST = 2.0, 3.0, 1.25


class Speed(NamedTuple):
    """Seconds of one pass forward through a network: so many for each pixel, and some however few there are."""

    per_pixel: float
    per_pass: float = 0.0  # for launching operations, on accelerators


def speed_of(extractor: Extractor, layers: list[str], device: torch.device, pixels: int) -> Speed:
    """Measure a network on noise.

    An accelerator is idle much of the time where the image is small, and tries out algorithms when it sees a size for
    the first time. So it is measured at two sizes, after a pass at each, and the larger is about that of the run (which
    then takes more memory than these passes do).

    Args:
        extractor: The network, on the device.
        layers: That are asked for.
        device: Where.
        pixels: Of the largest image, or part of one, that the run evaluates at once.
    """
    if not prefers_large_operations(device):
        return Speed(_fastest(extractor, layers, device, _SIDE) / _SIDE**2)
    large = min(_LARGE_SIDE, max(_LEAST_SIDE, int(pixels**0.5)))
    times = {}
    for side in (large // 2, large):
        _fastest(extractor, layers, device, side, tries=1)
        times[side] = _fastest(extractor, layers, device, side)
    (less, short), (more, long) = ((side**2, seconds) for side, seconds in times.items())
    slope = max(0.0, long - short) / (more - less)
    return Speed(slope, max(0.0, long - slope * more))


@torch.no_grad()
def _fastest(extractor: Extractor, layers: list[str], device: torch.device, side: int, tries: int = 3) -> float:
    """Seconds of the fastest pass through a square of noise."""
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    fastest = float("inf")
    for _ in range(tries):
        begin = time.perf_counter()
        total = [features.sum() for _, features in extractor.iterate(image, layers)]
        sum(float(value) for value in total)  # waits for the device
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def seconds_of_evaluation(speed: Speed, pixels: int, crops: int | None = None, tiles: int = 1) -> float:
    """Time of one evaluation.

    Args:
        speed: Of the network.
        pixels: Of the image.
        crops: With tiles, of all crops that one process works on; None: the image is evaluated whole.
        tiles: How many these are.
    """
    passes = _PASSES if crops is None else _TWO_PASSES
    area = pixels if crops is None else crops
    return (speed.per_pixel * area + speed.per_pass * tiles) * passes * _REST


def seconds_of_picture_terms(speed: Speed, pixels: int) -> float:
    """Time that terms take in one evaluation which look at the picture itself, of so many pixels."""
    return (speed.per_pixel * pixels + speed.per_pass) * _REST


def in_words(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_bytes(count: int) -> str:
    """A size as people say it: ``3 MB``, ``4.8 GB``."""
    return f"{max(1, round(count / 1e6))} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
