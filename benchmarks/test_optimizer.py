"""The optimiser alone, with its history full: one update for a gradient that is there."""

from __future__ import annotations

import pytest
import torch
from programs import OPTIMIZERS, synchronize


def test_update(timed, accelerator, size, optimizer):
    """One step on a quadratic, whose gradient costs nothing beside it and which no optimiser solves in that time."""
    if size > 1024:
        pytest.skip("the history of 100 images takes minutes to fill")
    generator = torch.Generator().manual_seed(0)
    target, curvature = (torch.rand(1, 3, size * 3 // 4, size, generator=generator).to(accelerator) for _ in range(2))
    target, curvature = 100 * target, 10 ** (-6 * curvature)
    image = torch.zeros_like(target).requires_grad_()
    optimiser = OPTIMIZERS[optimizer]([image])

    def closure():
        difference = image.detach() - target
        image.grad = curvature * difference
        return torch.dot(image.grad.view(-1), difference.view(-1)) / 2

    def step():
        optimiser.step(closure)
        synchronize(accelerator)

    for _ in range(max(group.get("history_size", 0) for group in optimiser.param_groups) + 2):
        step()
    timed(step, "optimizer", size, program="nst_lightning" if "torch" not in optimizer else "baseline",
          accelerator=accelerator, precision="32-true", optimizer=optimizer)  # fmt: skip
    assert torch.isfinite(image).all()
