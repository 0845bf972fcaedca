"""The spectral metric, and L-BFGS with it, against dense matrices; parity with torch; history in bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nst_lightning.optim import LBFGS, pairs
from nst_lightning.optim.metric import SpectralMetric

SIZES = [(6, 8), (5, 8), (6, 7), (5, 7), (1, 6), (4, 1)]


def dense_h0(height, width, exponent, factors=None):
    """F* diag(c f^-2a) F from full complex DFT matrices, for one channel."""

    def dft(n):
        k = torch.arange(n, dtype=torch.float64)
        return torch.exp(-2j * torch.pi * k[:, None] * k / n) / n**0.5

    def frequencies(n):
        return torch.tensor([(k if k < (n + 1) // 2 else k - n) / n for k in range(n)], dtype=torch.float64)

    f = (frequencies(height)[:, None].square() + frequencies(width).square()).sqrt().clamp(min=1 / max(height, width))
    transform = torch.kron(dft(height), dft(width))
    diagonal = f.pow(-2 * exponent) * (1.0 if factors is None else factors)
    return (transform.conj().T @ torch.diag(diagonal.view(-1)).to(transform.dtype) @ transform).real


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("exponent", [0.5, 0.65])
def test_metric_equals_a_dense_matrix(size, exponent):
    metric = SpectralMetric(torch.Size((1, 1, *size)), exponent, torch.device("cpu"), torch.float64)
    h0 = dense_h0(*size, exponent)
    g, v = torch.randn(2, size[0] * size[1], dtype=torch.float64)
    torch.testing.assert_close(metric.backward(metric.forward(g)), h0 @ g, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(metric.forward(g) @ metric.forward(v), g @ h0 @ v, rtol=1e-12, atol=1e-12)
    assert metric.forward(g).numel() == metric.numel


def test_metric_of_exponent_zero_is_the_identity():
    metric = SpectralMetric(torch.Size((1, 3, 5, 6)), 0.0, torch.device("cpu"), torch.float64)
    g = torch.randn(90, dtype=torch.float64)
    torch.testing.assert_close(metric.backward(metric.forward(g)), g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("images", [1, 2])
def test_opponent_colours_are_an_orthogonal_map_beside_the_metric(images):
    """Against a dense matrix of the same map, its axes normalised by hand."""
    size = (5, 6)
    shape = torch.Size((images, 3, *size))
    metric = SpectralMetric(shape, 0.5, torch.device("cpu"), torch.float64, rings=4, opponent_colors=True)
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    axes /= axes.norm(dim=1, keepdim=True)
    dense = torch.kron(torch.eye(images * 3, dtype=torch.float64), dense_h0(*size, 0.5))
    turn = torch.kron(torch.eye(images, dtype=torch.float64), torch.kron(axes, torch.eye(30, dtype=torch.float64)))
    g, v = torch.randn(2, images * 90, dtype=torch.float64)
    torch.testing.assert_close(metric.backward(metric.forward(g)), dense @ g, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(metric.forward(g) @ metric.forward(v), g @ dense @ v, rtol=1e-12, atol=1e-12)
    assert metric.axes == 3
    assert 3 * sum(metric.sizes) == metric.numel
    # An axis' coordinates lie together: those of its part of the gradient alone are zero elsewhere.
    brightness = (turn.T @ (turn @ g).view(images, 3, 30).mul(torch.eye(3)[0].view(1, 3, 1)).view(-1)).contiguous()
    third = metric.numel // 3
    torch.testing.assert_close(metric.forward(brightness)[:third], metric.forward(g)[:third], rtol=1e-12, atol=1e-12)
    assert metric.forward(brightness)[third:].abs().max() < 1e-12


def test_a_grey_gradient_has_no_colour_to_the_last_bit():
    metric = SpectralMetric(
        torch.Size((1, 3, 9, 8)), 0.5, torch.device("cpu"), torch.float32, rings=4, opponent_colors=True
    )
    grey = torch.randn(1, 1, 9, 8).repeat(1, 3, 1, 1)
    coordinates = metric.forward(grey.view(-1))
    assert not coordinates[metric.numel // 3 :].any()
    red, green, blue = metric.backward(coordinates).view(3, -1)
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


def ring_factors(pairs, size, rings):
    """C by its definition, with NumPy's full transform: rings of log f, ‖s‖ / ‖y‖ of each, smoothed 1-2-1."""
    height, width = size
    fy, fx = np.abs(np.fft.fftfreq(height)), np.abs(np.fft.fftfreq(width))
    f = np.maximum(np.sqrt(fy[:, None] ** 2 + fx**2), 1 / max(height, width))
    position = (np.log(f) - np.log(f).min()) / np.ptp(np.log(f))
    ring = np.minimum(position * rings, rings - 1).astype(int)
    _, ring = np.unique(ring, return_inverse=True)  # rings without a frequency do not count
    ring = ring.reshape(size)
    energies = np.zeros((2, ring.max() + 1))
    for pair in pairs:
        for row, (vector, power) in enumerate(zip(pair, (0.5, -0.5), strict=True)):
            spectrum = np.fft.fft2(vector.view(size).numpy(), norm="ortho") * f**power  # s~ = f^a s, y~ = f^-a y
            for index in range(len(energies[0])):
                energies[row, index] += (np.abs(spectrum[ring == index]) ** 2).sum()
    log = 0.5 * np.log(energies[0] / energies[1])
    log -= log.mean()
    padded = [log[0], *log, log[-1]]
    smooth = np.array([(padded[i] + 2 * padded[i + 1] + padded[i + 2]) / 4 for i in range(len(log))])
    return torch.from_numpy(np.exp(smooth)[ring])


def dense_direction(pairs, gradient, size, rings):
    """BFGS updates of H0 = γ F* diag(c f^-2a) F with γ = 1.5 sᵀy / yᵀ H0 y."""
    n = size[0] * size[1]
    base = dense_h0(*size, 0.5, ring_factors(pairs, size, rings) if rings > 1 else None)
    s, y = pairs[-1]
    h = 1.5 * base * (s @ y) / (y @ base @ y)
    for s, y in pairs:
        v = torch.eye(n, dtype=torch.float64) - torch.outer(y, s) / (s @ y)
        h = v.T @ h @ v + torch.outer(s, s) / (s @ y)
    return -h @ gradient


@pytest.mark.parametrize("rings", [1, 3, 32])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (6, 5)])
@pytest.mark.parametrize("history", [1, 2, 4])
def test_direction_equals_a_dense_inverse_hessian(size, history, rings):
    """At every offset of the ring buffer, with the fixed metric and with the estimated one."""
    height, width = size
    n = height * width
    factor = torch.randn(n, n, dtype=torch.float64)
    a, b = factor @ factor.T / n + 0.2 * torch.eye(n, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
    x = torch.zeros(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    optimiser = LBFGS([x], history_size=history, max_step=1e9, spectral_exponent=0.5, rings=rings, relaxation=1.5)
    pairs, last = [], None
    for _ in range(3 * history + 4):
        before = x.detach().clone().view(-1)

        def closure():
            optimiser.zero_grad()
            flat = x.view(-1)
            loss = 0.5 * flat @ a @ flat - b @ flat
            loss.backward()
            return loss

        optimiser.step(closure)
        gradient = x.grad.detach().clone().view(-1)
        if last is not None:
            pairs = [*pairs, (before - last[0], gradient - last[1])][-history:]
            expected = dense_direction(pairs, gradient, size, rings)
            error = (x.detach().view(-1) - before - expected).norm() / expected.norm()
            assert error < 1e-10
        last = before, gradient


FUNCTIONS = {
    "quadratic": lambda x, a: 0.5 * x @ a @ x - x.sum(),
    "log_sum_exp": lambda x, a: torch.logsumexp(a @ x, 0) + 0.05 * x @ x - 0.1 * x.sum(),
    "quartic": lambda x, a: 0.1 * ((x - 1) ** 4).sum() + 0.5 * x @ a @ x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rules_of_torch_give_the_iterates_of_torch(name):
    factor = torch.randn(20, 20, dtype=torch.float64)
    a = factor @ factor.T / 20 + 0.1 * torch.eye(20, dtype=torch.float64)
    ours, theirs = (torch.zeros(20, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimisers = [
        (ours, LBFGS([ours], history_size=7, rules="torch")),
        (theirs, torch.optim.LBFGS([theirs], 1, 1, 1, -1, -1, history_size=7)),
    ]
    for _ in range(50):
        for x, optimiser in optimisers:

            def closure(x=x, optimiser=optimiser):
                optimiser.zero_grad()
                loss = FUNCTIONS[name](x, a)
                loss.backward()
                return loss

            optimiser.step(closure)
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def quadratic_run(steps, **options):
    torch.manual_seed(2)
    target = torch.rand(1, 3, 12, 16)
    weight = torch.rand(1, 3, 12, 16) * 10 + 0.1
    x = torch.zeros(1, 3, 12, 16, requires_grad=True)
    optimiser = LBFGS([x], spectral_exponent=0.0, **options)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (weight * (x - target).square()).sum()
        loss.backward()
        optimiser.step()
    return float(loss.detach()), optimiser


def test_bfloat16_history_halves_the_memory_and_still_converges():
    start, _ = quadratic_run(1)
    full, wide = quadratic_run(60)
    half, narrow = quadratic_run(60, history_dtype="bfloat16")
    assert full < 1e-6 * start
    assert half < 1e-3 * start
    assert narrow.memory() < 0.6 * wide.memory()
    for optimiser in (wide, narrow):
        (state,) = optimiser.state.values()
        kept = sum(v.numel() * v.element_size() for k, v in state.items() if k == "history" or k.startswith("last_"))
        assert 0.75 * optimiser.memory() <= kept <= optimiser.memory()


def test_a_metric_helps_where_low_frequencies_are_stiff():
    """A blurred target: with the metric the same number of evaluations gets further."""
    size = (1, 1, 32, 32)
    f = (torch.fft.fftfreq(32)[:, None].square() + torch.fft.rfftfreq(32).square()).sqrt().clamp(min=1 / 32)
    target = torch.rand(size)

    def run(exponent):
        x = torch.zeros(size, requires_grad=True)
        optimiser = LBFGS([x], spectral_exponent=exponent, first_step=0.05)
        for _ in range(12):
            optimiser.zero_grad()
            loss = (torch.fft.rfft2(x - target, norm="ortho") * f.sqrt()).abs().square().sum()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    assert run(0.5) < 0.5 * run(0.0)


class Recorder(TorchDispatchMode):
    """Collects the operations called and the types of their results."""

    def __init__(self):
        super().__init__()
        self.names, self.dtypes = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        self.dtypes |= {
            r.dtype for r in (result if isinstance(result, (tuple, list)) else [result]) if hasattr(r, "dtype")
        }
        return result


@pytest.mark.parametrize("exponent", [0.0, 0.5])
@pytest.mark.parametrize("history_dtype", ["float32", "bfloat16"])
def test_no_host_read_and_no_float64_where_a_device_has_none(monkeypatch, exponent, history_dtype):
    monkeypatch.setattr(pairs, "widest_dtype", lambda accelerator: torch.float32)
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    optimiser = LBFGS([x], history_size=3, spectral_exponent=exponent, history_dtype=history_dtype)
    with Recorder() as recorder:
        for _ in range(6):
            x.grad = x.detach() - 1
            optimiser.step()
    assert "_local_scalar_dense" not in recorder.names
    assert torch.float64 not in recorder.dtypes
    assert torch.isfinite(x).all()
