"""What is counted of an evaluation: operations, kernels, reads."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn.functional import conv2d, relu

from nst_lightning.config.presets import beside_package
from nst_lightning.hardware.recording import Repeated


@pytest.fixture
def counting(monkeypatch):
    """The module, which is no part of the package."""
    monkeypatch.syspath_prepend(str(beside_package("benchmarks")))
    import counting

    yield counting
    for name in ("counting", "programs", "baseline"):
        sys.modules.pop(name, None)


def test_operations_are_of_products_and_convolutions(counting):
    image, weight = torch.rand(1, 3, 8, 8), torch.rand(4, 3, 3, 3)
    assert counting.operations(lambda: conv2d(image, weight, padding=1)) == 2 * 64 * 4 * 27
    assert counting.operations(lambda: torch.rand(5, 6) @ torch.rand(6, 7)) == 2 * 5 * 6 * 7
    assert counting.operations(lambda: relu(image)) == 0


def test_views_are_no_work_and_values_are_reads(counting):
    values = torch.rand(4, 4)
    steps = {
        "views": (lambda: values.T[:2].reshape(-1), 1, 0),  # a copy
        "sums": (lambda: (values + values).sum().neg(), 3, 0),
        "an item": (lambda: values.sum().item(), 1 + 1, 1),
        "a mask": (lambda: values[values > 0.5], 2, 1),
        "numbers": (lambda: values[torch.arange(2)], 2, 0),
        "where": (values.nonzero, 1, 1),
    }
    for name, (step, work, reads) in steps.items():
        found = counting.counts(step, "cpu")
        assert (found["kernels"], found["host_reads"]) == (work, reads), name


def test_an_evaluation_reads_nothing_and_plain_pytorch_reads(counting, use_tiny_weights, monkeypatch):
    programs = sys.modules["programs"]
    step, _ = programs.our_step(64, "cpu", "32-true")
    step()
    found = counting.counts(step, "cpu")
    assert found["host_reads"] == 0
    assert found["operations"] > 1e6
    assert found["kernels"] > 100
    programs._SETTINGS.close()


def test_what_is_counted_is_launched_and_not_replayed(counting):
    """Of a replayed step a counter sees nothing."""
    values = torch.rand(5, 6)
    repeated = Repeated(lambda function: lambda: None, "products")
    assert counting.counts(lambda: repeated({"x": 1}, lambda: [values @ values.T]), "cpu")["operations"] == 300
    assert not repeated.is_recorded
