"""Results of several machines, brought together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nst_lightning.errors import UserError
from nst_lightning.files.paths import expand

# What each suite's measurement must hold for the table, beside its suite and accelerator.
_NEEDED = {
    "peak": {"gigaflops"},
    "memory": {"bytes"},
    "tiling": {"bytes", "buffers", "seconds", "tile", "size", "extractor", "precision"},
    "overhead": {"overhead_seconds", "overhead_spread", "snapshot_seconds"},
    "target": {"baseline_evaluations", "baseline_seconds"},
    "presets": {"evaluations", "start_seconds"},
    "evaluation": {"size", "program", "min", "max", "optimizer"},
}


def read_results(paths: Sequence[str]) -> list[dict[str, Any]]:
    """What ``nst benchmark`` wrote, each with the ``stem`` of its file's name.

    Raises:
        UserError: If a file is none of it.
    """
    return [_read(expand(path, "--compare")) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refusal(path, error.strerror or "cannot be read") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise _refusal(path, "no JSON") from None
    measured = result.get("benchmarks") if isinstance(result, dict) else None
    if not isinstance(measured, list) or not measured or not isinstance(result.get("hardware"), dict):
        raise _refusal(path, "no measurements in it")
    for benchmark in measured:
        problem = _problem(benchmark)
        if problem:
            raise _refusal(path, problem)
    return {**result, "stem": path.stem}


def _problem(benchmark: Any) -> str | None:
    """What keeps a measurement from being one."""
    if not isinstance(benchmark, dict) or not all(isinstance(benchmark.get(k), str) for k in ("suite", "accelerator")):
        return "a measurement without suite and accelerator"
    needed = {"median", "iqr"} | _NEEDED.get(benchmark["suite"], set())
    missing = sorted(needed - set(benchmark))
    if missing:
        return f"a measurement of {benchmark['suite']} without {missing[0]}"
    words = {"suite", "accelerator", "program", "optimizer", "extractor", "precision"}
    numbers = ["size", "tile", "operations", "kernels", "host_reads", "beside_seconds", *(needed - words)]
    wrong = [key for key in numbers if not isinstance(benchmark.get(key, 0), (int, float))]
    return f"a measurement of {benchmark['suite']} whose {wrong[0]} is no number" if wrong else None


def _refusal(path: Path, why: str) -> UserError:
    return UserError(f"--compare: must be results of nst benchmark, got '{path}' ({why}); they are in its --output")


def device_names(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All measurements, with the device's name as their accelerator; sorted so that devices follow one another.

    Where devices of several files have one name, the file's name tells them apart.
    """
    named = [(result, kind, str(name)) for result in results for kind, name in result["hardware"].items()]
    counts = [name for _, _, name in named]
    labels = {
        (id(result), kind): f"{name} ({result['stem']})" if counts.count(name) > 1 else name
        for result, kind, name in named
    }
    measured = [
        {**b, "accelerator": labels.get((id(result), b["accelerator"]), f"{b['accelerator']} ({result['stem']})")}
        for result in results
        for b in result["benchmarks"]
    ]
    order = list(dict.fromkeys(b["suite"] for b in measured))
    keys = ("size", "tile", "program", "extractor", "precision", "optimizer", "dtype", "preset")
    return sorted(measured, key=lambda b: (order.index(b["suite"]), *(_sortable(b.get(key)) for key in keys)))


def _sortable(value: Any) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, (int, float)) else (0.0, str(value or ""))
