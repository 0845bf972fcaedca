"""Peak memory of a run of 105 evaluations above the level after imports, each in a process of its own, at 512 px."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from programs import EXTRACTORS, precisions

SIZE = 512


@pytest.mark.parametrize(
    ("program", "extractor"), [("baseline", "vgg19"), *(("nst_lightning", name) for name in EXTRACTORS)]
)
def test_peak_memory(benchmark, accelerator, program, extractor):
    """Bytes, and the run's seconds beside them."""
    precision = "32-true" if program == "baseline" else precisions(accelerator)[-1]
    script = str(Path(__file__).with_name("memory.py"))
    command = [sys.executable, script, program, accelerator, precision, str(SIZE), extractor]
    printed = []

    def run():
        printed.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    benchmark.extra_info.update(
        suite="memory", size=SIZE, accelerator=accelerator, precision=precision, program=program, extractor=extractor
    )
    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["bytes"] = int(printed[0])
    assert int(printed[0]) > 0
