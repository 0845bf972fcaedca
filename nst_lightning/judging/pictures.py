"""Content and style at the size of a result."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.images.resize import resize, target_size

_SAME_SHAPE = 0.02  # what sizes in whole pixels, and rows that a program cuts off, make of an aspect ratio


class Sitting(NamedTuple):
    """What the judges are shown: RGB in [0, 1]."""

    result: Tensor  # (1, 3, H, W)
    content: Tensor  # (1, 3, H, W)
    style: Tensor  # (1, 3, h, w), the longer side that of the result


def seated(result: Tensor, content: Tensor, style: Tensor) -> Sitting:
    """Bring a content (1, 3, h, w) to the size of a result, and a style to that of its longer side.

    If content and style are one picture they stay so, of whatever shape the result is.
    """
    height, width = result.shape[-2:]
    fitted = resize(content, (height, width)).clamp(0, 1)
    if torch.equal(content, style):
        return Sitting(result, fitted, fitted)
    size = size_of_style((style.shape[-2], style.shape[-1]), (height, width))
    return Sitting(result, fitted, resize(style, size).clamp(0, 1))


def size_of_style(style: tuple[int, int], result: tuple[int, int]) -> tuple[int, int]:
    """Height and width that a style is judged at, from those of its file and of a result."""
    return target_size(*style, max(result))


def is_stretched(result: Tensor, content: Tensor) -> bool:
    """Whether a content (1, 3, h, w) has another shape than a result (1, 3, H, W), so that places do not agree."""
    (height, width), (content_height, content_width) = result.shape[-2:], content.shape[-2:]
    return abs(width * content_height / (height * content_width) - 1) > _SAME_SHAPE
