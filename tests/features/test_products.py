"""Products of a matrix with every cell: what they return, and that its bits do not depend on threads."""

from __future__ import annotations

import pytest
import torch
from helpers import rand

from nst_lightning.features.kernels import fused
from nst_lightning.features.kernels.fused import mapped, multiplied
from nst_lightning.hardware import numerics
from nst_lightning.losses.reductions import gram_sum, moments_sum

TERMS = [16, 48, 128, 208, 240, 272, 420, 512, 640]  # some of which AMX adds up in an order that depends on threads


def with_threads(function):
    """What a function returns with some numbers of threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4, 6, 8):
            torch.set_num_threads(threads)
            found.append(function())
    finally:
        torch.set_num_threads(before)
    return found


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("cells", [1, 48, 272, 1024])
def test_bits_do_not_depend_on_threads(terms, cells):
    values, matrix, bias = (x.bfloat16() for x in (rand(cells, terms), rand(256, terms, seed=1), rand(256, seed=2)))
    for function in (
        lambda: multiplied(values, matrix.T),
        lambda: multiplied(values, matrix.T.contiguous()),
        lambda: multiplied(values, matrix.T, bias=bias),
        lambda: mapped(values, matrix, bias, relu=True),
    ):
        one, *others = with_threads(function)
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(33, 29), (64, 64), (71, 103)])
@pytest.mark.parametrize("channels", [64, 240, 512])
def test_bits_of_sums_and_their_gradients_do_not_depend_on_threads(channels, size, layout):
    features = rand(1, channels, *size).bfloat16().contiguous(memory_format=layout).requires_grad_()

    def computed():
        sums = [gram_sum(features), moments_sum(features)]
        gradients = [torch.autograd.grad(found.square().sum(1).sum(), features)[0] for found in sums]
        return torch.cat([found.detach().flatten().double() for found in (*sums, *gradients)])

    one, *others = with_threads(computed)
    assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize("by_convolution", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_by_a_convolution_as_by_a_product(by_convolution, dtype, monkeypatch):
    monkeypatch.setattr(fused, "threads_share_sums", lambda *given: by_convolution)
    values, matrix, bias = (x.to(dtype) for x in (rand(70, 36), rand(20, 36, seed=1), rand(20, seed=2)))
    exact = values.double() @ matrix.double().T
    tolerance = {"rtol": 0.01, "atol": 0.02} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    out = values.new_empty(70, 20)
    assert multiplied(values, matrix.T, out) is out
    found = [out, multiplied(values, matrix.T), multiplied(values, matrix.T, bias=bias)]
    found += [mapped(values, matrix, bias), mapped(values, matrix, bias, relu=True)]
    expected = [exact, exact, exact + bias, exact + bias, (exact + bias).relu()]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.is_contiguous()
        torch.testing.assert_close(ours.double(), theirs, **tolerance)


@pytest.mark.parametrize(
    ("shared", "sums"), [(False, [16, 48, 128, 208, 256, 480, 511]), (True, [130, 240, 420, 512, 513, 4096])]
)
def test_which_sums_amx_shares_out(shared, sums, monkeypatch):
    monkeypatch.setattr(numerics, "multiplies_tiles", lambda device: device == "cpu")
    for terms in sums:
        assert numerics.threads_share_sums("cpu", torch.bfloat16, terms) is shared
        assert not numerics.threads_share_sums("cpu", torch.float32, terms)
        assert not numerics.threads_share_sums("cuda", torch.bfloat16, terms)
