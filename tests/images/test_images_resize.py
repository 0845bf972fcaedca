"""Sizes and resampling."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nst_lightning.images import resize, target_size

LENGTH = st.integers(1, 20_000)


class TestTargetSize:
    @given(LENGTH, LENGTH, LENGTH, st.sampled_from(["long", "short"]))
    def test_keeps_the_side_and_the_aspect(self, height, width, size, side):
        reference = max(height, width) if side == "long" else min(height, width)
        result = target_size(height, width, size, side)
        assert result[(0 if height == reference else 1)] == size
        for length, new in zip((height, width), result, strict=True):
            assert new >= 1
            assert new == 1 or abs(new - Fraction(length * size, reference)) <= Fraction(1, 2)

    @given(LENGTH, LENGTH, LENGTH, st.sampled_from(["long", "short"]))
    def test_is_symmetric(self, height, width, size, side):
        assert target_size(height, width, size, side) == target_size(width, height, size, side)[::-1]

    def test_examples(self):
        assert target_size(300, 400, 200) == (150, 200)
        assert target_size(300, 400, 150, "short") == (150, 200)
        assert target_size(1, 1000, 100) == (1, 100)
        assert target_size(3, 2, 1, "short") == (2, 1)  # 1.5 goes up

    @pytest.mark.parametrize("arguments", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1, "both")])
    def test_refuses(self, arguments):
        with pytest.raises(ValueError, match="must be"):
            target_size(*arguments)


class TestResize:
    def test_equal_size_is_the_same_tensor(self):
        x = torch.rand(1, 3, 5, 7)
        assert resize(x, (5, 7)) is x

    @pytest.mark.parametrize("size", [(4, 6), (23, 31), (8, 40)])
    @pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
    def test_agrees_with_pillow(self, size, resample):
        values = np.random.default_rng(0).random((13, 17), dtype=np.float32)
        oracle = Image.fromarray(values).resize(size[::-1], Image.Resampling[resample.upper()])
        result = resize(torch.from_numpy(values)[None, None], size, resample)[0, 0]
        np.testing.assert_allclose(result, np.array(oracle), atol=1e-5)

    def test_constant_stays_constant(self):
        assert torch.allclose(resize(torch.full((1, 2, 9, 9), 0.3), (4, 17)), torch.tensor(0.3), atol=1e-6)

    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
    def test_keeps_the_type(self, kind):
        x = torch.rand(1, 3, 9, 8).to(kind)
        result = resize(x, (5, 4))
        assert result.dtype == kind
        assert torch.allclose(result.float(), resize(x.float(), (5, 4)), atol=4e-3)
