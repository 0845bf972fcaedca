"""How long a run will take, from a short look at how fast this device runs the network."""

from __future__ import annotations

import time

import torch

from nst_lightning.features import Extractor

_SIDE = 160  # pixels of the image that is looked at: large enough to keep two cores busy
# An evaluation's pass back costs about what the pass forward does; losses, optimiser and what moves data come on top.
_PASSES, _TWO_PASSES, _REST = 2.0, 3.0, 1.25


@torch.no_grad()
def seconds_per_pixel(extractor: Extractor, layers: list[str], device: torch.device) -> float:
    """Time of one pass forward, measured on noise."""
    image = torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(device)
    fastest = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        total = [features.sum() for _, features in extractor.iterate(image, layers)]
        sum(float(value) for value in total)  # waits for the device
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest / _SIDE**2


def seconds_of_evaluation(per_pixel: float, pixels: int, crops: int | None = None) -> float:
    """Time of one evaluation of so many pixels, or in tiles of so many in all the crops that one process works on."""
    passes = _PASSES * pixels if crops is None else _TWO_PASSES * crops
    return per_pixel * passes * _REST


def in_words(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_bytes(count: int) -> str:
    """A size as people say it: ``3 MB``, ``4.8 GB``."""
    return f"{max(1, round(count / 1e6))} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
