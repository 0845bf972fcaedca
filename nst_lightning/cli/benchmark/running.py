"""What is measured, and where: the suites, in a process of their own, and the machine."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nst_lightning import __version__
from nst_lightning.config.presets import beside_package
from nst_lightning.hardware.accelerator import available, describe
from nst_lightning.runs.provenance import source_commit

# Each in test_NAME.py.
SUITES = ("peak", "evaluation", "optimizer", "overhead", "memory", "target", "tiling", "presets")
SLOW = {"tiling", "presets"}  # only when they are asked for
PRESETS = "fast,painterly,gatys"
PACKAGES = ("torch", "torchvision", "lightning", "pytest-benchmark", "numpy")
_OPTIONS = ("accelerators", "precisions", "sizes", "presets", "rounds")


def measure(options: argparse.Namespace) -> tuple[int, list[dict[str, Any]]]:
    """Run pytest in a process of its own, so that nothing of this one is measured.

    Returns:
        Its exit code, and what was measured, one dictionary each.
    """
    suites = beside_package("benchmarks")
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(suites / "pytest.ini")),
            *("--rootdir", str(suites), "--benchmark-only", "--benchmark-disable-gc", "--benchmark-quiet"),
            f"--benchmark-json={report}",
            *(f"--{name}={getattr(options, name)}" for name in _OPTIONS),
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
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "versions": {
            "nst_lightning": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "hardware": {name: describe(name).name for name in sorted(available())},
        "system": platform.platform(terse=True),
    }
