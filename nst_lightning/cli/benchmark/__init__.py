"""``nst benchmark``: runs the suites of ``benchmarks/``, prints a table, keeps JSON and a plot; or compares such."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

from nst_lightning.cli.benchmark.compare import device_names, read_results
from nst_lightning.cli.benchmark.plot import draw
from nst_lightning.cli.benchmark.running import PRESETS, SLOW, SUITES, environment, measure
from nst_lightning.cli.benchmark.table import format_table, table
from nst_lightning.cli.plain import PlainParser
from nst_lightning.errors import UserError
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder
from nst_lightning.files.paths import expand
from nst_lightning.hardware.accelerator import Accelerator, choose_accelerator, choose_precision, describe

__all__ = ["SUITES", "draw", "environment", "format_table", "main", "table"]


def _parse(args: Sequence[str]) -> argparse.Namespace:
    kinds = ", ".join(get_args(Accelerator))
    parser = PlainParser(
        prog="nst benchmark",
        description="Measure the project against plain PyTorch in one run, on every accelerator that is there.",
        allow_abbrev=False,
    )
    usual = ",".join(suite for suite in SUITES if suite not in SLOW)
    parser.add_argument("--suites", default=usual, help="comma-separated (default: %(default)s)")
    parser.add_argument("--accelerators", default="auto", help=f"{kinds}, or auto for all (default: auto)")
    parser.add_argument("--precisions", default="auto", help="32-true, bf16-mixed, or auto for all that are native")
    parser.add_argument("--sizes", default="256,512,1024,2048", help="long sides in pixels (default: %(default)s)")
    parser.add_argument("--presets", default=PRESETS, help="of the suite presets (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="repetitions of each measurement (default: 10)")
    parser.add_argument(
        "--output", default="benchmarks/results", help="folder for JSON and plot (default: %(default)s)"
    )
    parser.add_argument("--compare", nargs="+", metavar="FILE", help="measure nothing: one table and plot of results")
    options = parser.parse_args(list(args))
    if options.compare is None:
        _check(options, kinds)
    packages = ("matplotlib",) if options.compare else ("pytest", "pytest_benchmark", "matplotlib")
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package}: must be installed, it is not; pip install 'nst_lightning[benchmark]'")
    return options


def _check(options: argparse.Namespace, kinds: str) -> None:
    """Refuse what cannot be measured."""
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
            raise UserError(f"--accelerators: must be of {kinds}, or auto, got '{name}'; try auto")
        found = choose_accelerator(name).value
        for precision in options.precisions.split(","):
            choose_precision(precision, describe(found))


def main(args: Sequence[str]) -> int:
    """Run ``nst benchmark`` with the command line after the subcommand.

    Returns:
        The exit code: 0, or 1 if a suite failed (what it measured before is kept).
    """
    options = _parse(args)
    results = read_results(options.compare) if options.compare else []
    folder = expand(options.output, "--output")
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(f"--output: must be a folder, got '{folder}' ({error.strerror}); choose another") from None
    if results:
        benchmarks = device_names(results)
        _show(benchmarks, folder / f"{_now()}_compared.png")
        return 0
    code, benchmarks = measure(options)
    if not benchmarks:
        raise UserError(f"benchmarks: nothing was measured (pytest ended with {code}); see the messages above")
    result = {**environment(), "arguments": list(args), "benchmarks": benchmarks}
    device = next(iter(benchmarks))["accelerator"] if len({b.get("accelerator") for b in benchmarks}) == 1 else "all"
    path = folder / f"{_now()}_{device}.json"
    with replacing(path) as file:
        file.write((json.dumps(result, indent=1) + "\n").encode())
    _show(benchmarks, path.with_suffix(".png"), path)
    return 1 if code else 0


def _now() -> str:
    return f"{datetime.now(timezone.utc):%Y-%m-%d_%H%M%S}"


def _show(benchmarks: list[dict[str, object]], plot: Path, *written: Path) -> None:
    """Print the table and what was written."""
    print(format_table(table(benchmarks)))  # noqa: T201
    paths = [*written, *([plot] if draw(benchmarks, plot) else [])]
    print(", ".join(map(str, paths)))  # noqa: T201
