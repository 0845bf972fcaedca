"""Shares of the style's gap: Gram matrices by hand, Wasserstein distances by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import rand
from scipy.stats import wasserstein_distance

from nst_lightning.judging.style import gram_closed, share_closed, sliced_closed, sliced_wasserstein, wasserstein


def features(height, width, seed):
    return rand(1, 5, height, width, seed=seed, dtype=torch.float32) ** (seed + 1)


@pytest.mark.parametrize("counts", [(50, 50), (7, 31), (1, 4)])
def test_wasserstein_is_that_of_scipy(counts):
    one, other = (rand(3, count, seed=seed) for seed, count in enumerate(counts))
    other[0, 0] = one[0, 0]  # ties
    expected = [wasserstein_distance(*rows) for rows in zip(one.numpy(), other.numpy(), strict=True)]
    assert wasserstein(one, other).tolist() == pytest.approx(expected, rel=1e-9)


def test_sliced_distance_is_the_mean_over_directions():
    one, other = rand(4, 40, seed=1, dtype=torch.float32), rand(4, 30, seed=2, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(64, 4, generator=generator).numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = np.mean([wasserstein_distance(along @ one.numpy(), along @ other.numpy()) for along in directions])
    assert sliced_wasserstein(one, other) == pytest.approx(expected, rel=1e-5)


def test_gram_matrices_by_hand():
    result, content, style = features(6, 5, 0), features(6, 5, 1), features(4, 9, 2)

    def gram(x):
        cells = x[0].flatten(1).double().numpy()
        return cells @ cells.T / cells.shape[1]

    left = np.linalg.norm(gram(result) - gram(style))
    expected = 1 - left / np.linalg.norm(gram(content) - gram(style))
    assert gram_closed(result, content, style) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("closed", [gram_closed, sliced_closed])
def test_the_content_is_0_and_the_style_is_1(closed):
    content, style = features(8, 8, 1), features(8, 8, 3)
    assert closed(content, content, style) == 0
    assert closed(style, content, style) == 1
    assert 0.2 < closed((content + style) / 2, content, style) < 0.8
    assert closed(3 * content, content, style) < 0


def test_without_a_gap_there_is_no_share():
    assert math.isnan(share_closed(1.0, 0.0))
    assert share_closed(0.5, 2.0) == 0.75


def test_large_maps_are_sampled():
    content, style = torch.zeros(1, 2, 300, 200), torch.ones(1, 2, 10, 10)
    result = torch.zeros(1, 2, 300, 200)
    result[:, :, :, 100:] = 1
    assert sliced_closed(result, content, style) == pytest.approx(0.5, abs=0.01)
