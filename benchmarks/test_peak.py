"""What the hardware can do: the arithmetic of one large matrix product, in 10⁹ operations a second."""

from __future__ import annotations

import pytest
import torch
from programs import synchronize

from nst_lightning.hardware.accelerator import describe


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matrix_product(timed, benchmark, accelerator, dtype):
    """The yardstick for the share of the peak that an evaluation reaches."""
    if dtype == "bfloat16" and not describe(accelerator).bfloat16:
        pytest.skip("bfloat16 is emulated here, a thousand times slower")
    n = 2048 if accelerator == "cpu" else 8192
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(n, n, generator=generator).to(accelerator, getattr(torch, dtype)) for _ in range(2))

    def step():
        torch.mm(a, b)
        synchronize(accelerator)

    timed(step, "peak", accelerator=accelerator, dtype=dtype, operations=2 * n**3)
    if benchmark.stats:
        benchmark.extra_info["gigaflops"] = 2 * n**3 / benchmark.stats.stats.median / 1e9
