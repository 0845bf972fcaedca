"""``nst benchmark``: runs the suites of ``benchmarks/``, prints a table of ratios, keeps JSON and a plot."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

from nst_lightning import __version__
from nst_lightning.cli.plain import PlainParser
from nst_lightning.config.presets import beside_package
from nst_lightning.errors import UserError
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder
from nst_lightning.files.paths import expand
from nst_lightning.hardware.accelerator import Accelerator, choose_accelerator, choose_precision, describe
from nst_lightning.runs.provenance import source_commit

SUITES = ("peak", "evaluation", "optimizer", "overhead", "memory", "target", "tiling")  # each in test_NAME.py
SLOW = {"tiling"}  # only when they are asked for
PACKAGES = ("torch", "torchvision", "lightning", "pytest-benchmark", "numpy")


class Row(NamedTuple):
    """One line of the table."""

    suite: str
    what: str
    median: str
    spread: str
    ratio: str


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = PlainParser(
        prog="nst benchmark",
        description="Measure the project against plain PyTorch in one run, on every accelerator that is there.",
        allow_abbrev=False,
    )
    usual = ",".join(suite for suite in SUITES if suite not in SLOW)
    parser.add_argument("--suites", default=usual, help="comma-separated (default: %(default)s)")
    parser.add_argument("--accelerators", default="auto", help="cpu, cuda, mps, or auto for all (default: auto)")
    parser.add_argument("--precisions", default="auto", help="32-true, bf16-mixed, or auto for all that are native")
    parser.add_argument("--sizes", default="256,512,1024,2048", help="long sides in pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="repetitions of each measurement (default: 10)")
    parser.add_argument(
        "--output", default="benchmarks/results", help="folder for JSON and plot (default: %(default)s)"
    )
    options = parser.parse_args(list(args))
    for suite in options.suites.split(","):
        if suite not in SUITES:
            raise UserError(f"--suites: must be of {', '.join(SUITES)}, got '{suite}'; leave it out for all")
    sizes = options.sizes.split(",")
    if not all(size.isascii() and size.isdigit() and int(size) >= 64 for size in sizes):
        raise UserError(f"--sizes: must be whole numbers of at least 64, got '{options.sizes}'; try 256,512")
    if options.rounds < 1:
        raise UserError(f"--rounds: must be at least 1, got {options.rounds}; 10 is a good start")
    for name in options.accelerators.split(","):
        if name not in {"auto", *get_args(Accelerator)}:
            raise UserError(f"--accelerators: must be of cpu, cuda, mps, or auto, got '{name}'; try auto")
        found = choose_accelerator(name).value
        for precision in options.precisions.split(","):
            choose_precision(precision, describe(found))
    for package in ("pytest", "pytest_benchmark", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package}: must be installed, it is not; pip install 'nst_lightning[benchmark]'")
    return options


def main(args: Sequence[str]) -> int:
    """Run ``nst benchmark`` with the command line after the subcommand.

    Returns:
        The exit code: 0, or 1 if a suite failed (what it measured before is kept).
    """
    options = _parse(args)
    folder = expand(options.output, "--output")
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(f"--output: must be a folder, got '{folder}' ({error.strerror}); choose another") from None
    code, benchmarks = _measure(options)
    if not benchmarks:
        raise UserError(f"benchmarks: nothing was measured (pytest ended with {code}); see the messages above")
    result = {**environment(), "arguments": list(args), "benchmarks": benchmarks}
    device = next(iter(benchmarks))["accelerator"] if len({b.get("accelerator") for b in benchmarks}) == 1 else "all"
    stem = f"{datetime.now(timezone.utc):%Y-%m-%d_%H%M%S}_{device}"
    with replacing(folder / f"{stem}.json") as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())
    print(format_table(table(benchmarks)))  # noqa: T201
    plotted = draw(benchmarks, folder / f"{stem}.png")
    print(f"{folder / stem}.json" + (f", {folder / stem}.png" if plotted else ""))  # noqa: T201
    return 1 if code else 0


def _measure(options: argparse.Namespace) -> tuple[int, list[dict[str, Any]]]:
    """Run pytest in a process of its own, so that nothing of this one is measured."""
    suites = beside_package("benchmarks")
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(suites / "pytest.ini")),
            *("--rootdir", str(suites), "--benchmark-only", "--benchmark-disable-gc", "--benchmark-quiet"),
            *(f"--benchmark-json={report}", f"--rounds={options.rounds}"),
            *(f"--{name}={getattr(options, name)}" for name in ("accelerators", "precisions", "sizes")),
            *(str(suites / f"test_{suite}.py") for suite in options.suites.split(",")),
        ]
        code = subprocess.run(command, check=False).returncode
        if not report.is_file() or not report.stat().st_size:
            return code, []
        measured = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    kept = ("median", "iqr", "min", "max", "mean", "stddev", "rounds")
    return code, [{**b["extra_info"], **{key: b["stats"][key] for key in kept}} for b in measured]


def environment() -> dict[str, Any]:
    """Commit, versions and hardware."""
    accelerator = choose_accelerator("auto").value
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "versions": {
            "nst_lightning": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "hardware": {name: describe(name).name for name in dict.fromkeys(("cpu", accelerator))},
        "system": platform.platform(terse=True),
    }


def _facts(benchmark: dict[str, Any], *keys: str) -> tuple[Any, ...]:
    return tuple(benchmark.get(key) for key in keys)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def table(benchmarks: list[dict[str, Any]]) -> list[Row]:
    """A line for each measurement of the JSON file: median, spread, and the ratio to the same run's baseline."""
    comparable = ("suite", "accelerator", "size")
    baselines = {_facts(b, *comparable): b for b in benchmarks if b.get("program") == "baseline"}
    rows = []
    for b in benchmarks:
        base = baselines.get(_facts(b, *comparable))
        size = f" {b['size']} px" if b.get("size") else ""
        keys = ("program", "extractor", "precision", "optimizer", "kind", "dtype")
        details = ", ".join(str(b[key]) for key in keys if b.get(key) not in {None, "", "vgg19"})
        median, spread, ratio = _seconds(b["median"]), f"± {_seconds(b['iqr'] / 2)}", ""
        if b["suite"] == "peak":
            median, spread = f"{b['gigaflops']:.0f} GFLOP/s", ""
        elif b["suite"] == "memory":
            median, spread = f"{b['bytes'] / 2**20:.0f} MiB", ""
            ratio = f"{b['bytes'] / base['bytes']:.2f}" if base and base["bytes"] else ""
        elif b["suite"] == "tiling":
            details = f"{b['extractor']}, {b['precision']}, " + (f"tiles of {b['tile']} px" if b["tile"] else "whole")
            beyond = (b["bytes"] - b["buffers"]) / 2**20
            median = _seconds(b["seconds"])
            spread = f"{b['bytes'] / 2**20:.0f} MiB, {beyond:.0f} beyond full-size buffers"
            whole = next((o for o in benchmarks if _is_whole_of(o, b)), None)
            ratio = f"{b['seconds'] / whole['seconds']:.2f} of the whole" if whole and b["tile"] else ""
        elif b["suite"] == "overhead":
            median, spread = f"+{_seconds(b['overhead_seconds'])} a step", f"± {_seconds(b['overhead_spread'])}"
            rows.append(Row("snapshot", f"{b['accelerator']}{size}", _seconds(b["snapshot_seconds"]), "", ""))
        elif b["suite"] == "target":
            spread = f"{b.get('evaluations', math.nan)} of {b['baseline_evaluations']} evaluations"
            ratio = f"{b['median'] / b['baseline_seconds']:.2f}"
        elif base and b["suite"] in {"evaluation", "optimizer"}:
            ratio = f"{b['median'] / b.get('beside_seconds', base['median']):.2f}"
        rows.append(Row(b["suite"], f"{b['accelerator']}{size}, {details}", median, spread, ratio))
    return rows


def _is_whole_of(other: dict[str, Any], tiled: dict[str, Any]) -> bool:
    """Whether a measurement is of the same picture without tiles."""
    return (
        other["suite"] == "tiling"
        and not other["tile"]
        and _facts(other, "size", "extractor") == _facts(tiled, "size", "extractor")
    )


def format_table(rows: list[Row]) -> str:
    """The rows as text in columns."""
    header = Row("suite", "what", "median", "spread", "ratio to baseline")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]
    )


def draw(benchmarks: list[dict[str, Any]], path: Path) -> bool:
    """Plot seconds per evaluation against size, and memory where tiles were measured, into a PNG file.

    Returns:
        Whether there was anything to plot.
    """
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import LogLocator  # noqa: PLC0415

    panels = [panel for panel in (_evaluation_lines(benchmarks), *_tiling_lines(benchmarks)) if panel[1]]
    if not panels:
        return False
    figure, all_axes = plt.subplots(1, len(panels), figsize=(7 * len(panels), 4.5), layout="constrained", squeeze=False)
    for axes, (label, lines) in zip(all_axes[0], panels, strict=True):
        for name, points in lines.items():
            sizes, values, below, above = zip(*sorted(points), strict=True)
            style = "--" if name.startswith("baseline") or name.endswith("whole") else "-"
            axes.errorbar(sizes, values, [below, above], fmt=style, marker="o", capsize=3, label=name)
        axes.set(xscale="log", yscale="log", xlabel="long side in pixels", ylabel=label)
        ticks = sorted({point[0] for points in lines.values() for point in points})
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")
    plt.close(figure)
    return True


_Lines = dict[str, list[tuple[int, float, float, float]]]  # size, value, how far it went below and above


def _evaluation_lines(benchmarks: list[dict[str, Any]]) -> tuple[str, _Lines]:
    """Seconds by size for each program, precision and device."""
    lines: _Lines = {}
    for b in benchmarks:
        if b["suite"] == "evaluation" and b["optimizer"] in {"lbfgs", "torch lbfgs"}:
            if b["program"] == "nst_lightning" and b["optimizer"] != "lbfgs":
                continue
            facts = _facts(b, "program", "extractor", "accelerator", "precision")
            point = (b["size"], b["median"], abs(b["min"] - b["median"]), abs(b["max"] - b["median"]))
            lines.setdefault(" ".join(fact for fact in facts if fact not in {None, "vgg19"}), []).append(point)
    return "seconds per evaluation", lines


def _tiling_lines(benchmarks: list[dict[str, Any]]) -> list[tuple[str, _Lines]]:
    """Memory beyond the buffers of full size, and seconds, whole and in tiles."""
    memory: _Lines = {}
    seconds: _Lines = {}
    for b in benchmarks:
        if b["suite"] == "tiling":
            name = f"{b['extractor']}, " + (f"tiles of {b['tile']} px" if b["tile"] else "whole")
            beyond = (b["bytes"] - b["buffers"]) / 2**30
            memory.setdefault(name, []).append((b["size"], max(beyond, 0.01), 0, 0))
            seconds.setdefault(name, []).append((b["size"], b["seconds"], 0, 0))
    return [("GiB beyond buffers of full size", memory), ("seconds per evaluation", seconds)]
