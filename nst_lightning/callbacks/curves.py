"""Curves of a run's losses as SVG."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

_POINTS = 240  # of a curve at most; more are not seen
_WIDTH, _HEIGHT = 960, 420
_DECADES = 4  # up to which there is room for three marks in each
_COLOURS = (
    *("#4c78c8", "#e07b39", "#3f9b5b", "#c94a53", "#8d68b8", "#96694c", "#d673b0", "#7f8790", "#a9a52e", "#2fa6b8"),
    *("#1f4e8c", "#9c4f1b"),
)


class Table(NamedTuple):
    """What ``metrics.csv`` holds.

    Attributes:
        steps: Evaluations.
        stages: Index of the stage of each.
        losses: Weighted losses by name; not a number where an evaluation had no such loss.
        seconds: When each was over.
    """

    steps: list[int]
    stages: list[int]
    losses: dict[str, list[float]]
    seconds: list[float]


def read_table(path: Path) -> Table | None:
    """Read it; None if it is not there, or empty.

    Raises:
        OSError: It cannot be read.
        ValueError: It is none of ours.
    """
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    names = [name for name in rows[0] if name not in {"step", "stage", "seconds"}]
    return Table(
        steps=[int(row["step"]) for row in rows],
        stages=[int(row["stage"]) for row in rows],
        losses={name: [float(row[name] or math.nan) for row in rows] for name in names},
        seconds=[float(row["seconds"] or math.nan) for row in rows],
    )


def draw(table: Table, names: Sequence[str]) -> str:
    """Curves of some losses over evaluations, on a logarithmic scale; empty if none of them is ever above 0."""
    import leather  # noqa: PLC0415 - takes a tenth of a second, at the end of a run

    every = -(-len(table.steps) // _POINTS)
    kept = sorted({*range(0, len(table.steps), every), len(table.steps) - 1})
    curves = {name: [(table.steps[i], table.losses[name][i]) for i in kept] for name in names}
    curves = {name: [(x, y) for x, y in points if 0 < y < math.inf] for name, points in curves.items()}
    values = [y for points in curves.values() for _, y in points]
    if not values:
        return ""
    chart = leather.Chart()
    for set_scale, add_axis, least, most in (
        (chart.set_x_scale, chart.add_x_axis, 1.0, max(2.0, table.steps[-1])),
        (chart.set_y_scale, chart.add_y_axis, 0.9 * min(values), 1.1 * max(values)),
    ):
        set_scale(_logarithmic(least, most))
        add_axis(ticks=_marks(least, most), tick_formatter=lambda value, *_: f"{value:.4g}")
    for (name, points), colour in zip(curves.items(), cycle(_COLOURS), strict=False):
        if points:
            chart.add_line(points, name=name, stroke_color=colour, width=2)
    # As wide as the page has room for, with room for names to the right and without the margins.
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    view = f'viewBox="24 24 {_WIDTH + 48} {_HEIGHT - 40}"'
    return str(chart.to_svg(width=_WIDTH, height=_HEIGHT)).replace(size, view, 1)


def _logarithmic(least: float, most: float) -> Any:
    """A logarithmic scale, which the library has not."""
    from leather import Scale  # noqa: PLC0415 - as above

    class Logarithmic(Scale):  # type: ignore[misc]
        def contains(self, value: float) -> bool:
            return least <= value <= most

        def project(self, value: float, range_min: float, range_max: float) -> float:
            share = math.log(float(value) / least) / math.log(most / least)
            return round(float(range_min) + share * (float(range_max) - float(range_min)), 2)

        def ticks(self) -> list[float]:
            return _marks(least, most)

    return Logarithmic()


def _marks(least: float, most: float) -> list[float]:
    """Round numbers in a range above 0, to be written along a logarithmic axis."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    steps = (1, 2, 5) if last - first <= _DECADES else (1,)
    marks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    return [mark for mark in marks if least <= mark <= most] or [least]
