"""Where pictures go: names from a pattern, checked before any work."""

from __future__ import annotations

import difflib
import os
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nst_lightning.errors import UserError
from nst_lightning.gallery.rows import Row
from nst_lightning.images.encode import format_of

PAIRS = "{content}_{style}"
SHEET = "{preset}_{strength}_{stroke_size}"
FIELDS = ("content", "style", "preset", "strength", "stroke_size", "index")
_LONGEST = 200  # bytes of a file's name, which leaves room for a number where one is moved aside
_SUFFIX = re.compile(r"\.[A-Za-z]\w*$")


def name_of(row: Row, pattern: str) -> str:
    """Where a row's picture goes below the gallery's folder, with slashes; PNG unless the pattern has a suffix.

    Args:
        row: The row.
        pattern: Text with `FIELDS` in braces, which may have a format as in ``{index:03d}``.

    Raises:
        UserError: If the pattern is none, or its suffix is of no format that is written.
    """
    values: dict[str, Any] = {
        "content": Path(row.content).stem,
        "style": row.style_name,
        "preset": "+".join(Path(name.strip()).stem for name in row.short.preset.split(",")),
        "strength": _factor(row.short.strength),
        "stroke_size": _factor(row.short.stroke_size),
        "index": row.index,
    }
    return with_suffix(_filled(pattern, values), pattern)


class _Number(float):
    """A number that is written as short as it can be."""

    def __format__(self, form: str) -> str:
        return super().__format__(form or "g")


def _factor(value: object) -> object:
    """A factor, 1 where none is given; what is no number is for the parser to refuse."""
    return _Number(1 if value is None else value) if isinstance(value, (int, float, type(None))) else value


def _filled(pattern: str, values: Mapping[str, Any]) -> str:
    try:
        for _, name, _, _ in string.Formatter().parse(pattern):
            if name is not None and name not in values:
                near = difflib.get_close_matches(name, FIELDS, n=1)
                hint = f"did you mean {{{near[0]}}}?" if near else "leave it out"
                raise UserError(f"--pattern: must name {', '.join(f'{{{f}}}' for f in FIELDS)}, got {{{name}}}; {hint}")
        return pattern.format_map(values)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(
            f"--pattern: must be a name with fields in braces, got '{pattern}' ({error}); try '{PAIRS}'"
        ) from None


def with_suffix(name: str, pattern: str | None = None) -> str:
    """A name with a suffix that says the format: PNG, unless the pattern, or the name itself, ends in one.

    Raises:
        UserError: If the suffix is of no format that is written.
    """
    if not _SUFFIX.search(name if pattern is None else pattern):
        return f"{name}.png"
    format_of(Path(name), 8, "--pattern")
    return name


def check_names(rows: Sequence[Row], folder: Path) -> None:
    """Find out before any work whether each picture has a place of its own in the gallery's folder.

    Raises:
        UserError: If a name leaves the folder, is too long, is that of a picture that the gallery reads, or of two.
    """
    taken: dict[str, Row] = {}
    inputs = {os.path.realpath(path) for row in rows for path in row.files}
    for row in rows:
        where = f"{row.place}, column output" if row.place else "--pattern"
        _check_place(row.name, where)
        if os.path.realpath(folder / row.name) in inputs:
            raise UserError(
                f"{where}: must not give the name of a picture that the gallery reads, got '{folder / row.name}'; "
                "choose another pattern or folder"
            )
        # Some file systems take names for the same that differ in case, or in how an accent is written.
        other = taken.setdefault(unicodedata.normalize("NFC", row.name).casefold(), row)
        if other is not row:
            raise UserError(
                f"{where}: must give each picture a name of its own, got {row.name} for {_described(other)} and for "
                f"{_described(row)}; add {{index}}, or what they differ in, as in '{PAIRS}_{{strength}}'"
            )


def _check_place(name: str, where: str) -> None:
    parts = PurePosixPath(name).parts
    clean = os.path.normpath(name)
    if (
        PurePosixPath(name).is_absolute()
        or "\\" in name
        or clean.startswith("..")
        or name.startswith("~")
        or "\0" in name
    ):
        raise UserError(f"{where}: must stay in the gallery's folder, got '{name}'; leave out what leads elsewhere")
    if any(part.startswith(".") for part in parts):
        raise UserError(f"{where}: must give names that are not hidden, got '{name}'; begin them with a letter")
    if any(len(os.fsencode(part)) > _LONGEST for part in parts):
        raise UserError(
            f"{where}: must give names of at most {_LONGEST} bytes, got '{name[:60]}...'; try '{{index:04d}}'"
        )


def _described(row: Row) -> str:
    styles = ", ".join(style.path for style in row.styles)
    return f"{row.place} ({row.content}, {styles})" if row.place else f"({row.content}, {styles})"
