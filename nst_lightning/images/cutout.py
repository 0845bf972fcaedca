"""Pictures with transparency: what is seen of them, without the white that files are shown on."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import UserError
from nst_lightning.images.io import Picture


def uncovered(picture: Picture, name: str = "image") -> Picture:
    """The colours of what is visible, carried on smoothly where nothing is.

    A network sees white around a cut-out, at its border too, and statistics count it. An opaque picture comes back as
    it is, any other with its own colours wherever it is not transparent altogether. One of which nothing is visible is
    refused by a UserError.
    """
    alpha = picture.alpha
    if alpha is None:
        return picture
    if not bool((alpha > 0).any()):
        raise UserError(f"{name}: must have a part that is visible, got '{picture.path}', all transparent")
    low, high = min(0.0, float(picture.pixels.min())), max(1.0, float(picture.pixels.max()))
    colours = _carried_on(picture.pixels - (1 - alpha), alpha)
    return dataclasses.replace(picture, pixels=colours.clamp_(low, high))


def _carried_on(weighted: Tensor, alpha: Tensor) -> Tensor:
    """Pull and push (Gortler et al. 1996, The Lumigraph, section 3.5.1): averages over ever larger areas fill gaps.

    Takes colours (1, 3, h, w) times alpha (1, 1, h, w), at least 0 and not 0 everywhere; returns colours, unchanged
    where alpha is above 0.
    """
    seen = alpha > 0
    colours = weighted / torch.where(seen, alpha, 1)
    if bool(seen.all()):
        return colours
    coarse = _carried_on(*(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (weighted, alpha)))
    size = (alpha.shape[-2], alpha.shape[-1])
    return torch.where(seen, colours, F.interpolate(coarse, size=size, mode="bilinear", align_corners=False))


def on_white(pixels: Tensor, alpha: Tensor) -> Tensor:
    """A picture as it is shown: (1, 3, H, W) in [0, 1] through (1, 1, H, W), as browsers composite."""
    return pixels * alpha + (1 - alpha)
