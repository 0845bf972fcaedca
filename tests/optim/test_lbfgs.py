"""L-BFGS against dense matrices, a list-based recursion and SciPy; faults, units and state."""

from __future__ import annotations

import io

import pytest
import scipy.optimize
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nst_lightning.errors import UserError
from nst_lightning.optim import LBFGS


def problem(n=12, seed=0):
    torch.manual_seed(seed)
    factor = torch.randn(n, n, dtype=torch.float64)
    return factor @ factor.T / n + 0.2 * torch.eye(n, dtype=torch.float64), torch.randn(n, dtype=torch.float64)


def two_loops(gradient, pairs):
    """Nocedal and Wright, algorithm 7.4."""
    q, alphas = gradient.clone(), []
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (s @ y))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    r = q * (s @ y) / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += s * (alpha - (y @ r) / (s @ y))
    return r


def dense(gradient, pairs):
    """BFGS updates of a full matrix."""
    n = len(gradient)
    s, y = pairs[-1]
    h = torch.eye(n, dtype=torch.float64) * (s @ y) / (y @ y)
    for s, y in pairs:
        v = torch.eye(n, dtype=torch.float64) - torch.outer(y, s) / (s @ y)
        h = v.T @ h @ v + torch.outer(s, s) / (s @ y)
    return h @ gradient


@pytest.mark.parametrize("history", [1, 2, 3, 5, 30])
def test_direction_at_every_offset_of_the_buffer(history):
    a, b = problem()
    x = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    optimiser, pairs, last = LBFGS([x], history_size=history, max_step=1e9), [], None
    for _ in range(min(3 * history + 3, 16)):
        before = x.detach().clone()
        x.grad = a @ before - b
        optimiser.step()
        gradient = a @ before - b
        if last is not None:
            pairs = [*pairs, (before - last[0], gradient - last[1])][-history:]
            moved = x.detach() - before
            for reference in (dense, two_loops):
                expected = -reference(gradient, pairs)
                assert (moved - expected).norm() < 1e-10 * expected.norm()
        last = before, gradient


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def test_minimiser_equals_scipys():
    a, b = problem(seed=4)

    def f(x):
        return 0.5 * x @ a @ x - b @ x + 0.1 * (x**4).sum()

    x = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    optimiser = LBFGS([x], first_step=0.1, max_step=1.0)
    for _ in range(80):
        optimiser.zero_grad()
        f(x).backward()
        optimiser.step()
    reference = scipy.optimize.minimize(
        lambda v: float(f(torch.from_numpy(v))), torch.zeros(12).double().numpy(), method="BFGS", options={"gtol": 1e-9}
    )
    torch.testing.assert_close(x.detach(), torch.from_numpy(reference.x), rtol=1e-5, atol=1e-6)


def test_a_curved_valley_is_followed():
    x = torch.full((4,), -0.5, dtype=torch.float64, requires_grad=True)
    optimiser = LBFGS([x], first_step=0.05, max_step=0.3)
    for _ in range(300):
        optimiser.zero_grad()
        rosenbrock(x).backward()
        optimiser.step()
    torch.testing.assert_close(x.detach(), torch.ones(4, dtype=torch.float64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_the_first_step_has_the_stated_size(scale, exponent):
    x = torch.rand(1, 3, 9, 7, requires_grad=True)
    before = x.detach().clone()
    x.grad = torch.randn_like(x) * scale
    LBFGS([x], first_step=0.02, spectral_exponent=exponent).step()
    assert float((x.detach() - before).square().mean().sqrt()) == pytest.approx(0.02, rel=1e-4)


def image_run(scale=1.0, steps=12, dtype=torch.float64, **options):
    """Iterates on an ill-conditioned quadratic of an image."""
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(1, 3, 8, 10, generator=generator).to(dtype)
    weight = torch.logspace(-2, 1, 240).view(1, 3, 8, 10).to(dtype)
    x = torch.zeros(1, 3, 8, 10, dtype=dtype, requires_grad=True)
    optimiser = LBFGS([x], **options)
    for _ in range(steps):
        optimiser.zero_grad()
        (scale * (weight * (x - target).square()).sum()).backward()
        optimiser.step()
    return x.detach()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_the_loss_do_not_matter(scale):
    torch.testing.assert_close(image_run(scale), image_run(), rtol=1e-9, atol=1e-9)


def test_a_power_of_two_in_front_of_the_loss_is_exact():
    assert torch.equal(image_run(2.0**20, dtype=torch.float32), image_run(dtype=torch.float32))


def test_units_of_the_image_do_not_matter():
    """A quarter of the unit, a quarter of both lengths: a quarter of each iterate, exactly."""

    def run(unit):
        generator = torch.Generator().manual_seed(6)
        target = torch.rand(1, 3, 8, 10, generator=generator)
        x = torch.zeros(1, 3, 8, 10, requires_grad=True)
        optimiser = LBFGS([x], first_step=0.01 * unit, max_step=0.1 * unit)
        for _ in range(12):
            optimiser.zero_grad()
            (x / unit - target).square().mul(torch.logspace(-2, 1, 240).view_as(x)).sum().backward()
            optimiser.step()
        return x.detach() / unit

    assert torch.equal(run(0.25), run(1.0))


def test_no_step_is_longer_than_stated():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    optimiser = LBFGS([x], first_step=0.01, max_step=0.05)
    for target in (1.0, 1.0, 1e6, 1e6):
        before = x.detach().clone()
        x.grad = 1e-3 * (x.detach() - target)
        optimiser.step()
        assert float((x.detach() - before).square().mean().sqrt()) <= 0.05 * 1.0001


def test_pairs_without_curvature_are_left_out():
    x = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = LBFGS([x], history_size=3, max_step=1e9)
    a = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
    for _ in range(4):
        x.grad = a * x.detach() - 1
        optimiser.step()
    state = optimiser.state[x]
    history, count, newest = state["history"].clone(), int(state["count"]), int(state["newest"])
    x.grad = state["last_gradient"] - state["last_step"]  # y = -s, negative curvature
    optimiser.step()
    assert (int(state["count"]), int(state["newest"])) == (count, newest)
    assert torch.equal(state["history"], history)


class Faulty:
    """A quadratic whose loss or gradient is NaN at chosen evaluations."""

    def __init__(self, bad, where="loss"):
        self.bad, self.where, self.calls = set(bad), where, 0
        self.x = torch.zeros(1, 3, 4, 4, requires_grad=True)
        self.optimiser = LBFGS([self.x], max_step=1.0)
        self.points = []

    def run(self, steps):
        for _ in range(steps):
            self.points.append(self.x.detach().clone())
            self.optimiser.step(self.closure)

    def closure(self):
        self.optimiser.zero_grad()
        loss = (self.x - 0.5).square().sum()
        loss.backward()
        if self.calls in self.bad:
            if self.where == "loss":
                loss = loss * float("nan")
            else:
                self.x.grad[0, 0, 0, 0] = float("inf")
        self.calls += 1
        return loss.detach()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_the_image_goes_back_to_the_last_finite_point(where):
    fault = Faulty({4}, where)
    fault.run(6)
    assert torch.equal(fault.points[5], fault.points[3])
    assert int(fault.optimiser.state[fault.x]["skipped"]) == 1
    fault.run(30)
    torch.testing.assert_close(fault.x.detach(), torch.full_like(fault.x, 0.5), rtol=1e-4, atol=1e-4)


def test_the_history_restarts_after_a_fault():
    """The next step is a first step, of the stated size, whatever was known before."""
    fault = Faulty({2})
    fault.run(2)
    state = fault.optimiser.state[fault.x]
    assert int(state["count"]) == 1  # something is known
    fault.run(3)
    assert torch.equal(fault.points[3], fault.points[1])
    change = fault.points[4] - fault.points[3]
    assert float(change.square().mean().sqrt()) == pytest.approx(0.01, rel=1e-4)
    assert int(state["count"]) == 1  # one new pair, from the two evaluations after the fault


@pytest.mark.parametrize("bad", [{0}, {0, 1, 2}, {3, 4, 5}])
def test_faults_at_the_start_and_in_a_row(bad):
    fault = Faulty(bad)
    fault.run(max(bad) + 1)
    expected = fault.points[0] if 0 in bad else fault.points[min(bad) - 1]
    assert torch.equal(fault.x.detach(), expected)
    fault.run(30)
    torch.testing.assert_close(fault.x.detach(), torch.full_like(fault.x, 0.5), rtol=1e-4, atol=1e-4)


def test_several_parameters_are_one_long_one():
    a, b = problem()
    whole = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    parts = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3), (4,), (2,))]
    one, three = LBFGS([whole]), LBFGS(parts)
    for _ in range(8):
        whole.grad = a @ whole.detach() - b
        flat = torch.cat([p.detach().reshape(-1) for p in parts])
        pieces = torch.split(a @ flat - b, [6, 4, 2])
        for p, piece in zip(parts, pieces, strict=True):
            p.grad = piece.view_as(p)
        one.step()
        three.step()
    assert torch.equal(whole.detach(), torch.cat([p.detach().reshape(-1) for p in parts]))


def test_a_parameter_with_channels_innermost():
    target = torch.rand(1, 3, 6, 5)
    images = [torch.zeros(1, 3, 6, 5), torch.zeros(1, 3, 6, 5).contiguous(memory_format=torch.channels_last)]
    for image in images:
        image.requires_grad_()
        optimiser = LBFGS([image])
        for _ in range(6):
            optimiser.zero_grad()
            (image - target).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(images[0], images[1])
    assert images[1].is_contiguous(memory_format=torch.channels_last)


class Recorder(TorchDispatchMode):
    """Collects the names of the operations called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_step_with_a_closure_never_waits_for_the_device():
    reads = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select"}
    fault = Faulty({3})
    with Recorder() as recorder:
        float(torch.ones(()))
    assert recorder.names & reads  # the recorder would see a read
    with Recorder() as recorder:
        fault.run(8)
    assert "index_copy_" in recorder.names
    assert not recorder.names & reads


@pytest.mark.parametrize("history_dtype", ["float32", "bfloat16"])
def test_state_goes_through_a_file_and_continues_bitwise(history_dtype):
    def step(x, optimiser):
        x.grad = torch.linspace(0.1, 3, 48).view_as(x) * (x.detach() - 0.7)
        optimiser.step()

    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    optimiser = LBFGS([x], history_size=4, history_dtype=history_dtype)
    for _ in range(7):
        step(x, optimiser)
    file = io.BytesIO()
    torch.save(optimiser.state_dict(), file)
    file.seek(0)
    other = x.detach().clone().requires_grad_()
    resumed = LBFGS([other], history_size=4, history_dtype=history_dtype)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    state = resumed.state[other]
    assert state["sy"].dtype == torch.float64
    assert state["history"].dtype == (torch.bfloat16 if history_dtype == "bfloat16" else torch.float32)
    for _ in range(6):
        step(x, optimiser)
        step(other, resumed)
    assert torch.equal(x, other)


def test_the_closures_loss_is_given_back():
    x = torch.zeros(3, requires_grad=True)

    def closure():
        loss = (x - 1).square().sum()
        loss.backward()
        return loss

    assert float(LBFGS([x]).step(closure).detach()) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.0}, "lr: must be above 0, got 0.0"),
        ({"first_step": -1.0}, "first_step: must be above 0, got -1.0"),
        ({"max_step": float("nan")}, "max_step: must be above 0, got nan"),
        ({"history_size": 0}, "history_size: must be at least 1, got 0"),
        ({"history_dtype": "int8"}, "history_dtype: must be one of float32, bfloat16, got int8"),
        ({"rules": "mine"}, "rules: must be one of image, torch, got mine"),
    ],
)
def test_wrong_arguments(options, words):
    with pytest.raises(UserError, match=words):
        LBFGS([torch.zeros(2, requires_grad=True)], **options)


def test_one_group_only():
    groups = [{"params": [torch.zeros(2, requires_grad=True)]}, {"params": [torch.zeros(2, requires_grad=True)]}]
    with pytest.raises(UserError, match="one parameter group, got 2"):
        LBFGS(groups)
