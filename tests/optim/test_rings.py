"""Sums over rings, against a plain loop, as a CPU and as a GPU go about it."""

from __future__ import annotations

import pytest
import torch
from helpers import rand

from nst_lightning.optim import rings as module
from nst_lightning.optim.metric import SpectralMetric
from nst_lightning.optim.rings import Rings

SIZES = [3, 1, 7, 40, 5, 64, 2, 2, 90, 33]


@pytest.fixture(params=[False, True], ids=["CPU", "GPU"])
def device(request, monkeypatch):
    """Either way, with a ring of 30 coordinates being a large one and little that is taken together."""
    monkeypatch.setattr(module, "prefers_large_operations", lambda device: request.param)
    monkeypatch.setattr(module, "_SMALL", 30)
    monkeypatch.setattr(module, "MOST", 40)
    return torch.device("cpu")


@pytest.mark.parametrize("chunk", [slice(0, sum(SIZES)), slice(0, 50), slice(20, 111), slice(200, 240)], ids=str)
def test_sums_and_spreads_are_those_of_a_loop(device, chunk):
    rings = Rings(SIZES, device)
    length = chunk.stop - chunk.start
    rows, vectors, factors = rand(6, length, seed=1), rand(3, length, seed=2), rand(len(SIZES), seed=3)
    into, spread = rand(len(SIZES), 6, 3, seed=4), torch.zeros(length, dtype=torch.float64)
    expected = into.clone()
    ring_of = [ring for ring, size in enumerate(SIZES) for _ in range(size)]
    for at, ring in enumerate(ring_of[chunk]):
        expected[ring] += rows[:, at, None] * vectors[None, :, at]
        spread[at] = factors[ring]
    rings.add_products(into, rows, vectors, chunk)
    torch.testing.assert_close(into, expected, rtol=1e-12, atol=0)
    assert torch.equal(rings.spread(factors, chunk), spread)


@pytest.mark.parametrize(("side", "most"), [(64, 12), (256, 40), (1024, 60)])
def test_a_gpu_has_few_operations(monkeypatch, side, most):
    monkeypatch.setattr(module, "prefers_large_operations", lambda device: True)
    metric = SpectralMetric(torch.Size((1, 3, side, side)), 0.5, torch.device("cpu"), torch.float32, 32, True)
    sizes = metric.sizes * metric.axes
    rings = Rings(sizes, torch.device("cpu"))
    runs = rings._of(slice(0, sum(sizes)))
    assert [run.first for run in runs] == [0, *(run.last for run in runs[:-1])]
    assert runs[-1].last == len(sizes) == len(rings)
    assert [run.part.start for run in runs] == [0, *(run.part.stop for run in runs[:-1])]
    operations = sum(1 if run.ring is None else 4 for run in runs)
    assert operations <= most < 4 * len(sizes)
    together = [(run.last - run.first) * (run.part.stop - run.part.start) for run in runs if run.ring is not None]
    assert max(together) <= 1 << 18
