"""The two ways of saying how long a run is."""

from __future__ import annotations

import pytest

from nst_lightning.errors import UserError
from nst_lightning.schedule import DEFAULT_STAGES, Stage, make_schedule


def test_evaluations_are_one_stage_at_full_size():
    assert make_schedule(7, None) == [Stage(7, 1.0)]


def test_stages_are_taken_as_they_are_but_copied():
    stages = [Stage(3, 0.5), Stage(2)]
    schedule = make_schedule(None, stages)
    assert schedule == stages
    assert schedule[0] is not stages[0]


def test_default_goes_from_coarse_to_fine():
    assert make_schedule(None, None) == list(DEFAULT_STAGES)
    assert [stage.scale for stage in DEFAULT_STAGES] == sorted(stage.scale for stage in DEFAULT_STAGES)


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
