"""Total variation: neighbouring pixels stay close, against noise."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from nst_lightning.losses.term import Term

TotalVariationKind = Literal["squared", "absolute", "nine_point"]


def total_variation(image: Tensor, kind: TotalVariationKind = "squared") -> Tensor:
    """Mean difference of neighbours, horizontal plus vertical.

    Args:
        image: (1, C, H, W), any range; a side of one pixel has no differences in its direction.
        kind: ``squared``, mean of squared differences (as in Johnson, Alahi and Fei-Fei, 2016, up to the mean), or
            ``absolute``, mean of absolute ones (anisotropic total variation of Rudin, Osher and Fatemi, 1992);
            ``nine_point``, squared ones with the diagonal neighbours (weights 2/3 and 1/6, whose gradient is the
            nine-point Laplacian of Patra and Karttunen 2006), which favours no direction.

    Returns:
        A scalar of at least 0; for a ramp with step d in one direction it is d² (both squared kinds) or |d|.
    """
    total = image.new_zeros(())
    for axis in (-2, -1):
        if image.shape[axis] > 1:
            difference = image.diff(dim=axis)
            mean = _mean(difference.abs() if kind == "absolute" else difference.square())
            total = total + (2 / 3 * mean if kind == "nine_point" else mean)
    if kind == "nine_point" and min(image.shape[-2:]) > 1:
        falling = image[..., 1:, 1:] - image[..., :-1, :-1]
        rising = image[..., 1:, :-1] - image[..., :-1, 1:]
        total = total + (_mean(falling.square()) + _mean(rising.square())) / 6
    return total


def _mean(values: Tensor) -> Tensor:
    """The mean, row by row: threads would share out one over everything, and its bits depend on their number."""
    return values.mean(-1).mean()


class TotalVariation(Term):
    """Keep the picture smooth.

    Args:
        weight: Factor on the term.
        kind: squared (smooth), absolute (flat areas with edges) or nine_point (smooth, in all directions alike).
    """

    group = "tv"
    sees_image = True

    def __init__(self, weight: float = 1.0, kind: TotalVariationKind = "squared") -> None:
        super().__init__([], weight)
        self.kind: TotalVariationKind = kind

    def image_loss(self, image: Tensor, content: Tensor | None, weights: Tensor | None) -> Tensor:
        """`total_variation` of the picture."""
        return total_variation(image, self.kind)
