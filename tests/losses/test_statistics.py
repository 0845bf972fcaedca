"""Statistics of style: values by hand and by SciPy, gradients, and what they may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from terms import Alone

from nst_lightning.errors import UserError
from nst_lightning.losses import Covariance, Gram, MeanStd, Wasserstein
from nst_lightning.losses.moments import Moments, moments_of
from nst_lightning.losses.projection import projection_of
from nst_lightning.losses.reductions import moments_sum
from nst_lightning.losses.roots import eigenvectors
from nst_lightning.losses.wasserstein import Problem, distances, gaussian_of, principal_axes

TERMS = [Gram, Covariance, MeanStd, Wasserstein]


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def features(channels=4, height=5, width=6, seed=0, dtype=torch.float64):
    mixed = rand(channels, channels, seed=seed + 50, dtype=dtype) @ rand(
        channels, height * width, seed=seed, dtype=dtype
    )
    return (mixed + rand(channels, 1, seed=seed + 90, dtype=dtype)).view(1, channels, height, width)


def prepared(kind, content, styles, **options):
    return Alone(kind(["relu1_1"], **options), content, styles)


def gaussian(values):
    """Mean and covariance by NumPy."""
    flat = values[0].flatten(1).numpy()
    return flat.mean(1), np.atleast_2d(np.cov(flat, bias=True))


def measured(moments):
    """What `moments_of` makes these of."""
    mean, covariance = moments
    return torch.cat([covariance + torch.outer(mean, mean), mean[:, None]], dim=1)


def by_scipy(one, other):
    (m, c), (n, d) = gaussian(one), gaussian(other)
    root = sqrtm(d)
    return float(((m - n) ** 2).sum() + np.trace(c + d - 2 * np.real(sqrtm(root @ c @ root))))


def test_moments_are_those_of_numpy():
    found = features()
    mean, covariance = gaussian(found)
    ours = moments_of(moments_sum(found) / 30)
    np.testing.assert_allclose(ours.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(ours.covariance, covariance, rtol=1e-10)


def test_a_weight_of_all_cells_changes_no_covariance_in_half_precision():
    """The root of a weight, rounded to bfloat16, is off by as much for all cells: it made covariances of 0.03."""
    found = (3 + torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(0))).bfloat16()
    weights = torch.full((1, 1, 64, 64), 0.3)
    exact = np.cov(found[0].flatten(1).double(), bias=True)
    ours = moments_of(moments_sum(found, weights) / (0.3 * 64 * 64)).covariance
    assert np.abs(ours.double().numpy() - exact).mean() < 2e-3


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_wasserstein_is_that_of_scipy(channels):
    image, style, content = (features(channels, 9, 8, seed=seed) for seed in (1, 2, 3))
    term = prepared(Wasserstein, content, [(style, 1.0)])
    expected = by_scipy(image, style) / by_scipy(content, style)
    assert float(term.value(image)) == pytest.approx(expected, rel=1e-6)
    assert float(term.value(content)) == pytest.approx(1, rel=1e-6)
    assert abs(float(term.value(style))) < 1e-6


def test_wasserstein_of_diagonal_gaussians():
    """(1 - 3)² + (2 - 2)² of the means, (2 - 5)² + (1 - 0)² of the deviations."""
    one = Moments(torch.tensor([1.0, 2.0]).double(), torch.tensor([4.0, 1.0]).double().diag())
    other = Moments(torch.tensor([3.0, 2.0]).double(), torch.tensor([25.0, 0.0]).double().diag())
    gaussian = gaussian_of(measured(other), None, 1.0, 1.0)
    assert gaussian.axes.scaled.abs().tolist() == [[5, 0]]  # nothing along the second axis
    ((distance, _),) = distances([lambda: Problem(one, gaussian, None)], torch.device("cpu"))
    assert float(distance) == pytest.approx(14, abs=1e-6)


def test_weak_axes_count_each_by_itself():
    """Against SciPy on a covariance that has lost the correlations of the style's weak axes."""
    content, image, style = (features(12, 9, 8, seed=seed) for seed in (1, 2, 3))
    fading = style * torch.linspace(1, 0.05, 12).view(1, 12, 1, 1)
    mean, covariance = gaussian(fading)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    strong = int((np.cumsum(values) < 0.9 * values.sum()).sum()) + 1
    assert 2 < strong < 10

    def expected(one):
        at, found = gaussian(one)
        along = vectors.T @ found @ vectors
        along[strong:] *= np.eye(12)[strong:]
        along[:, strong:] *= np.eye(12)[:, strong:]
        root = np.diag(np.sqrt(values))
        common = np.trace(np.real(sqrtm(root @ along @ root)))
        return ((at - mean) ** 2).sum() + np.trace(found) + np.trace(covariance) - 2 * common

    term = prepared(Wasserstein, content, [(fading, 1.0)], correlated=0.9)
    assert float(term.value(image)) == pytest.approx(expected(image) / expected(content), rel=1e-6)
    exact = by_scipy(image, fading)
    assert expected(image) <= exact
    assert expected(image) == pytest.approx(exact, rel=0.1)
    assert abs(float(term.value(fading))) < 1e-6


def test_axes_hold_their_share_of_the_variance():
    covariance = torch.diag(torch.tensor([1.0, 6.0, 0.0, 3.0])).double()
    for share, axes in ((0.6, 1), (0.61, 2), (0.9, 2), (0.95, 3), (1.0, 3)):
        scaled, correlated = principal_axes(covariance, share)
        assert correlated == axes
        torch.testing.assert_close(scaled.T @ scaled, covariance)
    for wrong in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(UserError, match=r"correlated: must be above 0 and at most 1, got"):
            Wasserstein(correlated=wrong)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_wasserstein_with_fewer_cells_than_channels(kind):
    """A quarter of relu5_1 at 256 px: twice as many channels as cells, so covariances are singular."""
    content, image, style = (features(256, 8, 16, seed=seed, dtype=kind).relu() for seed in (1, 2, 3))
    term = prepared(Wasserstein, content, [(style, 1.0)])
    image = image.clone().requires_grad_()
    value = term.value(image)
    value.backward()
    value = value.detach()
    assert value.dtype == kind
    assert bool(image.grad.isfinite().all())
    wide = [x.detach().double() for x in (image, style, content)]
    expected = by_scipy(wide[0], wide[1]) / by_scipy(wide[2], wide[1])
    assert float(value) == pytest.approx(expected, rel=1e-3)
    step = 1e-3 * image.detach().std() / image.grad.std()
    assert float(term.value(image.detach() - step * image.grad)) < float(value)  # it leads down


def test_mean_and_deviation_by_hand():
    """One channel of 1, 3 (mean 2, deviation 1) towards 0, 8 (4, 4), from a content of 0, 0 (0, 0)."""
    content, image, style = (torch.tensor(v).double().view(1, 1, 1, 2) for v in ([0.0, 0], [1.0, 3], [0.0, 8]))
    term = prepared(MeanStd, content, [(style, 1.0)])
    assert float(term.value(image)) == pytest.approx((4 + 9) / (16 + 16), rel=1e-3)
    assert float(term.value(content)) == pytest.approx(1)


def test_covariance_by_hand():
    """Channels 1, 3 and 0, 2: covariances are all 1; towards 0, from a content with variance 4 in the first one."""
    image = torch.tensor([[1.0, 3], [0, 2]]).double().view(1, 2, 1, 2)
    content = torch.tensor([[0.0, 4], [5, 5]]).double().view(1, 2, 1, 2)
    style = torch.tensor([[7.0, 7], [9, 9]]).double().view(1, 2, 1, 2)
    term = prepared(Covariance, content, [(style, 1.0)])
    assert float(term.value(image)) == pytest.approx(4 / 16)


def test_covariance_does_not_mind_the_mean():
    content, image, style = (features(seed=seed) for seed in (1, 2, 3))
    term = prepared(Covariance, content, [(style, 1.0)])
    shifted = term.value(image + rand(1, 4, 1, 1, seed=8))
    torch.testing.assert_close(shifted, term.value(image), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", TERMS)
def test_gradients(kind):
    content, image, style, other = (features(3, 4, 3, seed=seed) for seed in (1, 2, 3, 4))
    term = prepared(kind, content, [(style, 0.7), (other, 0.3)])
    assert torch.autograd.gradcheck(term.value, image.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("kind", TERMS)
def test_where_cells_lie_does_not_matter(kind):
    content, image, style = (features(seed=seed) for seed in (1, 2, 3))
    term = prepared(kind, content, [(style, 1.0)])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(5))
    moved = image.flatten(2)[..., order].view(1, 4, 6, 5)
    torch.testing.assert_close(term.value(moved), term.value(image), rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", TERMS)
def test_one_at_the_content_and_nothing_at_the_style(kind):
    content, style = features(seed=1), features(seed=2)
    term = prepared(kind, content, [(style, 1.0)])
    assert float(term.value(content)) == pytest.approx(1, rel=1e-6)
    assert abs(float(term.value(style))) < 1e-6


@pytest.mark.parametrize("kind", TERMS)
def test_a_blend_lies_between(kind):
    """The more a style counts, the nearer the target is to it; the two images, and gradients at the content, say so."""
    content, one, other = (features(seed=seed) for seed in (1, 2, 3))
    terms = [prepared(kind, content, [(one, a), (other, 1 - a)]) for a in (0.0, 0.25, 0.5, 0.75, 1.0)]
    to_one, to_other = ([float(term.value(image)) for term in terms] for image in (one, other))
    assert (np.diff(to_one) < 0).all()
    assert (np.diff(to_other) > 0).all()
    gradients = []
    for share in (0.0, 0.5, 1.0):
        leaf = content.clone().requires_grad_()
        prepared(kind, content, [(one, share), (other, 1 - share)]).value(leaf).backward()
        gradients.append(leaf.grad.flatten())
    between = torch.nn.functional.cosine_similarity
    assert float(between(gradients[1], gradients[0], 0)) > float(between(gradients[2], gradients[0], 0)) - 1e-9


@pytest.mark.parametrize("kind", TERMS)
def test_narrow_features_give_the_values_of_full_ones(kind):
    matrix = rand(7, 4, seed=9)
    content, image, style = (features(seed=seed) for seed in (1, 2, 3))

    def widen(x):
        return torch.einsum("dc,bchw->bdhw", matrix, x)

    narrow = Alone(kind(["relu1_1"]), content, [(style, 1.0)], projection=projection_of(matrix))
    full = Alone(kind(["relu1_1"]), widen(content), [(widen(style), 1.0)])
    ours, expected = narrow.value(image), full.value(widen(image))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0)


def test_nan_is_a_value_and_not_the_end():
    """The optimiser goes back from it."""
    content, image, style = (features(8, seed=seed, dtype=torch.float32) for seed in (1, 2, 3))
    term = prepared(Wasserstein, content, [(style, 1.0)])
    image[0, 0, 0, 0] = torch.nan
    image.requires_grad_()
    value = term.value(image)
    value.backward()
    assert bool(value.isnan())
    assert bool(image.grad.isnan().any())


@pytest.mark.parametrize("silently", [False, True])
def test_a_matrix_that_single_precision_gives_up_on(monkeypatch, silently):
    matrix, plain = torch.diag(torch.tensor([3.0, 0.0, 0.0, 1.0])), torch.linalg.eigh

    def stubborn(matrix):
        if matrix.dtype == torch.float32 and silently:
            return matrix[0] * torch.nan, matrix * torch.nan
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return plain(matrix)

    monkeypatch.setattr("torch.linalg.eigh", stubborn)
    values, vectors = eigenvectors(matrix)
    assert values.dtype == vectors.dtype == torch.float32
    assert values.tolist() == pytest.approx([0, 0, 1, 3])
    torch.testing.assert_close((vectors * values) @ vectors.T, matrix)
    scaled, _ = principal_axes(matrix)
    torch.testing.assert_close(scaled.T @ scaled, matrix)
