"""Hatching: fine lines of two to four pixels in skies and walls, which optimisation leaves where nothing else is.

The power of luma at these periods in a result's smooth places, over what the pictures themselves have in theirs. Places
are blocks of 16 px, half a block apart. How smooth one is say the steps from pixel to pixel, and those of means of 4x4
px, in the 48 px around its centre: neither ripples nor thin lines are smooth, nor what lies beside an edge or a stroke.
The smoothest quarter of the content's blocks are the places of result and content, that of the style's are its own.
Nine blocks lie in 48 px, so that a place is hardly ever chosen for having little of what is then measured.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.images.recolor import luma

BLOCK = 16
SMALLEST = 48  # pixels of a side
_SMOOTH = 0.25  # share of blocks
_CELL = 4
_AROUND = 48
_ROUNDING = 0.75 * (1 / 255) ** 2 / 12  # power of rounding to 8 bits at periods below 4 px


def hatching(result: Tensor, content: Tensor, style: Tensor) -> float:
    """Power of fine lines in the smooth places of a result, over the larger of the content's and the style's in theirs.

    Args:
        result: (1, 3, H, W), RGB in [0, 1], sides of at least 48 px.
        content: The same shape.
        style: (1, 3, h, w).

    Returns:
        1 where a result is like the pictures; 4 for lines of twice the amplitude; near 0 for a result without any grain
        where the pictures have some.
    """
    places = smooth_blocks(content)
    ours, theirs = (float(fine_power(image)[places].mean()) for image in (result, content))
    styles = float(fine_power(style)[smooth_blocks(style)].mean())
    return max(ours, _ROUNDING) / max(theirs, styles, _ROUNDING)


def smooth_blocks(picture: Tensor) -> Tensor:
    """The smoothest quarter of blocks: (1, 3, H, W) -> (rows, columns), of bool."""
    brightness = luma(picture)
    steps = _steps(F.avg_pool2d(brightness, _CELL))
    fine = F.avg_pool2d(_steps(brightness), _CELL, ceil_mode=True)
    steps = steps + fine[..., : steps.shape[-2], : steps.shape[-1]]
    side, apart, margin = (length // _CELL for length in (_AROUND, BLOCK // 2, (_AROUND - BLOCK) // 2))
    # At the border of the picture there is less around a block, and the mean is of what there is.
    around = F.avg_pool2d(steps, side, apart, margin, ceil_mode=True, count_include_pad=False)[0, 0]
    rows, columns = ((length - BLOCK) // (BLOCK // 2) + 1 for length in picture.shape[-2:])
    around = around[:rows, :columns]
    count = max(1, round(_SMOOTH * around.numel()))
    return around <= around.flatten().kthvalue(count).values


def _steps(values: Tensor) -> Tensor:
    """Squared steps to the next value along both axes, (1, 1, h, w) -> (1, 1, h - 1, w - 1)."""
    return values.diff(dim=-1)[:, :, 1:].square() + values.diff(dim=-2)[..., 1:].square()


def fine_power(picture: Tensor) -> Tensor:
    """Power of luma at periods from 2 to 4 px along either axis, in blocks: (1, 3, H, W) -> (rows, columns).

    White noise of variance v has three quarters of v, a grating of amplitude a about a²/2 at periods of 2.5 to 3 px and
    half of that at 4 px.
    """
    blocks = luma(picture)[0, 0].unfold(0, BLOCK, BLOCK // 2).unfold(1, BLOCK, BLOCK // 2)
    row = torch.hann_window(BLOCK).to(blocks)
    window = row[:, None] * row
    # The mean must not leak through the window into what is measured.
    blocks = blocks - blocks.mean((-2, -1), keepdim=True)
    power = torch.fft.fft2(blocks * window).abs().square() / window.square().sum() / BLOCK**2
    # Of the frequency in the middle, which stands for those on both sides, one half is coarse.
    coarse = (0.5 + BLOCK / _CELL - (torch.fft.fftfreq(BLOCK) * BLOCK).abs()).clamp(0, 1).to(blocks)
    fine = 1 - coarse[:, None] * coarse
    total: Tensor = (power * fine).sum((-2, -1))
    return total
