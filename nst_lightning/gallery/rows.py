"""What a gallery is made of: one row for each picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nst_lightning.config.short import Short


@dataclass(frozen=True)
class StyleFile:
    """A style picture of a row."""

    path: str
    weight: float = 1.0  # share in a blend, relative to the row's other styles

    def as_argument(self) -> dict[str, Any]:
        """A mapping with arguments of a `Style`; always both, so that the settings of all rows have one form."""
        return {"path": self.path, "weight": self.weight}


@dataclass(frozen=True)
class Row:
    """One picture of a gallery: what it is made from, how, and where it goes.

    Attributes:
        index: Its number, from 1.
        content: Path of the content.
        styles: The styles, blended if there are several.
        short: Settings in short words.
        name: Where the picture goes, below the gallery's folder, with slashes.
        place: Where a manifest has the row; empty without one.
    """

    index: int
    content: str
    styles: tuple[StyleFile, ...]
    short: Short
    name: str = ""
    place: str = ""

    @property
    def files(self) -> list[Path]:
        """The content and the styles."""
        return [Path(self.content), *(Path(style.path) for style in self.styles)]

    @property
    def style_name(self) -> str:
        """Names of the styles without suffixes, joined by a plus."""
        return "+".join(Path(style.path).stem for style in self.styles)

    def arguments(self) -> list[str]:
        """The command line after ``nst fit`` that makes the picture, but for where it goes.

        Raises:
            UserError: If a number makes no sense.
        """
        return self.short.arguments(self.content, [style.as_argument() for style in self.styles])
