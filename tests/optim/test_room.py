"""Room for the pairs that there can be, and no more; the bits are those of a longer buffer."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch

from nst_lightning.optim import LBFGS
from nst_lightning.optim.pairs import lazy_zeros


class Run:
    """A minimisation of a function that is not quadratic, with a gradient that once is no number."""

    def __init__(self, *, bad=None, **options):
        torch.manual_seed(0)
        self.image = torch.rand(1, 3, 24, 20).requires_grad_()
        self._weights = torch.rand(1, 3, 24, 20) + 0.1
        self.optimizer = LBFGS([self.image], **options)
        self._bad, self._count = bad, 0

    def go(self, evaluations):
        for _ in range(evaluations):
            self.optimizer.step(self._closure)
        return self

    def _closure(self):
        self.optimizer.zero_grad()
        change = self.image - 0.3
        loss = (self._weights * (change.square() + change.pow(4))).sum()
        if self._count == self._bad:
            loss = loss * float("nan")
        loss.backward()
        self._count += 1
        return loss

    @property
    def slots(self):
        (state,) = self.optimizer.state.values()
        return len(state["history"]) // 2


@pytest.mark.parametrize("options", [{}, {"history_dtype": "bfloat16"}, {"spectral_exponent": 0.0}, {"bad": 4}])
@pytest.mark.parametrize("evaluations", [1, 2, 9])
def test_a_buffer_for_the_pairs_that_there_can_be_gives_the_same_bits(options, evaluations):
    long, short = Run(**options), Run(**options)
    short.optimizer.expect(evaluations)
    long.go(evaluations), short.go(evaluations)
    assert torch.equal(long.image, short.image)
    assert (long.slots, short.slots) == (20, max(1, evaluations - 1))
    assert long.optimizer.curvature() == short.optimizer.curvature()


def test_a_run_that_goes_on_for_longer_gets_more_room():
    long, short = Run(history_size=6).go(15), Run(history_size=6)
    short.optimizer.expect(3)
    assert short.go(3).slots == 2
    assert torch.equal(long.image, short.go(12).image)
    assert short.slots == 6


def saved(run):
    """The optimiser's state as it comes out of a file."""
    file = io.BytesIO()
    torch.save(run.optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("at", [1, 3, 8])
def test_it_goes_through_a_file(at):
    whole, resumed = Run().go(12), Run()
    first = Run()
    first.optimizer.expect(8)
    first.go(at)
    resumed.optimizer.load_state_dict(saved(first))
    with torch.no_grad():
        resumed.image.copy_(first.image)
    assert torch.equal(resumed.go(12 - at).image, whole.image)


def test_the_state_of_an_earlier_version_goes_on():
    """It has all slots, does not say how many gradients there were, and begins with the second slot."""
    run, other = Run(history_size=5).go(4), Run(history_size=5)
    state = saved(run)
    (inner,) = state["state"].values()
    rows = torch.cat([inner["history"][:5].roll(1, 0), inner["history"][5:].roll(1, 0)])
    inner.update(history=rows, sy=inner["sy"].roll((1, 1), (0, 1)), ss=inner["ss"].roll(1, 1))
    inner.update(yy=inner["yy"].roll((1, 1), (1, 2)), newest=(inner["newest"] + 1) % 5)
    del inner["gradients"], state["param_groups"][0]["expected"]
    other.optimizer.load_state_dict(state)
    with torch.no_grad():
        other.image.copy_(run.image)
    torch.testing.assert_close(other.go(6).image, run.go(6).image, rtol=0, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_not_written_takes_no_memory():
    def resident():
        return 4096 * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])

    before = resident()
    zeros = lazy_zeros((64, 1 << 20), torch.float32, torch.device("cpu"))
    assert zeros.shape == (64, 1 << 20)
    assert resident() - before < 16 << 20
    zeros[:8] = 1.0
    assert 28 << 20 < resident() - before < 64 << 20
    assert not zeros[8:].any()


def test_memory_is_told_for_the_evaluations_that_there_will_be():
    optimizer, image = LBFGS([torch.zeros(1, 3, 8, 8)]), 4 * 300
    lasting = [optimizer.memory_for(300, evaluations=n)[0] for n in (None, 12, 2, 1)]
    passing = [optimizer.memory_for(300, evaluations=n)[1] for n in (None, 12, 2, 1)]
    assert lasting == [(2 * pairs + 3.5) * image for pairs in (20, 10, 0, 0)]
    assert passing == [(2 + 2 * pairs) * image for pairs in (0, 1, 1, 1)]
    # A recorded step takes its gradient from a place of its own, to which the evaluation's is copied.
    assert optimizer.memory_for(300, evaluations=12, at_once=True)[0] == (2 * 11 + 3.5 + 2) * image
    large = 3 * 2048 * 2048
    assert optimizer.memory_for(large, evaluations=12, at_once=True)[0] == (2 * 11 + 3.5) * 4 * large
