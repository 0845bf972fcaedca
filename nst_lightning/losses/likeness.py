"""Likeness: pixels stay close to the content's, where a picture is to be touched lightly."""

from __future__ import annotations

from torch import Tensor

from nst_lightning.losses.term import Term

_UNIT = 0.16  # root mean square change of pixels that counts as 1, about that of a run at full strength
_STEPS = 4.0  # weight of changes from pixel to pixel: with 1 a hatching shows in skies, with 16 no stroke is left


class Likeness(Term):
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

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__([], weight)
        self.mask: Tensor | None = None
        self._target: Tensor | None = None

    def keep_picture(self, content: Tensor) -> None:
        """Take the content itself as target, (1, 3, H, W); it is not copied."""
        self._target = content

    def image_values(self, image: Tensor) -> dict[str, Tensor]:
        """Mean square of differences and of their steps, as masks weigh pixels; see the base class."""
        assert self._target is not None
        change = image - self._target.to(image)
        total = self._weighed(change.square(), self.mask)
        for axis in (-2, -1):
            mask = self.mask
            if mask is not None:  # of a step: what its two pixels have on average
                mask = (mask.narrow(axis, 1, mask.shape[axis] - 1) + mask.narrow(axis, 0, mask.shape[axis] - 1)) / 2
            total = total + _STEPS * self._weighed(change.diff(dim=axis).square(), mask)
        return {"image": total / (image.numel() * _UNIT**2)}

    @staticmethod
    def _weighed(squares: Tensor, mask: Tensor | None) -> Tensor:
        return (squares if mask is None else squares * mask).sum()

    def columns(self) -> list[str]:
        """The image is the only thing looked at; see the base class."""
        return ["image"]
