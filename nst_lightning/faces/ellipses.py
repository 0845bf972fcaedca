"""A mask that is white on faces, and shows no border around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.faces.detector import Face

# A detector's rectangle ends at brow, cheeks and chin. The white ellipse reaches over hair line and ears, too.
_WIDER, _HIGHER = 1.25, 1.3  # of the rectangle's sides
_RAISED = 0.05  # of its height
_FADE = 1.5  # of the ellipse's axes, where its soft edge ends
_FINE = 1024  # px of the long side at least that it is drawn in: a small face is no matter of where pixels lie


def ellipses(faces: Sequence[Face], size: tuple[int, int]) -> Tensor:
    """White ellipses with soft edges on faces.

    Args:
        faces: Rectangles in shares of the picture.
        size: Height and width in pixels.

    Returns:
        (1, 1, height, width) in [0, 1]; black if there are no faces.
    """
    finer = -(-_FINE // max(size))
    height, width = (side * finer for side in size)
    rows, columns = (torch.arange(side).add(0.5).div(side) for side in (height, width))
    mask = torch.zeros(height, width)
    for face in faces:
        tall, wide = face.bottom - face.top, face.right - face.left
        middle = (face.top + face.bottom) / 2 - _RAISED * tall
        y = (rows - middle) / (_HIGHER * tall / 2)
        x = (columns - (face.left + face.right) / 2) / (_WIDER * wide / 2)
        inside = ((_FADE - torch.hypot(y[:, None], x[None])) / (_FADE - 1)).clamp(0, 1)
        mask = torch.maximum(mask, inside**2 * (3 - 2 * inside))  # smooth at both ends of the edge
    return F.avg_pool2d(mask[None, None], finer) if finer > 1 else mask[None, None]
