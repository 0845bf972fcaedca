"""Tones: what is light and what is dark in the content, nearby, stays so."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.images.recolor import luma
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
        side = math.ceil(max(image.shape[-2:]) / self.cells)
        ours, theirs = (luma(_reduced(picture, side)) for picture in (image, content.to(image)))
        return 1 - contrast_structure(ours, theirs, None if weights is None else _reduced(weights, side))


def _reduced(picture: Tensor, side: int) -> Tensor:
    """Means of squares of so many pixels; those at the end may be smaller."""
    return F.avg_pool2d(picture, side, ceil_mode=True, count_include_pad=False)
