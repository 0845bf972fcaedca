"""Time and peak memory of an evaluation, whole and in tiles, by size: each in a process of its own, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import EXTRACTORS, precisions

TILES = (0, 1024)  # 0 is the whole picture
WHOLE_PER_PIXEL = {"vgg19": 1500, "compact": 1000, "narrow": 700}  # bytes


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("tile", TILES)
def test_tiling(benchmark, size, extractor, tile):
    """Seconds of an evaluation; bytes above the level after imports, and those of the buffers of full size."""
    if tile and size <= tile:
        pytest.skip("one tile")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if not tile and size * size * WHOLE_PER_PIXEL[extractor] > free:
        pytest.skip("not enough memory for the whole picture")
    precision = precisions("cpu")[-1]
    script = str(Path(__file__).with_name("tiled.py"))
    command = [sys.executable, script, extractor, str(size), str(tile), precision]
    printed = []

    def run():
        printed.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    benchmark.extra_info.update(
        suite="tiling", size=size, accelerator="cpu", precision=precision, extractor=extractor, tile=tile
    )
    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info.update(json.loads(printed[0]))
