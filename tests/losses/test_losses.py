"""Each term against values by hand, plain loops and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from terms import Alone

from nst_lightning.errors import UserError
from nst_lightning.hardware.numerics import one_thread
from nst_lightning.losses import Content, Gram, Term, TotalVariation
from nst_lightning.losses.content import content_distance
from nst_lightning.losses.gram import gram_distance, gram_matrix
from nst_lightning.losses.reductions import gram_sum, moments_sum
from nst_lightning.losses.tv import total_variation


def rand(*shape):
    return torch.rand(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("normalization", ["balanced", "released", "paper"])
def test_gradients_equal_finite_differences(normalization):
    target, gram_target = torch.rand(1, 3, 4, 5, dtype=torch.float64), torch.rand(3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: content_distance(f, target, normalization), rand(1, 3, 4, 5))
    assert torch.autograd.gradcheck(
        lambda f: gram_distance(gram_matrix(f), gram_target, normalization), rand(1, 3, 4, 5)
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradient_of_the_gram_sum(channels_last):
    features = rand(1, 3, 4, 5)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert torch.autograd.gradcheck(lambda f: gram_sum(f.contiguous(memory_format=layout)), features)
    upstream = torch.rand(3, 3, dtype=torch.float64)
    flat = features.flatten(2)[0]
    (expected,) = torch.autograd.grad(flat @ flat.T, features, upstream)
    (ours,) = torch.autograd.grad(gram_sum(features.contiguous(memory_format=layout)), features, upstream)
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ["squared", "absolute", "nine_point"])
def test_gradient_of_total_variation(kind):
    assert torch.autograd.gradcheck(lambda x: total_variation(x, kind), rand(1, 2, 4, 5))


def test_gram_matrix_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels, one row of two cells
    assert gram_matrix(features).tolist() == [[2.5, 0.5], [0.5, 5.0]]


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_sums_of_bfloat16_are_accumulated_in_float32(device, part):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    features = (torch.randn(1, 6, 50, 93) + 3).bfloat16().contiguous(memory_format=torch.channels_last).to(device)
    if part:
        features = features[..., 3:-4, 5:-6]
    exact = features.double().flatten(2)[0]
    ours = moments_sum(features)
    assert ours.dtype == torch.float32
    gram = gram_sum(features).double()
    assert (gram - exact @ exact.T).norm() < 2e-3 * (exact @ exact.T).norm()  # of bfloat16's products, at most
    # Sums of thousands in float32 err by some 1e-5 without AVX-512, in bfloat16 they would by 1e-3.
    torch.testing.assert_close(ours[:, :-1].double(), exact @ exact.T, rtol=1e-4, atol=0)
    torch.testing.assert_close(ours[:, -1].double(), exact.sum(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels", [3, 64, 100])
@pytest.mark.parametrize("cells", [30, 2000, 5000])
def test_sums_of_bfloat16_do_not_depend_on_threads(channels, cells):
    features = torch.rand(1, channels, 1, cells).bfloat16().contiguous(memory_format=torch.channels_last)
    several = moments_sum(features)
    with one_thread():
        assert torch.equal(moments_sum(features), several)


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_of_the_sums(dtype, part):
    features = torch.randn(1, 6, 9, 7).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn(6, 7)
    rows = slice(2, None) if part else slice(None)
    (ours,) = torch.autograd.grad(moments_sum(features[:, :, rows, rows]), features, upstream)
    wide = features.detach().double().requires_grad_()
    flat = wide[:, :, rows, rows].flatten(2)[0]
    (expected,) = torch.autograd.grad(torch.cat([flat @ flat.T, flat.sum(1)[:, None]], 1), wide, upstream.double())
    assert (ours.double() - expected).norm() < (0.02 if dtype == torch.bfloat16 else 1e-5) * expected.norm()


def test_gram_matrix_does_not_see_where_cells_are():
    features = torch.rand(1, 5, 4, 6, dtype=torch.float64)
    shuffled = features.flatten(2)[..., torch.randperm(24)].view(1, 5, 6, 4)
    torch.testing.assert_close(gram_matrix(features), gram_matrix(shuffled), rtol=1e-12, atol=1e-12)


def test_gram_distances_by_loops():
    """Gatys' notebook (MSE over C²) and equation 4 of the paper, entry by entry."""
    f, a = torch.rand(1, 3, 2, 4, dtype=torch.float64), torch.rand(1, 3, 2, 4, dtype=torch.float64)
    n, m = 3, 8
    total = 0.0
    for i in range(n):
        for j in range(n):
            g = sum(float(f[0, i].flatten()[k] * f[0, j].flatten()[k]) for k in range(m))
            t = sum(float(a[0, i].flatten()[k] * a[0, j].flatten()[k]) for k in range(m))
            total += (g - t) ** 2
    paper = total / (4 * n**2 * m**2)
    released = total / m**2 / n**2 / n**2
    grams = gram_matrix(f), gram_matrix(a)
    assert float(gram_distance(*grams, "paper")) == pytest.approx(paper, rel=1e-12)
    assert float(gram_distance(*grams, "released")) == pytest.approx(released, rel=1e-12)
    assert float(gram_distance(*grams, "balanced")) == pytest.approx(total / m**2, rel=1e-12)


def test_content_distances_by_hand():
    features, target = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 4.0]]]])
    assert float(content_distance(features, target, "released")) == pytest.approx((1 + 4) / 2)
    assert float(content_distance(features, target, "paper")) == pytest.approx((1 + 4) / 2)
    assert float(content_distance(features, target, "balanced")) == pytest.approx((2.5) / (16 / 2))
    wide = torch.ones(1, 2, 3, 1)
    assert float(content_distance(wide, 3 * wide, "paper")) == pytest.approx(0.5 * 6 * 4)
    assert float(content_distance(wide, 3 * wide, "released")) == pytest.approx(4)
    assert float(content_distance(0 * wide, 3 * wide, "balanced")) == pytest.approx(1)
    assert float(content_distance(0.02 * wide, 0 * wide, "balanced")) == pytest.approx(0.02**2 / 1e-4)  # of black


def test_total_variation_of_a_ramp():
    """Step 1 to the right on 5x5: 20 differences of 1 to the right, 20 of 0 downwards; their means are 1 and 0."""
    ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    assert float(total_variation(ramp, "absolute")) == 1.0
    assert float(total_variation(ramp, "nine_point")) == pytest.approx(1.0)
    assert float(total_variation(3 * ramp, "squared")) == 9.0
    assert float(total_variation(ramp + ramp.mT, "absolute")) == 2.0
    assert float(total_variation(torch.ones(1, 3, 1, 1))) == 0.0
    assert float(total_variation(torch.arange(4.0).view(1, 1, 4, 1))) == 1.0


def features_of(*layers):
    return {layer: torch.rand(1, 4, 5, 6) for layer in layers}


def test_balanced_style_is_one_a_layer_at_the_content():
    content, style = features_of("relu1_1", "relu2_1"), features_of("relu1_1", "relu2_1")
    term = Gram(["relu1_1", "relu2_1"])
    for layer in term.layers:
        alone = Alone(term, content[layer], [(style[layer], 1.0)], layer=layer)
        assert float(alone.value(content[layer])) == pytest.approx(1.0)
        assert float(alone.value(style[layer])) == pytest.approx(0, abs=1e-10)


def test_balanced_style_of_the_same_picture_is_finite():
    content = features_of("relu1_1")
    term = Alone(Gram(["relu1_1"]), content["relu1_1"], [(content["relu1_1"], 1.0)])
    features = content["relu1_1"].clone().requires_grad_()
    value = term.value(features)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(features.grad).all()


def test_balanced_style_of_the_same_picture_has_a_floor():
    """At the content there is nothing to divide by; a hundredth of the style's Gram matrix stands in for it."""
    content = features_of("relu1_1")
    term = Alone(Gram(["relu1_1"]), content["relu1_1"], [(content["relu1_1"], 1.0)])
    flat = content["relu1_1"].double().flatten(2)[0]
    target = flat @ flat.T / 30
    moved = 1.1 * content["relu1_1"]  # the Gram matrix is 1.21 times as large
    expected = (0.21 * target).square().sum() / (0.01**2 * target.square().sum())
    value = term.value(moved)
    assert float(value) == pytest.approx(float(expected), rel=1e-3)


def test_several_styles_blend_linearly():
    first, second, content = (features_of("relu1_1")["relu1_1"] for _ in range(3))
    term = Alone(Gram(["relu1_1"], normalization="released"), content, [(first, 0.25), (second, 0.75)])
    blend = 0.25 * gram_matrix(first) + 0.75 * gram_matrix(second)
    expected = torch.nn.MSELoss()(gram_matrix(content), blend) / 16
    torch.testing.assert_close(term.value(content), expected)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_are_finite_and_not_negative(value):
    for build in (
        lambda: Content(weight=value),
        lambda: Gram({"relu1_1": value}),
        lambda: TotalVariation(value),
        lambda: Term(["relu1_1"], value),
    ):
        with pytest.raises(UserError, match="must be finite and at least 0"):
            build()


def test_weighted_moments_of_bfloat16_keep_float32s_accuracy():
    """Covariances of a masked picture are differences, as those of a whole one; weights of 1 and 4 have exact roots."""
    features = (torch.randn(1, 6, 80, 80) + 3).bfloat16().contiguous(memory_format=torch.channels_last)
    weights = torch.randint(2, (1, 1, 80, 80)).float() * 3 + 1
    exact = features.double().flatten(2)[0]
    ours = moments_sum(features, weights)
    expected = (exact * weights.double().flatten()) @ exact.T
    torch.testing.assert_close(ours[:, :-1].double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("channels", [200, 384])
@pytest.mark.parametrize("innermost", [False, True])
def test_wide_gram_sums_by_blocks(channels, innermost):
    """Only blocks from the diagonal on are computed."""
    features = torch.randn(1, channels, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if innermost:
        features = features.contiguous(memory_format=torch.channels_last)
    flat = features[0].flatten(1).numpy()
    found = gram_sum(features)
    assert torch.equal(found, found.T)
    np.testing.assert_allclose(found, flat @ flat.T, rtol=1e-12, atol=1e-12)
