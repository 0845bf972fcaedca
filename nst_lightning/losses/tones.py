"""Tones: what is light and what is dark in the content, nearby, stays so."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.images.recolor import luma
from nst_lightning.images.resize import resize
from nst_lightning.losses.term import Term

_WINDOW = 7  # cells of a side, within which tones are compared
_NEGLIGIBLE = 0.03**2  # of a variance, for values in [0, 1]: the C2 of SSIM


def contrast_structure(one: Tensor, other: Tensor, weights: Tensor | None = None) -> Tensor:
    """The contrast and structure of two grey pictures alike, the second factor of SSIM in its windows of 7x7.

    (2 σxy + C) / (σx² + σy² + C) with C = 0.03² (Wang, Bovik, Sheikh and Simoncelli 2004, Image Quality Assessment,
    equation 13 without the means' factor), over uniform windows, averaged.

    Args:
        one: (1, 1, h, w) in [0, 1]; a side of less than 7 has windows of its length.
        other: The same shape.
        weights: (1, 1, h, w) of at least 0, how much each cell counts; None: all alike.

    Returns:
        A scalar, at most 1: for pictures whose windows differ by a constant only.
    """
    side = [min(_WINDOW, length) for length in one.shape[-2:]]

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, side, stride=1)

    counts = None if weights is None else mean(weights)
    per_cell = None if counts is None or weights is None else weights

    def moment(values: Tensor) -> Tensor:
        if per_cell is None or counts is None:
            return mean(values)
        return mean(values * per_cell) / counts.clamp(min=1e-6)

    means = moment(one), moment(other)
    variances = (moment(one * one) - means[0].square()) + (moment(other * other) - means[1].square())
    found = (2 * (moment(one * other) - means[0] * means[1]) + _NEGLIGIBLE) / (variances + _NEGLIGIBLE)
    found = found.clamp(max=1)  # which it passes by rounding alone, as 2xy <= x² + y²
    return found.mean() if counts is None else (found * counts).sum() / counts.sum().clamp(min=1e-6)


class Tones(Term):
    """Keep what is light and what is dark beside it, so that a face stays legible in a painting's darkest colours.

    1 - `contrast_structure` of the picture's luma and the content's, reduced to so many cells along the longer side. A
    picture may be darker or lighter than the content as a whole, but where the content is lighter than its
    surroundings, by so much, the picture has to be. Strokes finer than a cell are free. 0 at the content, about 1 where
    nothing of its tones is left.

    Args:
        weight: Factor on the term.
        cells: Along the longer side; a face has to have ten or more of them.
    """

    group = "content"
    sees_image = True
    needs_content = balanced = True
    copies = 1.0  # the gradient

    def __init__(self, weight: float = 1.0, cells: int = 96) -> None:
        super().__init__([], weight)
        check_at_least(f"{self.name}.cells", cells, 1)
        self.cells = cells

    def image_loss(self, image: Tensor, content: Tensor | None, weights: Tensor | None) -> Tensor:
        """What contrast and structure lack, as weights count pixels."""
        assert content is not None
        height, width = image.shape[-2:]
        scale = min(1.0, self.cells / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        ours, theirs = (_reduced(luma(picture), size) for picture in (image, content.to(image)))
        counts = None if weights is None else _reduced(weights, size).clamp(min=0)
        return 1 - contrast_structure(ours, theirs, counts)


def _reduced(grey: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 1, H, W) in a smaller size, by a filter without edges.

    Means of blocks would do for the values. But their gradient is the same all over a block and another in the next,
    and the picture fills with a grid of single pixels that neither they nor the network see. Products of matrices, as
    the resampling of libraries has no gradient on every device.
    """
    down, across = (_filter(*lengths, grey.dtype, grey.device) for lengths in zip(grey.shape[-2:], size, strict=True))
    return down @ grey @ across.T


@lru_cache(maxsize=8)
def _filter(old: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The resampling of a row of so many values as a matrix, (new, old); kept, so that no evaluation waits for it."""
    taps = resize(torch.eye(old, dtype=torch.float64)[:, None, None], (1, new))[:, 0, 0]
    return taps.T.to(device, dtype).contiguous()
