"""From the image of a run to what is to be seen: grey, in the content's colours, on white."""

from __future__ import annotations

from torch import Tensor

from nst_lightning.data.request import Color
from nst_lightning.data.stage_images import Pictures
from nst_lightning.images.cutout import on_white
from nst_lightning.images.recolor import as_grey, luma, match_colors, with_luma


class Finishing:
    """Give images the content's colours, if they are to have them, and lay them on white as their content.

    Args:
        pictures: Those that the run is made of.
        color: Whose colours the result has.
    """

    def __init__(self, pictures: Pictures, color: Color) -> None:
        self._pictures, self._color = pictures, color
        self._seen: tuple[Tensor, Tensor | None] | None = None  # content and alpha at the latest size

    def __call__(self, image: Tensor, extended: bool = False) -> Tensor:
        """Finish an image; see `StyleTransferData.finished`."""
        pictures, color = self._pictures, self._color
        if pictures.is_grey:
            image = as_grey(image)
        if color not in {"luminance", "recolor"} and pictures.content.alpha is None:
            return image
        size = (image.shape[-2], image.shape[-1])
        if self._seen is None or tuple(self._seen[0].shape[-2:]) != size:
            # Kept: snapshots come at one size, and soon.
            self._seen = pictures.content_at(size), pictures.alpha_at(size)
        content, alpha = self._seen
        if color == "luminance":
            image = with_luma(content, luma(image.clamp(0, 1)))
        elif color == "recolor":
            image = match_colors(image, content, alpha, alpha, clamp=not extended)
        if alpha is not None:
            image = on_white(image, alpha)
        return image if extended else image.clamp(0, 1)
