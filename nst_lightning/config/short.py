"""Short words for what people reach for, and the command line of ``nst fit`` that they stand for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nst_lightning.errors import UserError

PRESET = "fast"  # the best that needs no download
_WEIGHTED = re.compile(r"(demo:\w+|.+\.\w+):([^:/\\]*)")
_PLAIN = re.compile(r"[\w/.:~ -]*\w\.\w+|demo:\w+")  # paths that YAML takes for nothing else


@dataclass(frozen=True)
class Short:
    """What is asked for in short words; None leaves it to the preset.

    Args:
        preset: A preset, or a configuration file; several are separated by commas, later ones win.
        size: Long side of the result in pixels, or content for the content's own.
        strength: Style against content, 1 is neutral.
        likeness: How much is recognised of the content, 0 to 1; 0.5 is neutral.
        keep_colors: Whether the result has the content's colours.
        protect_faces: Whether faces that are found in the content stay clear.
        regions: How many regions of the content take their style from what is most like them; 0 for none.
        stroke_size: Factor on the size of the style's strokes.
        output: Where the result goes.
        seed: Of all that is random.
        options: Options of ``nst fit`` by their dotted names, with values as in YAML; they win over the rest.
    """

    preset: str = PRESET
    size: int | str | None = None
    strength: float | None = None
    likeness: float | None = None
    keep_colors: bool = False
    protect_faces: bool = False
    regions: int | None = None
    stroke_size: float | None = None
    output: str | None = None
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, content: str | None, styles: Sequence[str | Mapping[str, Any]]) -> list[str]:
        """The command line after ``nst fit``.

        Args:
            content: Path of the content; None for a texture, which has none.
            styles: Path of each style, with ``:2`` for a weight, or a mapping with the arguments of a `Style`.

        Raises:
            UserError: If a number makes no sense, or an option is named that has a word of its own here.
        """
        args = [f"--config={name.strip()}" for name in self.preset.split(",") if name.strip()]
        if content is not None:
            args.append(f"--data.content={_as_path(content)}")
        args.append(f"--data.style={self._style(styles)}")
        given = {
            "data.size": self.size,
            "model.strength": self.strength,
            "model.likeness": self.likeness,
            "data.color": "luminance" if self.keep_colors else None,
            "data.content_mask": "faces" if self.protect_faces else None,
            "data.regions": self.regions,
            "output": None if self.output is None else self.output,
            "seed_everything": self.seed,
        }
        args += [f"--{name}={value}" for name, value in given.items() if value is not None]
        for name, value in self.options.items():
            if given.get(name) is not None:
                raise UserError(f"{name}: must be given once, got {given[name]} and {value}; leave one out")
            args.append(f"--{name.lstrip('-')}={_in_yaml(value)}")
        return args

    def _style(self, styles: Sequence[str | Mapping[str, Any]]) -> str:
        if self.stroke_size is not None and not self.stroke_size > 0:
            raise UserError(f"stroke_size: must be above 0, got {self.stroke_size}; 1 is neutral, 2 twice as large")
        items = []
        for style in styles:
            item = _weighted(style) if isinstance(style, str) else dict(style)
            if self.stroke_size is not None:
                item["scale"] = self.stroke_size * item.get("scale", 1.0)
            items.append(item)
        if len(items) == 1 and set(items[0]) == {"path"} and _PLAIN.fullmatch(items[0]["path"]):
            return str(items[0]["path"])
        return _in_yaml(items)


def takes_weight(path: str) -> bool:
    """Whether a weight may stand behind a style's path; one without a suffix may end in what looks like a weight."""
    return _WEIGHTED.fullmatch(f"{path}:1") is not None


def _weighted(style: str) -> dict[str, Any]:
    """A style's path, and its weight in a blend, as in ``painting.jpg:2``."""
    found = _WEIGHTED.fullmatch(style)
    if found is None:
        return {"path": style}
    try:
        return {"path": found.group(1), "weight": float(found.group(2))}
    except ValueError:
        raise UserError(
            f"style: a weight must be a number, as in {found.group(1)}:2, got '{found.group(2)}'; mend it"
        ) from None


def _as_path(text: str) -> str:
    """A path that begins with a folder where YAML would take it for ``null`` or a number otherwise."""
    return text if _PLAIN.fullmatch(text) or text.startswith(("/", "~", "./", "../")) else f"./{text}"


def _in_yaml(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return _as_path(os.fspath(value))
    return value if isinstance(value, str) else json.dumps(value, default=os.fspath)
