"""Likeness: pixels stay close to the content's, where a picture is to be touched lightly."""

from __future__ import annotations

from torch import Tensor

from nst_lightning.losses.term import Term

_UNIT = 0.16  # root mean square change of pixels that counts as 1, about that of a run at full strength


class Likeness(Term):
    """Keep the picture's pixels near the content's: their mean square difference, 1 at a difference of 0.16.

    A deep layer does not see the finest patterns, so an objective of its features and a little style has no picture
    near the photograph as its minimum, but one with the style's finest strokes, or a grid in their place, laid over all
    of it, however small the style's weight is. This term sees everything. `Objective` adds it below a strength of 1.

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
        """Mean square difference, as masks weigh pixels; see the base class."""
        assert self._target is not None
        squares = (image - self._target.to(image)).square()
        return {"image": (squares if self.mask is None else squares * self.mask).mean() / _UNIT**2}

    def columns(self) -> list[str]:
        """The image is the only thing looked at; see the base class."""
        return ["image"]
