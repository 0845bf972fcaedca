"""Roots of matrices, from eigenvalues and from products alone, against eigenvalues in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nst_lightning.demo import locate
from nst_lightning.features import CompactVGG19
from nst_lightning.images import read_image, resize
from nst_lightning.losses import roots as module
from nst_lightning.losses.moments import moments_of
from nst_lightning.losses.reductions import moments_sum
from nst_lightning.losses.roots import by_eigenvalues, roots, rounding


def covariance(channels, rank, seed, decay=1.0):
    """Of axes whose variances fall off, with a share of chance."""
    drawn = torch.randn(channels, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    variances = torch.rand(rank, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) + 0.1
    axes = torch.linalg.qr(drawn).Q[:, :rank] * (variances * torch.arange(1.0, rank + 1) ** -decay).sqrt()
    return axes @ axes.T


def random_ones():
    """Of all ranks, with variances that fall off slowly and fast."""
    sizes = [(channels, rank) for channels in (1, 4, 17, 33, 95) for rank in range(1, channels + 1)]
    return [covariance(n, rank, 10 * i, decay=(0, 1, 2, 4)[i % 4]) for i, (n, rank) in enumerate(sizes)]


def real_ones():
    """Of the features of two photographs, whole and in patches of few cells, so of every rank."""
    network, found = CompactVGG19(weights="narrow"), []
    for name in ("content", "style"):
        picture = resize(read_image(locate(f"demo:{name}")).pixels, (96, 128))
        with torch.no_grad():
            for features in network(picture, ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]).values():
                for side in (1, 2, 3, 4, 6, 12):
                    patch = features[..., :side, :side].double()
                    found.append(moments_of(moments_sum(patch) / (patch.shape[2] * patch.shape[3])).covariance)
    return [matrix for matrix in found if bool(matrix.any())]


def expected(matrix, epsilon):
    """By NumPy: the trace of λ / √(λ + ε), and its gradient."""
    values, vectors = np.linalg.eigh(matrix.numpy())
    values = values.clip(min=0)
    slopes = (values / 2 + float(epsilon)) / (values + float(epsilon)) ** 1.5
    return (values / np.sqrt(values + float(epsilon))).sum(), torch.from_numpy((vectors * slopes) @ vectors.T)


def epsilon_of(matrix, smallest):
    return smallest * torch.linalg.matrix_norm(matrix)


def error(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(("make", "least"), [(random_ones, 150), (real_ones, 50)])
def test_products_give_what_eigenvalues_do(make, least):
    """To 1e-6 with the ε of single precision."""
    matrices = make()
    assert len(matrices) >= least
    epsilons = [epsilon_of(matrix, 1e-7) for matrix in matrices]
    for start in range(0, len(matrices), 10):  # several sizes at once
        some, more = matrices[start : start + 10], epsilons[start : start + 10]
        for matrix, epsilon, (trace, slope) in zip(some, more, module._by_products(some, more), strict=True):
            value, gradient = expected(matrix, epsilon)
            assert float(trace) == pytest.approx(value, rel=1e-6)
            assert error(slope, gradient) < 1e-6


def test_single_precision_by_eigenvalues_and_by_products():
    matrices = [matrix.float() for matrix in random_ones()[::6]]
    for matrix in matrices:
        epsilon = epsilon_of(matrix, rounding(torch.float32))
        value, gradient = expected(matrix.double(), epsilon)
        for trace, slope in (by_eigenvalues(matrix, epsilon), *module._by_products([matrix], [epsilon])):
            assert trace.dtype == slope.dtype == torch.float32
            assert float(trace) == pytest.approx(value, rel=2e-3)
            assert error(slope.double() @ matrix.double(), gradient @ matrix.double()) < 5e-3


def test_products_where_there_is_no_double_precision(monkeypatch):
    monkeypatch.setattr(module, "widest_dtype", lambda device: torch.float32)
    for matrix in random_ones()[::10]:
        epsilon = epsilon_of(matrix, 1e-6)
        value, gradient = expected(matrix, epsilon)
        ((trace, slope),) = module._by_products([matrix.float()], [epsilon.float()])
        assert float(trace) == pytest.approx(value, rel=5e-4)
        assert error(slope.double() @ matrix, gradient @ matrix) < 5e-3


def test_trace_and_slope_belong_together():
    """A difference of traces is the slope times the difference of matrices."""
    matrix, step = covariance(12, 12, 1), 1e-7 * covariance(12, 12, 7)
    epsilon = epsilon_of(matrix, 1e-7)
    for function in (by_eigenvalues, lambda *given: module._by_products(*([each] for each in given))[0]):
        before, after = function(matrix - step, epsilon), function(matrix + step, epsilon)
        slope = function(matrix, epsilon).slope
        assert float(after.trace - before.trace) == pytest.approx(float(2 * (slope * step).sum()), rel=1e-3)


def test_an_accelerator_takes_products_and_a_cpu_eigenvalues(monkeypatch):
    matrix = covariance(8, 8, 3)
    epsilon = epsilon_of(matrix, 1e-7)
    monkeypatch.setattr("torch.linalg.eigh", None)
    monkeypatch.setattr(module, "prefers_large_operations", lambda device: True)
    ((trace, _),) = roots([matrix], [epsilon])
    assert float(trace) == pytest.approx(expected(matrix, epsilon)[0], rel=1e-9)
    monkeypatch.setattr(module, "prefers_large_operations", lambda device: False)
    with pytest.raises(TypeError):
        roots([matrix], [epsilon])


def test_nothing_and_no_number():
    nothing, wrong = torch.zeros(3, 3).double(), torch.full((3, 3), torch.nan).double()
    for function in (by_eigenvalues, lambda *given: module._by_products(*([each] for each in given))[0]):
        trace, slope = function(nothing, torch.tensor(1e-42).double())
        assert float(trace) == 0
        assert bool(slope.isfinite().all())
        trace, slope = function(wrong, torch.tensor(1e-42).double())
        assert bool(trace.isnan())
        assert bool(slope.isnan().all())


@pytest.mark.parametrize("smallest", [1e-12, 1e-7, 1e-6])
def test_polynomials_bring_all_to_one(smallest):
    x = np.geomspace(smallest**0.5, 1, 3000)
    for a, b, c in module._polynomials(smallest):
        x = a * x + b * x**3 + c * x**5
    assert abs(x - 1).max() < 1e-11
