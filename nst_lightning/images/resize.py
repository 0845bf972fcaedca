"""The size a picture is worked at, and the resampling that brings it there."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Resample = Literal["bicubic", "bilinear"]


def target_size(height: int, width: int, size: int, side: Literal["long", "short"] = "long") -> tuple[int, int]:
    """Height and width with the aspect ratio of the picture and one side of a given length.

    Args:
        height: Height of the picture in pixels, at least 1.
        width: Width of the picture in pixels, at least 1.
        size: Length that the chosen side shall have, at least 1.
        side: Which side ``size`` is meant for.

    Returns:
        ``(height, width)``; the other side is rounded to the nearest pixel (halves up) and at least 1.

    Raises:
        ValueError: A length is below 1 or ``side`` is unknown.

    Example:
        >>> target_size(3000, 4000, 1024)
        (768, 1024)
    """
    if min(height, width, size) < 1:
        raise ValueError(f"lengths must be at least 1, got {height} x {width} and size {size}")
    if side not in ("long", "short"):
        raise ValueError(f"side must be 'long' or 'short', got {side!r}")
    reference = max(height, width) if side == "long" else min(height, width)

    # Integers, because round() sends halves to the even neighbour and floats may miss them altogether.
    def scaled(length: int) -> int:
        return max(1, (2 * length * size + reference) // (2 * reference))

    return scaled(height), scaled(width)


def resize(pixels: Tensor, size: tuple[int, int], resample: Resample = "bicubic") -> Tensor:
    """Resample with an antialiased filter, widened when shrinking.

    Bicubic (Keys' cubic with a = -1/2) is the sharper one; it overshoots at edges, so that the result may
    leave the range of the input a little, and whoever writes it out clamps it. Bilinear is softer and stays
    in range.

    Args:
        pixels: ``(N, C, H, W)``, any floating-point type, on any device.
        size: ``(height, width)`` of the result.
        resample: The filter.

    Returns:
        ``(N, C, height, width)`` in the type of ``pixels``; ``pixels`` itself when it has that size.

    Example:
        >>> resize(torch.rand(1, 3, 36, 48), (18, 24)).shape
        torch.Size([1, 3, 18, 24])
    """
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    # Half-precision sums of many taps would show as banding (and some devices have no such kernel).
    precise = pixels if pixels.dtype == torch.float64 else pixels.float()
    resampled = F.interpolate(precise, size=size, mode=resample, align_corners=False, antialias=True)
    return resampled.to(pixels.dtype)
