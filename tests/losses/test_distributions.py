"""Terms that see distributions and single cells: values by hand and by NumPy and SciPy, gradients, invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance as one_dimensional
from terms import Alone

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.losses import NNFM, Histogram, Sample, SlicedWasserstein, histogram
from nst_lightning.losses.histogram import quantiles_at, remapped
from nst_lightning.losses.nnfm import nearest
from nst_lightning.losses.reference import Window
from nst_lightning.losses.sliced import unit_directions
from nst_lightning.objective.objective import Objective

TERMS = [Histogram, SlicedWasserstein, NNFM]
LAYER = "relu1_1"


def features(channels=4, height=5, width=6, seed=0, dtype=torch.float64):
    drawn = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return drawn[:1] + seed % 3 * drawn[1:, :, :1, :1]


def prepared(kind, content, styles, **options):
    return Alone(kind([LAYER], **options), content, styles)


def counted(alone, features):
    """A target of `Histogram` for an image."""
    counts = alone.term.count(alone.layer, features, Window.whole(features), alone.target)
    return alone.term.counted(alone.layer, alone.target, counts)


def row(*values):
    """One channel."""
    return torch.tensor(values).double().view(1, 1, 1, -1)


def test_quantiles_are_those_of_numpy():
    values, levels = torch.rand(3, 11).double().sort(1).values, torch.rand(3, 20).double()
    expected = [np.quantile(v, q) for v, q in zip(values.numpy(), levels.numpy(), strict=True)]
    np.testing.assert_allclose(quantiles_at(values, levels), expected, rtol=1e-12)
    assert quantiles_at(torch.ones(1, 1), torch.rand(1, 4)).eq(1).all()  # one sample has one quantile


def test_histogram_by_hand():
    """Values spread evenly over [0, 1] shall become those spread over [2, 4]: x -> 2 + 2 x, (2 + x)² on average."""
    x = torch.linspace(0, 1, 4001).double()
    content, style = x.view(1, 1, 1, -1), (2 + 2 * x).view(1, 1, 1, -1)
    term = prepared(Histogram, content, [(style, 1.0)])
    bin_of_style = 4 / 255  # the range of both is that of 0 to 4
    found = remapped(counted(term, content), x[None])[0]
    torch.testing.assert_close(found, 2 + 2 * x, rtol=0, atol=bin_of_style / 2)
    assert float(term.target.scale) == pytest.approx(float((2 + x).square().mean()), rel=1e-3)
    assert float(term.value(content)) == pytest.approx(1, rel=1e-6)


def test_histogram_matches_ranks():
    """Against the exact way, sorting: a value goes to the style's of the same rank, to within a bin."""
    image, style = features(2, 40, 50, seed=3), features(2, 40, 50, seed=5)
    term = prepared(Histogram, image, [(style, 1.0)])
    values, target = image[0].flatten(1), style[0].flatten(1).sort(1).values
    exact = torch.empty_like(values).scatter_(1, values.argsort(1), target)
    difference = (remapped(counted(term, image), values) - exact).abs()
    assert float(difference.mean()) < 0.01 * float(target.std())


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_equal_values_have_the_middle_of_their_ranks(level):
    """A third of a picture in 8 bits is one level, as a white sky is: by sorting it goes to the middle of its part."""
    values = (features(3, 30, 40, seed=1).sigmoid() * 255).round() / 255
    values[..., -1, :2] = torch.tensor([0.0, 1.0]).double()
    values[..., :10, :] = level
    style = features(3, 200, 300, seed=2).sigmoid()
    term = prepared(Histogram, values, [(style, 1.0)])
    found = remapped(counted(term, values), values[0].flatten(1))
    for channel, painted, given in zip(values[0].flatten(1), style[0].flatten(1).sort(1).values, found, strict=True):
        for value in channel.unique():
            first, last = (channel < value).sum(), (channel <= value).sum()
            middle = float(first + last) / 2 / len(channel)
            expected = np.quantile(painted, middle, method="hazen")
            assert float(given[channel == value][0]) == pytest.approx(expected, abs=4e-3)
    # The sky is moved, and noise below a level, which tells equal values apart, changes little.
    assert float((found - values[0].flatten(1))[:, :400].abs().max()) > 0.03
    noise = 1e-3 * features(3, 30, 40, seed=3)
    assert float(term.value(values + noise)) == pytest.approx(1, rel=0.1)


def test_histogram_counts_add_up_and_leave_nothing_out():
    content, image = features(3, 9, 8, seed=1), 5 * features(3, 9, 8, seed=2)
    term = prepared(Histogram, content, [(features(3, seed=4), 1.0)])

    def count(features):
        return term.term.count(term.layer, features, Window.whole(features), term.target)

    whole = count(image)
    assert whole.sum(1).tolist() == [72, 72, 72]  # values beyond the range too
    torch.testing.assert_close(count(image[..., :4, :]) + count(image[..., 4:, :]), whole)


def test_a_weight_of_a_histogram_is_how_often_a_cell_counts():
    """Of the picture, once what it is compared with is there."""
    content, image, style = (features(3, 4, 5, seed=seed) for seed in (1, 2, 3))
    weights = torch.tensor([[2, 0, 1, 1, 3], [1, 1, 0, 2, 1], [0, 1, 1, 1, 4], [1, 0, 2, 3, 1]]).double()
    term = prepared(Histogram, content, [(style, 1.0)])
    repeated = image.flatten(2).repeat_interleave(weights.flatten().long(), dim=2)[:, :, None]
    expected = term.value(repeated)
    term.weights = weights.view(1, 1, 4, 5)
    torch.testing.assert_close(term.value(image), expected, rtol=1e-12, atol=0)


def test_a_histogram_of_a_part_is_that_part_alone():
    content, image, style = (features(3, 8, 9, seed=seed) for seed in (1, 2, 3))
    mask = torch.zeros(1, 1, 8, 9, dtype=torch.float64)
    mask[..., :4] = 1
    part = Alone(Histogram([LAYER]), content, [(style, 1.0)], weights=mask)
    alone = prepared(Histogram, content[..., :4], [(style, 1.0)])
    torch.testing.assert_close(part.value(image), alone.value(image[..., :4]), rtol=1e-12, atol=0)


def test_a_histogram_is_1_at_the_content_where_a_mask_is_soft():
    content, style = features(3, 16, 20, seed=1), 2 + features(3, seed=2)
    ramp = torch.linspace(0, 1, 20).double().expand(1, 1, 16, 20)
    for weights in (ramp, 1 - ramp, 0.3 + 0 * ramp, (ramp > 0.5).double()):
        term = Alone(Histogram([LAYER]), content, [(style, 1.0)], weights=weights)
        assert float(term.value(content)) == pytest.approx(1)


def test_histogram_gradient_with_the_remapping_frozen():
    content, image, style = (features(3, 4, 3, seed=seed) for seed in (1, 2, 3))
    term = prepared(Histogram, content, [(style, 1.0)])
    image.requires_grad_()
    term.value(image).backward()
    values = image.detach()[0].flatten(1)
    frozen = remapped(counted(term, image.detach()), values)
    expected = 2 * (values - frozen) / values.numel() / term.target.scale
    torch.testing.assert_close(image.grad[0].flatten(1), expected, rtol=1e-12, atol=0)
    frozen = frozen.view(image.shape)
    assert torch.autograd.gradcheck(lambda f: (f - frozen).square().mean(), image)


def test_sliced_wasserstein_is_that_of_scipy():
    """In one dimension and with as many cells, the squared distance of sorted values; SciPy has the absolute one."""
    image, style = features(3, 8, 9, seed=1), features(3, 8, 9, seed=2)
    term = prepared(SlicedWasserstein, image, [(style, 1.0)], projections=5)
    directions, target, _ = term.target
    for direction, found in zip(directions, target, strict=True):
        one, other = (np.sort((direction @ x[0].flatten(1)).numpy()) for x in (image, style))
        np.testing.assert_allclose(found, other, rtol=1e-10)
        assert np.abs(one - found.numpy()).mean() == pytest.approx(one_dimensional(one, other), rel=1e-10)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(5).double(), rtol=1e-6, atol=0)
    assert torch.equal(unit_directions(5, 3), unit_directions(5, 3))


def test_sliced_wasserstein_by_hand():
    """One channel: 1, 2 towards 3, 6 is (4 + 16) / 2; the content 0, 0 has (9 + 36) / 2."""
    term = prepared(SlicedWasserstein, row(0.0, 0), [(row(6.0, 3), 1.0)])
    assert float(term.value(row(2.0, 1))) == pytest.approx(20 / 45)


def test_nearest_neighbour_by_hand():
    """The style points along both axes; a cell at 60 degrees is at 30 from the nearer one, content at 45."""
    style = torch.tensor([[2.0, 0], [0, 5]]).double().view(1, 2, 1, 2)
    content = torch.tensor([[1.0, 3], [1, 3]]).double().view(1, 2, 1, 2)
    image = torch.tensor([[0.5, 7], [3**0.5 / 2, 0]]).double().view(1, 2, 1, 2)
    term = prepared(NNFM, content, [(style, 1.0)])
    expected = (1 - np.cos(np.pi / 6)) / 2 / (1 - np.cos(np.pi / 4))
    assert float(term.value(image)) == pytest.approx(expected, rel=1e-4)


def test_nearest_neighbour_is_that_of_a_loop(monkeypatch):
    monkeypatch.setattr("nst_lightning.losses.nnfm._BLOCK", 20)  # several blocks
    cells, candidates = features(4, 3, 7, seed=1)[0].flatten(1).T, features(4, 2, 5, seed=2)[0].flatten(1).T
    candidates = candidates / candidates.norm(dim=1, keepdim=True)
    expected = [max(range(10), key=lambda k, cell=cell: float(cell @ candidates[k])) for cell in cells]
    assert nearest(cells, candidates).tolist() == expected


def test_nearest_patches_are_those_of_a_loop():
    content, image, *styles = (features(2, 4 + seed, 6, seed=seed) for seed in range(4))
    term = prepared(NNFM, content, [(styles[0], 0.25), (styles[1], 0.75)], patches=3)

    def patches(maps):
        (_, _, height, width) = maps.shape
        cut = [maps[0, :, y : y + 3, x : x + 3] for y in range(height - 2) for x in range(width - 2)]
        return [np.asarray(patch.flatten()) for patch in cut]

    def distance(maps):
        """Of each patch to the most similar one of each style."""
        found = [
            share * min(1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q) for q in patches(style))
            for style, share in ((styles[0], 0.25), (styles[1], 0.75))
            for p in patches(maps)
        ]
        return sum(found) / len(patches(maps))

    assert float(term.value(image)) == pytest.approx(distance(image) / distance(content), rel=1e-5)
    assert float(term.value(content)) == pytest.approx(1)


def test_patches_of_one_cell_are_cells():
    content, image, style = (features(4, 9, 8, seed=seed) for seed in (1, 2, 3))
    single, default = (prepared(NNFM, content, [(style, 1.0)], samples=20, **o) for o in ({"patches": 1}, {}))
    assert torch.equal(single.value(image), default.value(image))
    assert torch.equal(single.target.styles[0][0], default.target.styles[0][0])


def test_patches_know_neighbours():
    """The same cells in another order: nothing for single cells, something for patches of them."""
    content, style = features(4, 8, 9, seed=1), features(4, 8, 9, seed=3)
    order = torch.randperm(72, generator=torch.Generator().manual_seed(5))
    image = style.flatten(2)[..., order].view(style.shape)
    values = [float(prepared(NNFM, content, [(style, 1.0)], patches=n).value(image)) for n in (1, 3)]
    assert abs(values[0]) < 1e-4
    assert values[1] > 0.5
    assert abs(float(prepared(NNFM, content, [(style, 1.0)], patches=3).value(style))) < 1e-4


def test_patches_are_sampled_on_a_grid():
    style = features(2, 30, 40)
    term = prepared(NNFM, features(2, 7, 7), [(style, 1.0)], samples=100, patches=5)
    ((found, _),) = term.target.styles
    assert 50 < len(found) <= 100
    expected = style[0, :, 4:9, 12:17].flatten()  # steps of 4: row 1, column 3 of 9
    torch.testing.assert_close(found[9 + 3], expected / expected.norm(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("side", [0, -1, 2, 4])
def test_patches_without_a_middle_are_refused(side):
    with pytest.raises(UserError, match=rf"nnfm\.patches: must be odd and at least 1, got {side}; 1 compares cells"):
        NNFM([LAYER], patches=side)


def test_pictures_smaller_than_a_patch_are_refused(tiny_weights):
    objective, network = Objective([NNFM(["relu4_1"], patches=3)]), VGG19(str(tiny_weights))
    objective.check_sizes({"data.size": (24, 30)}, network)
    with pytest.raises(UserError, match=r"data.size: must have 3x3 cells or more at layer relu4_1 .* nnfm, got 3x2"):
        objective.check_sizes({"data.size": (23, 30)}, network)


def test_a_silent_cell_has_a_small_gradient():
    content, image, style = (features(4, 3, 3, seed=seed).relu() for seed in (1, 2, 3))
    image[..., 1, 1] = 0
    image.requires_grad_()
    prepared(NNFM, content, [(style, 1.0)]).value(image).backward()
    assert float(image.grad.abs().max()) < 1e4


@pytest.mark.parametrize(("kind", "options"), [(SlicedWasserstein, {}), (NNFM, {}), (NNFM, {"patches": 3})])
def test_gradients(kind, options):
    content, image, style, other = (features(3, 4, 3, seed=seed) for seed in (1, 2, 3, 4))
    term = prepared(kind, content, [(style, 0.7), (other, 0.3)], **options)
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
    content, style = features(4, 20, 30, seed=1), features(4, 20, 30, seed=2)
    term = prepared(kind, content, [(style, 1.0)])
    assert float(term.value(content)) == pytest.approx(1, rel=1e-3)
    assert abs(float(term.value(style))) < 1e-3


@pytest.mark.parametrize("kind", TERMS)
def test_halves_of_a_blend(kind):
    """Another share moves the gradient all the way from one style's to the other's."""
    content, one, other = (features(seed=seed) for seed in (1, 2, 3))
    gradients = []
    for share in (0.0, 0.5, 1.0):
        leaf = content.clone().requires_grad_()
        term = prepared(kind, content, [(one, share), (other, 1 - share)])
        (term.value(leaf) * term.target.scale).backward()
        gradients.append(leaf.grad)
    assert float((gradients[1] - (gradients[0] + gradients[2]) / 2).norm() / gradients[1].norm()) < 0.05


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("term", TERMS)
def test_sums_are_single_precision(term, kind):
    content, image, style = (features(seed=seed, dtype=torch.float32).to(kind) for seed in (1, 2, 3))
    value = prepared(term, content, [(style, 1.0)]).value(image.requires_grad_())
    value.backward()
    assert value.dtype == torch.float32
    assert bool(image.grad.isfinite().all())


@pytest.mark.parametrize("kind", TERMS)
def test_constant_features_are_no_trouble(kind):
    """The same picture everywhere, and channels without any activation."""
    flat = torch.zeros(1, 4, 5, 6).double()
    image = flat.clone().requires_grad_()
    value = prepared(kind, flat, [(flat, 1.0)]).value(image)
    value.backward()
    assert bool(value.isfinite())
    assert bool(image.grad.isfinite().all())


def test_samples_lie_on_one_grid_in_parts_and_whole():
    whole, parts = Sample(20), Sample(20)
    found = features(4, 13, 17)
    whole.add(found, Window.whole(found))
    for rows in (slice(0, 5), slice(5, 13)):
        for columns in (slice(0, 6), slice(6, 17)):
            parts.add(found[..., rows, columns], Window(rows, columns, 13, 17))
    cells, pieces = whole.result(221), parts.result(221)
    assert 10 <= len(cells) <= 20
    assert {tuple(c) for c in cells.tolist()} == {tuple(c) for c in pieces.tolist()}


@pytest.mark.parametrize(
    ("kind", "option"), [(NNFM, "samples"), (Histogram, "samples"), (SlicedWasserstein, "projections")]
)
def test_counts_of_nothing_are_refused(kind, option):
    with pytest.raises(UserError, match=rf"{kind.__name__.lower()}\.{option}: must be at least 1, got 0"):
        kind([LAYER], **{option: 0})


def test_more_values_than_a_float_counts_are_counted(monkeypatch):
    """On a device that prefers large operations, whose way of counting is played by the processor."""
    monkeypatch.setattr(histogram, "prefers_large_operations", lambda device: True)
    bins = histogram._Bins.spanning(torch.zeros(1), torch.ones(1))
    assert histogram.bin_counts(torch.zeros(1, 2**24 + 5), bins).sum() == torch.tensor(2.0**24 + 5)
