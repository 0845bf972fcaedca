"""The contact sheet: one page that holds all it shows, contents by styles, or settings of one pair."""

from __future__ import annotations

import base64
import io
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from nst_lightning import __version__
from nst_lightning.errors import UserError
from nst_lightning.files.atomic import keeping
from nst_lightning.gallery.rows import Row
from nst_lightning.gallery.store import OWNER, Record
from nst_lightning.images import read_image, resize, target_size
from nst_lightning.images.io import to_samples
from nst_lightning.planning.duration import in_words

NAME = "index.html"
_SIDE = 240  # pixels of a thumbnail's long side
_SPARSE = 0.5  # share of a table's cells below which a list reads better


@dataclass
class Item:
    """What the page shows of a picture.

    Attributes:
        row: The row.
        record: What is known of the picture, if it is finished.
        failure: Why there is none, in one line; empty if that is not so.
        thumbnail: Its thumbnail, as a data URI.
    """

    row: Row
    record: Record | None = None
    failure: str = ""
    thumbnail: str = ""

    @property
    def link(self) -> str:
        """Where the picture lies, from the page."""
        return quote(self.row.name)

    @property
    def time(self) -> str:
        """How long it took, in words."""
        if self.record is None or self.record.seconds is None:
            return ""
        return in_words(self.record.seconds) + (", continued" if self.record.continued else "")


@dataclass(frozen=True)
class _Head:
    """What stands before a row, or above a column."""

    text: str
    thumbnail: str = ""


@dataclass(frozen=True)
class _Table:
    title: str
    columns: Sequence[_Head]
    rows: Sequence[tuple[_Head, Sequence[Sequence[Item]]]]


@dataclass
class Page:
    """``index.html`` of a gallery, written as pictures come.

    Args:
        folder: The gallery's.
        items: Of all pictures, in their order; they are changed as pictures come.
        sheet: Whether settings of one pair are compared.
    """

    folder: Path
    items: Sequence[Item]
    sheet: bool = False
    _due: float = field(default=0.0, init=False)  # when it may be written again, by time.monotonic

    def write(self, *, now: bool = True) -> None:
        """Write the page, whole at every moment.

        Args:
            now: Write it in any case; without that only where the last time is so long ago that all writing together
                takes a twentieth of the gallery's time.

        Raises:
            OSError: The folder cannot be written to, or the disk is full.
        """
        begin = time.monotonic()
        if not now and begin < self._due:
            return
        for item in self.items:
            if item.record is not None and not item.thumbnail:
                item.thumbnail = _thumbnail(self.folder / item.row.name)
        text = _template().render(**self._facts())
        with keeping(self.folder / NAME, None, OWNER) as new:
            new.file.write(text.encode())
        self._due = time.monotonic() + 20 * (time.monotonic() - begin)

    def _facts(self) -> Mapping[str, Any]:
        finished = [item for item in self.items if item.record is not None]
        seconds = [item.record.seconds for item in finished if item.record and item.record.seconds is not None]
        common, differing = _settings([item.row for item in self.items])
        if self.sheet:  # what headings say
            differing = {name: {} for name in differing}
        tables = self._sheet() if self.sheet else self._pairs()
        return {
            "title": self.folder.resolve().name or "gallery",
            "version": __version__,
            "items": self.items,
            "finished": len(finished),
            "failures": [item for item in self.items if item.failure],
            "total": in_words(sum(seconds)) if seconds else "",
            "mean": in_words(sum(seconds) / len(seconds)) if seconds else "",
            "common": common,
            "differing": lambda item: differing[item.row.name],
            "tables": tables,
            "pair": self.items[0].row if self.sheet else None,
            "picture": lambda path: small_picture(str(path)),
        }

    def _pairs(self) -> list[_Table]:
        """Contents by styles; nothing where most of such a table would be empty."""
        cells: dict[tuple[str, tuple[str, ...]], list[Item]] = {}
        for item in self.items:
            cells.setdefault((item.row.content, tuple(style.path for style in item.row.styles)), []).append(item)
        contents = list(dict.fromkeys(content for content, _ in cells))
        styles = list(dict.fromkeys(style for _, style in cells))
        if len(cells) < _SPARSE * len(contents) * len(styles):
            return []
        columns = [_Head(" + ".join(Path(path).stem for path in paths), small_picture(paths[0])) for paths in styles]
        rows = [
            (_Head(Path(content).stem, small_picture(content)), [cells.get((content, paths), []) for paths in styles])
            for content in contents
        ]
        return [_Table("", columns, rows)]

    def _sheet(self) -> list[_Table]:
        """For each stroke size a table of strengths by presets."""
        cells: dict[tuple[Any, Any, Any], list[Item]] = {}
        for item in self.items:
            short = item.row.short
            key = (short.stroke_size or 1, short.strength or 1, short.preset)
            cells.setdefault(key, []).append(item)
        sizes, strengths, presets = (list(dict.fromkeys(key[place] for key in cells)) for place in range(3))
        columns = [_Head(preset) for preset in presets]
        return [
            _Table(
                f"stroke size {size:g}",
                columns,
                [
                    (_Head(f"strength {strength:g}"), [cells.get((size, strength, preset), []) for preset in presets])
                    for strength in strengths
                ],
            )
            for size in sizes
        ]


def _settings(rows: Sequence[Row]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Settings that all rows share, and by each row's name those that it has of its own."""
    each = {}
    for row in rows:
        short = row.short
        words = {
            "preset": short.preset,
            "size": short.size,
            "strength": short.strength,
            "likeness": short.likeness,
            "keep colours": "yes" if short.keep_colors else None,
            "protect faces": "yes" if short.protect_faces else None,
            "regions": short.regions,
            "stroke size": short.stroke_size,
            "seed": short.seed,
        }
        given = {name: value for name, value in {**words, **short.options}.items() if value is not None}
        each[row.name] = {name: str(value) for name, value in given.items()}
    first, *others = each.values()
    common = {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
    own = {of: {name: value for name, value in one.items() if name not in common} for of, one in each.items()}
    return common, own


@cache
def small_picture(path: str) -> str:
    """Thumbnail of a content or style, as a data URI; empty if it cannot be read."""
    return _thumbnail(Path(path))


def _thumbnail(path: Path) -> str:
    try:
        with warnings.catch_warnings():  # the run has said what is to be said of the picture
            warnings.simplefilter("ignore")
            pixels = read_image(path, needed=(_SIDE, _SIDE)).pixels
    except (UserError, OSError):
        return ""
    height, width = pixels.shape[-2:]
    size = target_size(height, width, min(_SIDE, max(height, width)))
    data = io.BytesIO()
    Image.fromarray(to_samples(resize(pixels, size).clamp(0, 1))).save(data, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("nst_lightning.gallery", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
