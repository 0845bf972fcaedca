"""What is black or white in a channel, where detail is lost."""

from __future__ import annotations

from torch import Tensor


def clipped(picture: Tensor) -> float:
    """Share of samples that are 0 or 1 (or beyond) in a picture (1, 3, H, W)."""
    return float(((picture <= 0) | (picture >= 1)).float().mean())
