"""Quadratic forms of narrow features against the full ones, formed."""

import pytest
import torch

from nst_lightning.hardware.numerics import one_thread
from nst_lightning.losses.projection import cells_energy, pairs_energy, projection_of


@pytest.fixture
def projection():
    return projection_of(torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


def exactly(projection):
    """In double precision, which the parts themselves are not kept in."""
    matrix = projection.matrix
    return projection._replace(moments=matrix.T @ matrix)


def test_parts_belong_to_the_map(projection):
    product = projection.matrix.T @ projection.matrix
    torch.testing.assert_close(projection.moments.double(), product, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close((projection.root.T @ projection.root).double(), product, rtol=1e-5, atol=1e-5)
    assert projection.channels == 9
    assert projection_of(None) is None


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_energy_of_cells(projection, order):
    features = torch.randn(1, 5, 4, 3, dtype=torch.float64).contiguous(memory_format=order).requires_grad_()
    full = torch.einsum("dc,bchw->bdhw", projection.matrix, features)
    torch.testing.assert_close(cells_energy(features, exactly(projection)), full.square().sum())
    torch.testing.assert_close(cells_energy(features, None), features.square().sum())
    assert torch.autograd.gradcheck(lambda f: cells_energy(f, exactly(projection)), features)


def test_energy_of_pairs(projection):
    matrix = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)  # symmetric or not
    full = projection.matrix @ matrix @ projection.matrix.T
    torch.testing.assert_close(pairs_energy(matrix, exactly(projection)), full.square().sum())
    torch.testing.assert_close(pairs_energy(matrix, None), matrix.square().sum())
    assert torch.autograd.gradcheck(lambda m: pairs_energy(m, exactly(projection)), matrix)


def test_energy_of_cells_by_products_of_bfloat16():
    """As exact as the bfloat16 that the gradient becomes in the network: 2⁻⁹ of each value."""
    matrix = torch.randn(90, 64)
    projection = projection_of(matrix)
    features = torch.randn(1, 64, 20, 30).contiguous(memory_format=torch.channels_last)
    rounded, wide = features.clone().requires_grad_(), features.double().requires_grad_()
    ours = cells_energy(rounded, projection, torch.bfloat16)
    expected = torch.einsum("dc,bchw->bdhw", matrix.double(), wide).square().sum()
    assert ours.dtype == torch.float32
    assert float(ours.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    (found,), (gradient,) = torch.autograd.grad(ours, rounded), torch.autograd.grad(expected, wide)
    assert (found.double() - gradient).norm() < 5e-3 * gradient.norm()
    with one_thread():
        assert torch.equal(cells_energy(features, projection, torch.bfloat16), ours.detach())


def test_energy_of_cells_larger_than_float16(projection):
    features = torch.full((1, 5, 2, 2), 3e4)
    full = torch.einsum("dc,bchw->bdhw", projection.matrix.float(), features)
    torch.testing.assert_close(
        cells_energy(features, projection, torch.float16), full.square().sum(), rtol=1e-4, atol=0
    )
