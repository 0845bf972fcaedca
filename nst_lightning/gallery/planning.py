"""Which pictures a gallery consists of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from nst_lightning.config.short import Short
from nst_lightning.errors import UserError
from nst_lightning.files.paths import expand
from nst_lightning.gallery import names
from nst_lightning.gallery.manifest import read_manifest
from nst_lightning.gallery.rows import Row, StyleFile
from nst_lightning.gallery.sources import find_pictures

Sources = Sequence["str | os.PathLike[str]"]


def plan_pairs(contents: Sources, styles: Sources, short: Short, folder: Path, pattern: str | None = None) -> list[Row]:
    """A row for each content in each style.

    Args:
        contents: Folders, patterns and files; see `find_pictures`.
        styles: The same.
        short: Settings of all pictures.
        folder: The gallery's.
        pattern: For the names of pictures.

    Raises:
        UserError: If something is not there, or names collide.
    """
    found = find_pictures(contents, "contents", folder), find_pictures(styles, "--styles", folder)
    rows = [
        Row(index, content, (StyleFile(style),), short) for index, (content, style) in enumerate(product(*found), 1)
    ]
    return _named(rows, folder, pattern or names.PAIRS)


def plan_manifest(path: str | os.PathLike[str], short: Short, folder: Path, pattern: str | None = None) -> list[Row]:
    """The rows of a manifest; see `read_manifest`.

    Raises:
        UserError: With row and column.
    """
    rows = read_manifest(expand(path, "--manifest"), short, pattern or names.PAIRS)
    names.check_names(rows, folder)
    return rows


def plan_sheet(
    contents: Sources, styles: Sources, variants: Sequence[Short], folder: Path, pattern: str | None = None
) -> list[Row]:
    """A row for each way to make one picture.

    Raises:
        UserError: If there is more than one pair, something is not there, or names collide.
    """
    found = find_pictures(contents, "contents", folder), find_pictures(styles, "--styles", folder)
    for argument, pictures in zip(("contents", "--styles"), found, strict=True):
        if len(pictures) > 1:
            raise UserError(
                f"{argument}: must be one picture with --sheet, got {len(pictures)} ({pictures[0]}, {pictures[1]}); "
                "choose one"
            )
    (content,), (style,) = found
    rows = [Row(index, content, (StyleFile(style),), short) for index, short in enumerate(variants, 1)]
    return _named(rows, folder, pattern or names.SHEET)


def sheet_variants(
    short: Short, presets: Sequence[str], strengths: Sequence[float], stroke_sizes: Sequence[float]
) -> list[Short]:
    """Presets by strengths by stroke sizes; those of which none are given stay as they are."""
    own: tuple[list[str], list[float | None], list[float | None]] = (
        [short.preset],
        [short.strength],
        [short.stroke_size],
    )
    choices = presets or own[0], strengths or own[1], stroke_sizes or own[2]
    return [
        replace(short, preset=preset, strength=strength, stroke_size=stroke_size)
        for preset, strength, stroke_size in product(*choices)
    ]


def _named(rows: Sequence[Row], folder: Path, pattern: str) -> list[Row]:
    named = [replace(row, name=names.name_of(row, pattern)) for row in rows]
    names.check_names(named, folder)
    return named
