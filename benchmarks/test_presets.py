"""Presets at their own length, as `nst fit` runs them on the demo pictures: from a command to a picture."""

from __future__ import annotations

from pathlib import Path

from quality import run


def test_preset(benchmark, accelerator, preset, tmp_path):
    """Seconds of the whole command, of which so many passed before the first evaluation."""
    found = []

    def make():
        options = ["--trainer.accelerator", accelerator]
        found.append(run(preset, Path("demo:content"), Path("demo:style"), tmp_path, options)[1])

    benchmark.extra_info.update(suite="presets", accelerator=accelerator, program="nst_lightning", preset=preset)
    benchmark.pedantic(make, rounds=1)
    benchmark.extra_info.update(
        evaluations=found[0]["evaluations"], start_seconds=found[0]["wall"] - found[0]["seconds"]
    )
