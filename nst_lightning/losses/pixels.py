"""Pixels stay close to the content's, where a picture is to be touched lightly."""

from __future__ import annotations

from torch import Tensor

from nst_lightning.losses.term import Term

_UNIT = 0.16  # root mean square change of pixels that counts as 1, about that of a run at full strength
_STEPS = 4.0  # weight of changes from pixel to pixel: with 1 a hatching shows in skies, with 16 no stroke is left


class Pixels(Term):
    """Keep the picture's pixels near the content's: their mean square difference, 1 at a difference of 0.16 everywhere.

    A deep layer does not see the finest patterns, so an objective of its features and a little style has no picture
    near the photograph as its minimum, but one with the style's finest strokes, or a grid in their place, laid over all
    of it, however small the style's weight is. This term sees everything, and the finest patterns the most: by the
    difference d it is the mean of d^2 + 4 (dx^2 + dy^2), whose second part, of the steps from pixel to pixel, has the
    gain 4 (4 sin^2(pi f)) at f periods a pixel in one direction: 0.4 for a stroke of twenty pixels, 12 for a hatching
    of three. `Objective` adds it below a strength of 1.

    Args:
        weight: Factor on the term.
    """

    group = "content"
    sees_image = additive = True
    needs_content = True
    copies = 4.0  # the change, its steps in both directions, and the gradient

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__([], weight)

    def image_loss(self, image: Tensor, content: Tensor | None, weights: Tensor | None) -> Tensor:
        """Mean square of differences and of their steps, as weights count pixels."""
        assert content is not None
        change = image - content.to(image)
        total = _weighted_sum(change.square(), weights)
        for axis in (-2, -1):
            both = weights
            if both is not None:  # a step counts as its two pixels do on average
                both = (both.narrow(axis, 1, both.shape[axis] - 1) + both.narrow(axis, 0, both.shape[axis] - 1)) / 2
            total = total + _STEPS * _weighted_sum(change.diff(dim=axis).square(), both)
        return total / (image.numel() * _UNIT**2)


def _weighted_sum(squares: Tensor, weights: Tensor | None) -> Tensor:
    return (squares if weights is None else squares * weights).sum()
