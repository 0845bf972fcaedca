"""Results as text in columns: medians, spread, and the ratio to the same run's baseline."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

Measured = dict[str, Any]


class Row(NamedTuple):
    """One line of the table; columns of which no line has anything are left out."""

    suite: str
    what: str
    median: str = ""
    spread: str = ""
    ratio: str = ""
    peak: str = ""
    kernels: str = ""
    reads: str = ""
    hourly: str = ""


_TITLES = Row(
    "suite", "what", "median", "spread", "ratio to baseline", "of peak", "kernels", "host reads", "images/hour"
)
_DTYPES = {"bf16-mixed": "bfloat16", "64-true": "float64"}  # others compute in float32


def facts(benchmark: Measured, *keys: str) -> tuple[Any, ...]:
    """What a measurement says under these keys; None where it does not."""
    return tuple(benchmark.get(key) for key in keys)


def seconds(value: float) -> str:
    """Three digits."""
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def table(benchmarks: list[Measured]) -> list[Row]:
    """A line for each measurement of the JSON file, and a second one where it holds two."""
    return [row for benchmark in benchmarks for row in _rows(benchmark, benchmarks)]


def _rows(b: Measured, all_of_them: list[Measured]) -> list[Row]:
    size = f" {b['size']} px" if b.get("size") else ""
    keys = ("preset", "program", "extractor", "precision", "optimizer", "kind", "dtype")
    details = ", ".join(str(b[key]) for key in keys if b.get(key) not in {None, "", "vgg19"})
    row = Row(b["suite"], f"{b['accelerator']}{size}, {details}", seconds(b["median"]), f"± {seconds(b['iqr'] / 2)}")
    own = _OWN.get(b["suite"], _timed)(b, all_of_them, row)
    if b["suite"] != "overhead":
        return [own]
    return [Row("snapshot", f"{b['accelerator']}{size}", seconds(b["snapshot_seconds"])), own]


def _timed(b: Measured, all_of_them: list[Measured], row: Row) -> Row:
    base = _baseline(b, all_of_them)
    if base and b["suite"] in {"evaluation", "optimizer"}:
        row = row._replace(ratio=f"{b['median'] / b.get('beside_seconds', base['median']):.2f}")
    counts = {"kernels": b.get("kernels"), "reads": b.get("host_reads")}
    return row._replace(peak=_share(b, all_of_them), **{key: _text(count) for key, count in counts.items()})


def _peak(b: Measured, all_of_them: list[Measured], row: Row) -> Row:
    return row._replace(median=f"{b['gigaflops']:.0f} GFLOP/s", spread="")


def _memory(b: Measured, all_of_them: list[Measured], row: Row) -> Row:
    base = _baseline(b, all_of_them)
    ratio = f"{b['bytes'] / base['bytes']:.2f}" if base and base["bytes"] else ""
    return row._replace(median=f"{b['bytes'] / 2**20:.0f} MiB", spread="", ratio=ratio)


def _overhead(b: Measured, all_of_them: list[Measured], row: Row) -> Row:
    spread = f"± {seconds(b['overhead_spread'])}"
    return row._replace(median=f"+{seconds(b['overhead_seconds'])} a step", spread=spread)


def _target(b: Measured, all_of_them: list[Measured], row: Row) -> Row:
    needed = f"{b.get('evaluations', math.nan)} of {b['baseline_evaluations']} evaluations"
    return row._replace(spread=needed, ratio=f"{b['median'] / b['baseline_seconds']:.2f}")


def _preset(b: Measured, all_of_them: list[Measured], row: Row) -> Row:
    whole = f"{b['evaluations']} evaluations, {seconds(b['start_seconds'])} to start"
    return row._replace(spread=whole, hourly=f"{3600 / b['median']:.0f}")


def _baseline(b: Measured, all_of_them: list[Measured]) -> Measured | None:
    """Plain PyTorch's measurement of the same on the same device, the last one."""
    keys = ("suite", "accelerator", "size")
    found = [o for o in all_of_them if o.get("program") == "baseline" and facts(o, *keys) == facts(b, *keys)]
    return found[-1] if found else None


def _share(b: Measured, all_of_them: list[Measured]) -> str:
    """Operations a second that an evaluation reached, of those that a matrix product did on the same device."""
    if not b.get("operations") or b["suite"] != "evaluation":
        return ""
    dtype = _DTYPES.get(b.get("precision", ""), "float32")
    for other in all_of_them:
        if other["suite"] == "peak" and facts(other, "accelerator", "dtype") == (b["accelerator"], dtype):
            return f"{b['operations'] / b['median'] / other['gigaflops'] / 1e9:.0%}"
    return ""


def _text(count: int | None) -> str:
    return "" if count is None else str(count)


def _tiling(b: Measured, all_of_them: list[Measured], row: Row) -> Row:
    """Time and memory in tiles, against the same picture whole."""
    size = f"{b['accelerator']} {b['size']} px"
    details = f"{b['extractor']}, {b['precision']}, " + (f"tiles of {b['tile']} px" if b["tile"] else "whole")
    beyond = (b["bytes"] - b["buffers"]) / 2**20
    whole = next((o for o in all_of_them if _is_whole_of(o, b)), None)
    return row._replace(
        what=f"{size}, {details}",
        median=seconds(b["seconds"]),
        spread=f"{b['bytes'] / 2**20:.0f} MiB, {beyond:.0f} beyond full-size buffers",
        ratio=f"{b['seconds'] / whole['seconds']:.2f} of the whole" if whole and b["tile"] else "",
    )


_OWN = {
    "peak": _peak,
    "memory": _memory,
    "tiling": _tiling,
    "overhead": _overhead,
    "target": _target,
    "presets": _preset,
}


def _is_whole_of(other: Measured, tiled: Measured) -> bool:
    """Whether a measurement is of the same picture on the same device without tiles."""
    keys = ("size", "extractor", "accelerator")
    return other["suite"] == "tiling" and not other["tile"] and facts(other, *keys) == facts(tiled, *keys)


def format_table(rows: list[Row]) -> str:
    """The rows as text in columns, below their titles."""
    used = [column for column in range(len(_TITLES)) if column < 5 or any(row[column] for row in rows)]
    lines = [[row[column] for column in used] for row in [_TITLES, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
