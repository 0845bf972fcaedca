"""The styles of a blend as they are asked for."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias, Union

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

    path: str | Path
    weight: float = 1.0
    scale: float = 1.0
    mask: str | Path | None = None
    style_mask: str | Path | None = None
    layers: list[str] | None = None
    size: int | None = None


# What stands for a style; a mapping has a Style's arguments. The path is last: jsonargparse writes a value as the first
# type does that takes it, and a path takes all.
StyleLike: TypeAlias = Union[str, Style, Mapping[str, Any], Path]  # noqa: UP007 - made when it is imported


def picture_path(value: object, argument: str, allowed: str = "a path") -> str:
    """The path of a picture's file, from a path as text or as an object, or a name of the demo's pictures.

    Raises:
        UserError: If it is something else than is `allowed` for the argument, such as a picture in memory.
    """
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str) and path:
            return str(locate(path, argument))
    kind = "an empty path" if isinstance(value, str) else type(value).__name__
    in_memory = any(hasattr(value, name) for name in ("__array_interface__", "__array__"))
    advice = "a picture in memory is to be saved to a file first" if in_memory else "name a picture's file"
    raise UserError(f"{argument}: must be {allowed}, got {kind}; {advice}")


def _check_kinds(item: Style, argument: str) -> None:
    """Refuse values of a mapping, or of a Style from Python, that are not of their argument's kind."""
    for name in ("weight", "scale", "size"):
        value = getattr(item, name)
        if isinstance(value, bool) or not isinstance(value, (int, float) if name != "size" else (int, NoneType)):
            kind = "a whole number of pixels" if name == "size" else "a number"
            raise UserError(f"{argument}.{name}: must be {kind}, got {value!r}; leave it out for the default")
    layers: object = item.layers
    if layers is not None and not (isinstance(layers, (list, tuple)) and all(isinstance(x, str) for x in layers)):
        raise UserError(f"{argument}.layers: must be a list of names such as [relu1_1], got {layers!r}; add brackets")


def _as_style(value: object, argument: str) -> Style:
    if isinstance(value, Style):
        return replace(value)
    if not isinstance(value, Mapping):
        return Style(picture_path(value, argument, "a path, a Style, a mapping or a list of these"))
    names = [item.name for item in fields(Style)]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]}?" if near else "leave it out"
            raise UserError(f"{argument}.{key}: must be one of {', '.join(names)}, got {key}; {hint}")
    if "path" not in value:
        raise UserError(f"{argument}.path: must name the style's picture, got nothing; add path")
    return Style(**value)


def parse_styles(style: StyleLike | Sequence[StyleLike]) -> list[Style]:
    """Take styles as they are asked for: paths, mappings or Styles, one or several.

    Returns:
        Copies, whose files are named by texts; the demo's names are replaced by paths.

    Raises:
        UserError: If there is none, or one is of another kind, or a number makes no sense.
    """
    several = isinstance(style, (list, tuple))
    items: Sequence[object] = style if isinstance(style, (list, tuple)) else [style]
    styles = [_as_style(item, f"data.style[{index}]" if several else "data.style") for index, item in enumerate(items)]
    if not styles:
        raise UserError("data.style: must name at least one picture, got an empty list; add a path")
    for index, item in enumerate(styles):
        for name in ("path", "mask", "style_mask"):
            value = getattr(item, name)
            if value is not None or name == "path":
                setattr(item, name, picture_path(value, f"data.style[{index}].{name}"))
        _check_kinds(item, f"data.style[{index}]")
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
