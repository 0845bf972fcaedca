"""Means over blocks of cells, against a plain loop, whole and in windows."""

from __future__ import annotations

import pytest
import torch
from helpers import rand

from nst_lightning.losses.blocks import BlockReference, Blocks
from nst_lightning.losses.reference import Window


def by_loop(features, weights, down, across):
    channels, height, width = features.shape[1:]
    sums, counts = torch.zeros(down * across, channels).double(), torch.zeros(down * across).double()
    for i in range(height):
        for j in range(width):
            # Part p of so many ends before (p + 1) * length // parts.
            row = next(p for p in range(down) if i < (p + 1) * height // down)
            column = next(p for p in range(across) if j < (p + 1) * width // across)
            block = row * across + column
            weight = 1.0 if weights is None else float(weights[0, 0, i, j])
            sums[block] += weight * features[0, :, i, j]
            counts[block] += weight
    return sums, counts


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("size", "most"), [((7, 11), 12), ((1, 9), 4), ((6, 5), 100), ((3, 3), 1)])
def test_means_are_those_of_a_loop(size, most, masked):
    features = rand(1, 3, *size).double()
    weights = (rand(1, 1, *size, seed=1).double() - 0.4).clamp(min=0) if masked else None
    reference = BlockReference(most)
    reference.add(features, Window.whole(features, weights))
    found = reference.result(1.0)
    down, across = found.blocks.down, found.blocks.across
    assert down * across <= most
    sums, counts = by_loop(features, weights, down, across)
    torch.testing.assert_close(found.blocks.counts, counts, rtol=1e-12, atol=1e-15)
    expected = torch.where(counts[:, None] > 0, sums / counts[:, None], 0.0)
    torch.testing.assert_close(found.means, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.blocks.weights, counts / counts.sum(), rtol=1e-12, atol=0)


def test_sums_of_windows_add_up_and_blocks_may_straddle_them():
    features = rand(1, 4, 10, 13).double()
    blocks = Blocks.of(Window.whole(features), 9, features[0, :1])
    total = torch.zeros(9, 4).double()
    for rows, columns in ((slice(0, 4), slice(0, 13)), (slice(4, 10), slice(0, 5)), (slice(4, 10), slice(5, 13))):
        total += blocks.sums(features[..., rows, columns], Window(rows, columns, 10, 13))
    torch.testing.assert_close(total, blocks.sums(features, Window.whole(features)), rtol=1e-12, atol=0)


def test_halves_are_summed_beyond_their_range():
    features = torch.full((1, 1, 64, 64), 600.0, dtype=torch.float16)
    blocks = Blocks.of(Window.whole(features), 1, features[0].float())
    assert float(blocks.sums(features, Window.whole(features))) == 600.0 * 64 * 64


def test_all_cells_of_a_block_share_its_gradient():
    features = rand(1, 2, 8, 8).double().requires_grad_()
    blocks = Blocks.of(Window.whole(features), 4, features[0, :1].detach())
    means = blocks.means(blocks.sums(features, Window.whole(features)))
    (gradient,) = torch.autograd.grad(means[0].sum(), features)
    assert torch.equal(gradient[..., :4, :4], torch.full((1, 2, 4, 4), 1 / 16).double())
    assert gradient.count_nonzero() == 2 * 16
