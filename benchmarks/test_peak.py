"""What the hardware can do: the arithmetic of one large matrix product, in 10⁹ operations a second."""

from __future__ import annotations

import pytest
from programs import product_step

from nst_lightning.hardware.accelerator import describe


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matrix_product(timed, benchmark, accelerator, dtype):
    """The yardstick for the share of the peak that an evaluation reaches."""
    if dtype == "bfloat16" and not describe(accelerator).bfloat16:
        pytest.skip("bfloat16 is emulated here, a thousand times slower")
    step, operations = product_step(accelerator, dtype)
    timed(step, "peak", accelerator=accelerator, dtype=dtype, operations=operations)
    if benchmark.stats:
        benchmark.extra_info["gigaflops"] = operations / benchmark.stats.stats.median / 1e9
