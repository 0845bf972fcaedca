"""What judges will take: by hand, and held against what they do take."""

from __future__ import annotations

import pytest

from nst_lightning.judging.memory import memory_needed
from nst_lightning.judging.panel import JUDGES

MIB = 2**20


def test_by_hand():
    """Pictures of a square of 1000 px: stored 2, shown 2 of result and content and style each, and hatching's 152."""
    million = 10**6
    expected = 30 * MIB + (2 * 12 + 2 * 3 * 12 + 152) * million
    assert memory_needed(["hatching", "clipped"], (1000, 1000), (1000, 1000), (1000, 1000)) == expected


def test_networks_count_where_a_judge_has_one():
    plain, alexnet, all_of_them = (
        memory_needed(judges, (48, 48), (48, 48), (48, 48)) for judges in (["borders"], ["lpips_alex"], list(JUDGES))
    )
    assert plain < 32 * MIB
    assert 55 * MIB < alexnet - plain < 57 * MIB
    assert 185 * MIB < all_of_them - plain < 200 * MIB


@pytest.mark.parametrize("name", JUDGES)
def test_each_judge_takes_more_of_a_larger_result(name):
    found = [memory_needed([name], (side, 2 * side), (600, 1200), (500, 400)) for side in (100, 300, 900, 2700)]
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize("name", ["lpips_vgg", "gram", "sliced"])
def test_layers_of_large_pictures_take_no_more_than_a_tile(name):
    """Beyond 84 bytes a pixel of pictures."""
    area, size = 8192**2, (8192, 8192)
    tile = 1216**2  # 1024 px and 96 on each side
    assert memory_needed([name], size, size, size) - 96 * area < 960 * tile + 206 * MIB


def test_a_content_that_is_much_larger_counts_while_it_is_read():
    small, large = (memory_needed(["clipped"], (64, 64), (side, side), (64, 64)) for side in (64, 4000))
    assert large - small == pytest.approx(36 * 4000**2, rel=0.01)


def test_reduced_pictures_take_the_same_whatever_their_size():
    """Of cfsd what grows is the pictures' part."""
    ones = [memory_needed(["cfsd"], *[(side, side)] * 3) - (24 + 24 + 72) * side**2 for side in (1024, 4096)]
    assert ones[0] == ones[1]
