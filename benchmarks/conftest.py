"""Options of the suites, and what the machine has."""

from __future__ import annotations

import statistics

import pytest
from programs import OPTIMIZERS, precisions

from nst_lightning.hardware.accelerator import available, describe

LISTS = {"accelerators": "auto", "precisions": "auto", "sizes": "256,512,1024,2048", "presets": "fast,painterly,gatys"}
BYTES_PER_PIXEL = 2600  # of the baseline, the hungriest program


def pytest_addoption(parser):
    """See pytest."""
    for name, default in LISTS.items():
        parser.addoption(f"--{name}", default=default, help=f"comma-separated; default {default}")
    parser.addoption("--rounds", type=int, default=10, help="repetitions of what takes less than seconds")


def accelerators(config):
    """Names of the devices to measure."""
    chosen = config.getoption("accelerators")
    if chosen != "auto":
        return chosen.split(",")
    return sorted(available())


def sizes(config):
    """Long sides in pixels."""
    return [int(size) for size in config.getoption("sizes").split(",")]


def pytest_generate_tests(metafunc):
    """One case for each device and each of its precisions, for each size; see pytest."""
    names, config = metafunc.fixturenames, metafunc.config
    if "accelerator" in names and "precision" in names:
        chosen = config.getoption("precisions")
        cases = [
            (accelerator, precision)
            for accelerator in accelerators(config)
            for precision in (precisions(accelerator) if chosen == "auto" else chosen.split(","))
        ]
        metafunc.parametrize(("accelerator", "precision"), cases)
    elif "accelerator" in names:
        metafunc.parametrize("accelerator", accelerators(config))
    if "preset" in names:
        metafunc.parametrize("preset", config.getoption("presets").split(","))
    if "size" in names:
        metafunc.parametrize("size", sizes(config))
    if "optimizer" in names:
        metafunc.parametrize("optimizer", OPTIMIZERS)


@pytest.fixture
def fits():
    """Skip what the device has no memory for."""

    def check(accelerator, size):
        if BYTES_PER_PIXEL * size * size > 0.9 * describe(accelerator).memory:
            pytest.skip(f"{size} px: too much for the memory of this device")

    return check


@pytest.fixture
def timed(request, benchmark):
    """Time a step: warm up, then so many rounds that large sizes do not take hours.

    What is given as ``beside`` (it returns seconds) is called before each round: a machine whose speed drifts within
    minutes drifts for both, so the ratio to it means something.
    """

    def run(step, suite, size=0, beside=None, **facts):
        rounds = request.config.getoption("rounds")
        rounds = rounds if size <= 512 else max(3, rounds // 2) if size <= 1024 else 3
        benchmark.extra_info.update(suite=suite, size=size, **facts)
        seconds = []
        in_turn = None if beside is None else lambda: seconds.append(beside())
        # On a GPU the third step is recorded (`hardware.recording`), on a CPU a large one is as fast as the next.
        warm = 3 if size <= 512 or facts.get("accelerator") != "cpu" else 1
        benchmark.pedantic(step, setup=in_turn, rounds=rounds, warmup_rounds=warm)
        if seconds:
            benchmark.extra_info["beside_seconds"] = statistics.median(seconds[-rounds:])

    return run
