"""Seconds per evaluation: loss, gradient and update, by accelerator, size, precision and optimiser."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.hardware import compute_dtype, describe
from nst_lightning.objective import Objective, default_terms
from nst_lightning.optim import LBFGS

ACCELERATORS = [
    name
    for name, there in (
        ("cpu", True),
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    )
    if there
]
OPTIMIZERS = {
    "lbfgs": LBFGS,
    "torch_lbfgs": partial(
        torch.optim.LBFGS, max_iter=1, max_eval=1, history_size=100, tolerance_grad=-1, tolerance_change=-1
    ),
    "adam": partial(torch.optim.Adam, lr=0.02),
}


def synchronize(accelerator):
    """Wait for the device, so that a time is the time of the work and not of handing it over."""
    if accelerator == "cuda":
        torch.cuda.synchronize()
    elif accelerator == "mps":
        torch.mps.synchronize()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_evaluation(benchmark, accelerator, size, precision, optimizer):
    """One training step without Lightning around it."""
    if precision == "bf16-mixed" and not describe(accelerator).bfloat16:
        pytest.skip(f"{accelerator} has no native bfloat16")
    try:
        extractor = VGG19()
    except UserError as error:
        pytest.skip(str(error))
    objective = Objective(extractor, default_terms()).to(accelerator)
    extractor.set_compute_dtype(compute_dtype(precision))
    generator = torch.Generator().manual_seed(0)
    content, style = (torch.rand(1, 3, size * 3 // 4, size, generator=generator).to(accelerator) for _ in range(2))
    objective.prepare(content, [(style, 1.0)])
    image = content.clone().requires_grad_()
    optimiser = OPTIMIZERS[optimizer]([image])

    def closure():
        optimiser.zero_grad()
        loss = objective(image).loss
        loss.backward()
        return loss

    def step():
        optimiser.step(closure)
        synchronize(accelerator)

    benchmark.extra_info.update(hardware=describe(accelerator).name, torch=torch.__version__)
    benchmark.pedantic(step, rounds=8, warmup_rounds=3)
    assert torch.isfinite(image).all()
