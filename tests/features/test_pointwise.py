"""A matrix at every cell: as a convolution of 1x1, in whatever order the map's dimensions lie."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import rand

from nst_lightning.features.kernels.pointwise import pointwise


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("biased", [False, True])
def test_is_a_convolution(layout, biased):
    x = rand(2, 5, 7, 9).contiguous(memory_format=layout).requires_grad_()
    matrix, bias = rand(4, 5, seed=1), rand(4, seed=2) if biased else None
    found, expected = pointwise(x, matrix, bias), F.conv2d(x, matrix[:, :, None, None], bias)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = rand(2, 4, 7, 9, seed=3)
    one, other = (torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_bits_do_not_depend_on_threads():
    """In single precision, at sizes at which a convolution's do on AVX2."""
    x, matrix, bias = (values.float() for values in (rand(1, 24, 45, 59), rand(96, 24, seed=1), rand(96, seed=2)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(pointwise(x, matrix, bias))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("inputs", "outputs"), [(512, 96), (240, 512), (64, 512), (96, 640)])
def test_bits_in_half_precision_do_not_depend_on_threads(inputs, outputs, layout):
    x = rand(1, inputs, 17, 16).bfloat16().contiguous(memory_format=layout).requires_grad_()
    matrix, bias, upstream = (y.bfloat16() for y in (rand(outputs, inputs), rand(outputs), rand(1, outputs, 17, 16)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4, 8):
            torch.set_num_threads(threads)
            result = pointwise(x, matrix, bias)
            found.append((result, *torch.autograd.grad(result, x, upstream)))
    finally:
        torch.set_num_threads(before)
    for result, gradient in found[1:]:
        assert torch.equal(result, found[0][0])
        assert torch.equal(gradient, found[0][1])
