"""A gallery's rows from a file: a table in CSV, or a list in YAML."""

from __future__ import annotations

import csv
import difflib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from nst_lightning.config.short import Short
from nst_lightning.demo import locate
from nst_lightning.errors import UserError
from nst_lightning.gallery.names import name_of, with_suffix
from nst_lightning.gallery.rows import Row, StyleFile
from nst_lightning.images.missing import advice

COLUMNS = (
    *("content", "style", "preset", "size", "strength", "likeness", "keep_colors", "protect_faces", "regions"),
    *("stroke_size", "seed", "output"),
)
_OF_FIT = {"bits", "quality", "color_space", "keep_location"}  # options without a dot that make sense for a row
_TABLES = {".csv", ".tsv"}
_LISTS = {".yaml", ".yml", ".json"}
_YES, _NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass
class _Cells:
    """A row as it stands in the file."""

    file: Path
    place: str  # such as ``row 2 (line 3)``
    values: dict[str, Any] = field(default_factory=dict)  # by column, without those left empty

    def refuse(self, column: str, requirement: str, value: object, advice: str) -> NoReturn:
        raise UserError(f"{self.file}: {self.place}, column {column}: {requirement}, got {value!r}; {advice}")


def read_manifest(path: Path, short: Short, pattern: str) -> list[Row]:
    """Rows of a manifest.

    Columns, or keys, are `COLUMNS` and dotted options of ``nst fit``; content and style must be given. Paths that are
    not absolute begin at the manifest's folder.

    Args:
        path: The file, whose suffix says its kind: csv, tsv, yaml, yml or json.
        short: Settings of rows that have none of their own.
        pattern: For the names of pictures where ``output`` gives none.

    Raises:
        UserError: With row and column, if a value is not what it should be, or a picture is not there.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise UserError(f"--manifest: must be a file, got the folder '{path}'; folders of pictures need no --manifest")
    if suffix not in _TABLES | _LISTS:
        raise UserError(f"--manifest: must end in .csv, .tsv, .yaml or .json, got '{path}'; rename it by what it holds")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"--manifest: must be text in UTF-8, got '{path}'; save it so") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--manifest: cannot read '{path}': {reason}; {advice(path)}") from None
    rows = [
        _row(index, cells, short, pattern)
        for index, cells in enumerate(_table(path, text) if suffix in _TABLES else _list(path, text), start=1)
    ]
    if not rows:
        raise UserError(f"--manifest: must hold at least one row, got none in '{path}'; add content and style")
    return rows


def _table(path: Path, text: str) -> Iterator[_Cells]:
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    header: list[str] = []
    number = 0
    try:
        for line in lines:
            cells = [cell.strip() for cell in line]
            if not any(cells):
                continue
            if not header:
                header = cells
                _check_columns(path, "the first line", header)
                continue
            number += 1
            found = _Cells(path, f"row {number} (line {lines.line_num})")
            if len(cells) > len(header):
                found.refuse(
                    str(len(header) + 1), "must be in the first line", cells[len(header)], "quote values with commas"
                )
            found.values = {name: cell for name, cell in zip(header, cells, strict=False) if cell}
            yield found
    except csv.Error as error:
        raise UserError(f"{path}: line {lines.line_num}: must be CSV, got {error}; mend the line") from None


def _list(path: Path, text: str) -> Iterator[_Cells]:
    try:
        node, rows = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: must be YAML, got {reason}; mend the file") from None
    if rows is None:
        return
    if not isinstance(rows, list) or not isinstance(node, yaml.SequenceNode):
        raise UserError(
            f"{path}: must hold a list of rows, got a {type(rows).__name__}; begin each with '- content: a.jpg'"
        )
    for number, (row, item) in enumerate(zip(rows, node.value, strict=True), start=1):
        place = f"row {number} (line {item.start_mark.line + 1})"
        if not isinstance(row, dict):
            raise UserError(f"{path}: {place}: must have keys such as content and style, got {row!r}; add them")
        _check_columns(path, place, list(map(str, row)))
        yield _Cells(path, place, {str(key): value for key, value in row.items() if value is not None})


def _check_columns(path: Path, place: str, names: list[str]) -> None:
    for name in names:
        if name in COLUMNS or name in _OF_FIT or "." in name:
            continue
        near = difflib.get_close_matches(name.lower(), COLUMNS, n=1)
        hint = f"did you mean {near[0]}?" if near else "leave it out"
        raise UserError(
            f"{path}: {place}, column {name or '(without a name)'}: must be one of {', '.join(COLUMNS)} or an option "
            f"such as model.evaluations, got '{name}'; {hint}"
        )
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: {place}, column {name}: must be there once, got it twice; leave one out")


def _row(index: int, cells: _Cells, short: Short, pattern: str) -> Row:
    for name in ("content", "style"):
        if name not in cells.values:
            cells.refuse(name, "must name a picture", "", "add it")
    options = {name: value for name, value in cells.values.items() if name not in COLUMNS}
    words = {name: _WORDS[name](cells, name) for name in _WORDS if name in cells.values}
    short = replace(short, **words, options={**short.options, **options})
    row = Row(index, _picture(cells, "content", cells.values["content"]), tuple(_styles(cells)), short)
    row = replace(row, place=f"{cells.file}: {cells.place}")
    given = "output" in cells.values
    return replace(row, name=with_suffix(_text(cells, "output")) if given else name_of(row, pattern))


def _styles(cells: _Cells) -> Iterator[StyleFile]:
    value = cells.values["style"]
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, Mapping):
            weight = item.get("weight", 1)
            if not set(item) <= {"path", "weight"} or "path" not in item or not _is_number(weight):
                cells.refuse("style", "must have path and maybe weight", item, "leave the rest out")
            yield StyleFile(_picture(cells, "style", item["path"]), float(weight))
        else:
            yield StyleFile(_picture(cells, "style", item))


def _picture(cells: _Cells, column: str, value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        cells.refuse(column, "must name a picture's file", value, "write its path")
    path = locate(value, f"{cells.file}: {cells.place}, column {column}")
    path = Path(os.path.normpath(cells.file.parent / path))
    if path.is_dir():
        cells.refuse(column, "must be a file", str(path), "give a row for each picture in that folder")
    if not path.exists():
        elsewhere = Path(value).exists()
        hint = f"paths begin at the manifest's folder; did you mean {Path(value).resolve()}?"
        cells.refuse(column, "must be a file that is there", str(path), hint if elsewhere else advice(path))
    return str(path)


def _text(cells: _Cells, column: str) -> str:
    value = cells.values[column]
    if not isinstance(value, (str, int, float)) or isinstance(value, bool) or not str(value):
        cells.refuse(column, "must be a name", value, "write it in quotation marks")
    return str(value)


def _number(cells: _Cells, column: str) -> float:
    value = cells.values[column]
    try:
        found = float(value) if isinstance(value, str) else value
    except ValueError:
        found = value
    if not _is_number(found):
        cells.refuse(column, "must be a number above 0", value, "1 is neutral")
    return float(found)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _size(cells: _Cells, column: str) -> int | str:
    value = cells.values[column]
    if value == "content":
        return "content"
    if isinstance(value, bool) or not str(value).isdecimal():
        cells.refuse(column, "must be a number of pixels, or content", value, "512 is a good start")
    return int(str(value))


def _share(cells: _Cells, column: str) -> float:
    value = cells.values[column]
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not 0 <= found <= 1:
        cells.refuse(column, "must be a number from 0 to 1", value, "0.5 is neutral")
    return found


def _count(cells: _Cells, column: str) -> int:
    value = cells.values[column]
    if isinstance(value, bool) or not str(value).isdecimal():
        cells.refuse(column, "must be a whole number from 0", value, "leave it out for 0")
    return int(str(value))


def _truth(cells: _Cells, column: str) -> bool:
    value = cells.values[column]
    plain = str(value).lower()
    if plain not in _YES | _NO:
        cells.refuse(column, "must be yes or no", value, "leave it out for no")
    return plain in _YES


_WORDS: dict[str, Callable[[_Cells, str], Any]] = {
    "preset": _text,
    "size": _size,
    "strength": _number,
    "likeness": _share,
    "keep_colors": _truth,
    "protect_faces": _truth,
    "regions": _count,
    "stroke_size": _number,
    "seed": _count,
}
