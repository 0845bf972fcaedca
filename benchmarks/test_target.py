"""Time and evaluations until the loss that the baseline has after 150, at 512 px or the size nearest to it."""

from __future__ import annotations

import time

import pytest
from programs import baseline_step, our_step, precisions, synchronize

EVALUATIONS = 150


def test_time_to_the_same_loss(request, benchmark, accelerator):
    """Both programs minimise the same function from the same start."""
    size = min((int(text) for text in request.config.getoption("sizes").split(",")), key=lambda n: abs(n - 512))
    step, _ = baseline_step(size, accelerator)
    begin = time.perf_counter()
    losses = [step() for _ in range(EVALUATIONS)]
    seconds = time.perf_counter() - begin

    step, _ = our_step(size, accelerator, precisions(accelerator)[-1], objective="baseline")
    needed = []

    def run():
        for evaluation in range(1, 2 * EVALUATIONS):
            loss = float(step())
            if loss <= losses[-1]:
                needed.append(evaluation)
                return

    benchmark.extra_info.update(suite="target", size=size, accelerator=accelerator, program="nst_lightning")
    benchmark.extra_info.update(baseline_evaluations=EVALUATIONS, baseline_seconds=seconds, loss=losses[-1])
    benchmark.pedantic(run, rounds=1)
    synchronize(accelerator)
    if not needed:
        pytest.fail(f"the loss of {losses[-1]:.4g} was not reached in {2 * EVALUATIONS} evaluations")
    benchmark.extra_info["evaluations"] = needed[0]
