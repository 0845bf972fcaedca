"""Where faces are in a picture: windows of all sizes, sieved by three networks, each finer than the one before."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.faces.networks import Cascaded
from nst_lightning.images.resize import resize

_LONGEST = 1024  # px of the picture's long side that is looked at; a larger one is shrunk
_SMALLEST = 28  # px of a face there: below it walls and foliage begin to look at one
_STEP = 0.709  # of the sizes of windows, half the area
_WINDOW, _STRIDE = 12, 2  # px of the first network
# Probabilities. The last one is high: a face that is missed can be masked by hand, one on a wall spoils the picture.
_PROPOSED, _LIKELY, _SURE = 0.6, 0.7, 0.98


class Face(NamedTuple):
    """A rectangle around a face, from the brow to the chin, in shares of the picture's width and height."""

    left: float
    top: float
    right: float
    bottom: float


def find_faces(pixels: Tensor) -> list[Face]:
    """Find the faces in a picture.

    Args:
        pixels: (1, 3, H, W), sRGB in [0, 1], on the CPU, upright.

    Returns:
        Rectangles, the likeliest face first.

    Raises:
        UserError: The extra `faces` is not installed.
    """
    return [face for face, _ in scored_faces(pixels)]


@torch.inference_mode()
def scored_faces(pixels: Tensor, least: float = _SURE) -> list[tuple[Face, float]]:
    """As `find_faces`, with probabilities, which are at least the least."""
    from torchvision.ops import nms, roi_align  # noqa: PLC0415 - not loaded where no face is looked for

    height, width = pixels.shape[-2:]
    shrunk = min(1.0, _LONGEST / max(height, width))
    size = max(_WINDOW, round(height * shrunk)), max(_WINDOW, round(width * shrunk))
    seen = (resize(pixels, size, "bilinear").clamp(0, 1) * 255).round().sub(127.5).div(128)  # as they were trained on
    boxes = _proposals(seen)
    for name, side, threshold in (("rnet", 24, _LIKELY), ("onet", 48, least)):
        if not len(boxes):
            return []
        scores, offsets = Cascaded(name)(roi_align(seen, [boxes], side, aligned=True))
        sure = scores > threshold
        boxes, scores = _moved(boxes[sure], offsets[sure]), scores[sure]
        kept = nms(boxes, scores, 0.7 if name == "rnet" else 0.3)
        boxes, scores = boxes[kept], scores[kept]
        if name == "rnet":
            boxes = _squares(boxes)
    shares = boxes / torch.tensor([size[1], size[0], size[1], size[0]])
    return [(Face(*box), score) for box, score in zip(shares.tolist(), scores.tolist(), strict=True)]


def _proposals(seen: Tensor) -> Tensor:
    """Squares that may hold a face, (N, 4)."""
    from torchvision.ops import nms  # noqa: PLC0415

    network = Cascaded("pnet")
    found, scored = [torch.empty(0, 4)], [torch.empty(0)]
    scale = _WINDOW / _SMALLEST
    while min(seen.shape[-2:]) * scale >= _WINDOW:
        size = math.ceil(seen.shape[-2] * scale), math.ceil(seen.shape[-1] * scale)
        probability, offsets = network(resize(seen, size, "bilinear"))
        rows, columns = torch.nonzero(probability[0] > _PROPOSED, as_tuple=True)
        corner = torch.stack([columns, rows], dim=1) * _STRIDE
        boxes = torch.cat([corner, corner + _WINDOW], dim=1) / scale
        boxes, scores = _moved(boxes, offsets[0, :, rows, columns].T), probability[0, rows, columns]
        kept = nms(boxes, scores, 0.5)
        found.append(boxes[kept])
        scored.append(scores[kept])
        scale *= _STEP
    boxes, scores = torch.cat(found), torch.cat(scored)
    return _squares(boxes[nms(boxes, scores, 0.7)])


def _moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + offsets * sides


def _squares(boxes: Tensor) -> Tensor:
    """Squares about the middles of rectangles, as large as their longer sides."""
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True)
    return torch.cat([middle - side / 2, middle + side / 2], dim=1)
