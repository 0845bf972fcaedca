"""Seconds per evaluation: loss, gradient and update."""

from __future__ import annotations

import pytest
import torch
from beside import baseline_beside
from counting import counts
from programs import EXTRACTORS, OPTIMIZERS, baseline_step, our_step, synchronize


def timed_step(step, accelerator):
    """A step that ends when the device has finished."""

    def run():
        step()
        synchronize(accelerator)

    return run


def test_baseline(timed, fits, accelerator, size):
    """Plain PyTorch, float32."""
    fits(accelerator, size)
    step, image = baseline_step(size, accelerator)
    step()
    timed(timed_step(step, accelerator), "evaluation", size, program="baseline", accelerator=accelerator,
          precision="32-true", optimizer="torch lbfgs", extractor="vgg19", **counts(step, accelerator))  # fmt: skip
    assert torch.isfinite(image).all()


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_size(timed, fits, accelerator, precision, size, extractor):
    """The project with its default optimiser, in turn with plain PyTorch."""
    fits(accelerator, size)
    step, image = our_step(size, accelerator, precision, extractor=extractor)
    step()
    facts = counts(step, accelerator)
    step()
    with baseline_beside(size, accelerator) as beside:
        timed(timed_step(step, accelerator), "evaluation", size, beside, program="nst_lightning", precision=precision,
              accelerator=accelerator, optimizer="lbfgs", extractor=extractor, **facts)  # fmt: skip
    assert torch.isfinite(image).all()


@pytest.mark.parametrize("other", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_other_optimizers(timed, accelerator, precision, other):
    """The same at 512 px with every other optimiser."""
    step, image = our_step(512, accelerator, precision, other)
    timed(timed_step(step, accelerator), "evaluation", 512, program="nst_lightning", accelerator=accelerator,
          precision=precision, optimizer=other, extractor="vgg19")  # fmt: skip
    assert torch.isfinite(image).all()
