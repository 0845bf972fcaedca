"""The styles of a blend as they are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nst_lightning.demo import locate
from nst_lightning.errors import UserError

SMALLEST_SIZE = 16  # pixels: one cell of VGG-19's fifth block


@dataclass
class Style:
    """One style image of a blend.

    Args:
        path: Picture file.
        weight: Share in the blend, relative to the other styles.
        scale: Factor on the style's size; larger values make larger strokes.
        size: Long side of this style image in pixels (or short, as the content's), in place of ``data.style_size``.
        mask: A picture of the content's shape, white where this style is to be; edges may be soft. Styles with the same
            mask are blended there; those without take what the masks of the others leave.
        style_mask: A picture of the style's shape, white where the style counts.
        layers: Layers at which this style counts, by default all: one style may give the fine strokes (relu1_1 and
            relu2_1) and another the coarse forms (Gatys et al. 2017, Controlling Perceptual Factors in Neural Style
            Transfer).
    """

    path: str
    weight: float = 1.0
    scale: float = 1.0
    mask: str | None = None
    style_mask: str | None = None
    layers: list[str] | None = None
    size: int | None = None


def parse_styles(style: str | list[str | Style]) -> list[Style]:
    """Take styles as they are asked for: paths or mappings, with the names of the demo's pictures.

    Raises:
        UserError: If there is none, or a number makes no sense.
    """
    items = [style] if isinstance(style, str) else style
    styles = [Style(item) if isinstance(item, str) else replace(item) for item in items]
    if not styles:
        raise UserError("data.style: must name at least one picture, got an empty list; add a path")
    for index, item in enumerate(styles):
        item.path = str(locate(item.path, f"data.style[{index}].path"))
        item.mask = None if item.mask is None else str(locate(item.mask, f"data.style[{index}].mask"))
        if item.style_mask is not None:
            item.style_mask = str(locate(item.style_mask, f"data.style[{index}].style_mask"))
        if not (math.isfinite(item.weight) and item.weight >= 0):
            raise UserError(f"data.style[{index}].weight: must be finite and at least 0, got {item.weight}")
        if not (math.isfinite(item.scale) and item.scale > 0):
            raise UserError(f"data.style[{index}].scale: must be finite and above 0, got {item.scale}; 1 is neutral")
        if item.size is not None and item.size < SMALLEST_SIZE:
            raise UserError(
                f"data.style[{index}].size: must be at least {SMALLEST_SIZE} px, got {item.size}; choose a larger size"
            )
    for mask in {item.mask for item in styles}:
        if sum(item.weight for item in styles if item.mask == mask) <= 0:
            where = f" in the region of '{mask}'" if mask is not None else ""
            raise UserError(f"data.style: the weights must not all be 0{where}; give one style a weight above 0")
    return styles
