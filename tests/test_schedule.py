"""The two ways of saying how long a run is."""

from __future__ import annotations

import pytest

from nst_lightning.errors import UserError
from nst_lightning.schedule import Stage, make_schedule


def test_evaluations_are_one_stage_at_full_size():
    assert make_schedule(7, None) == [Stage(7, 1.0)]


def test_stages_are_taken_as_they_are_but_copied():
    stages = [Stage(3, 0.5), Stage(2)]
    schedule = make_schedule(None, stages)
    assert schedule == stages
    assert schedule[0] is not stages[0]


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (48, [(300, 1)]),
        (256, [(300, 1)]),
        (512, [(200, 0.5), (100, 1)]),
        (1000, [(200, 0.25), (100, 0.5), (50, 1)]),
        (8192, [(200, 1 / 32), (100, 1 / 16), (50, 1 / 8), (25, 1 / 4), (12, 1 / 2), (10, 1)]),
    ],
)
def test_default_doubles_the_size_and_halves_the_evaluations(longest, expected):
    assert [(s.evaluations, s.scale) for s in make_schedule(None, None, longest)] == expected


@pytest.mark.parametrize(
    ("evaluations", "stages", "words"),
    [
        (5, [Stage(3)], "contradicts"),
        (0, None, "at least 1, got 0"),
        (None, [], "at least one stage"),
        (None, [Stage(0)], "at least 1, got 0"),
        (None, [Stage(2, 0.0), Stage(1)], "above 0"),
        (None, [Stage(2, 1.5), Stage(1)], "at most 1"),
        (None, [Stage(2, float("nan")), Stage(1)], "above 0"),
        (None, [Stage(2, 0.5)], "last stage"),
    ],
)
def test_what_makes_no_sense_is_refused(evaluations, stages, words):
    with pytest.raises(UserError, match=words):
        make_schedule(evaluations, stages)
