"""The two ways of saying how long a run is."""

from __future__ import annotations

import pytest

from nst_lightning import StyleTransferData
from nst_lightning.data.schedule import Stage, make_schedule
from nst_lightning.errors import UserError
from nst_lightning.features import CompactVGG19


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
        (48, [(60, 1)]),
        (256, [(60, 1)]),
        (512, [(40, 0.5), (40, 1)]),
        (1000, [(40, 0.25), (40, 0.5), (20, 1)]),
        (8192, [(40, 1 / 32), (40, 1 / 16), (20, 1 / 8), (10, 1 / 4), (8, 1 / 2), (8, 1)]),
    ],
)
def test_default_doubles_the_size_and_halves_the_evaluations(longest, expected):
    assert [(s.evaluations, s.scale) for s in make_schedule(None, None, longest)] == expected


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (256, [(60, 1, True), (16, 1, False)]),
        (512, [(40, 0.5, True), (40, 1, True), (16, 1, False)]),
        (1000, [(40, 0.25, True), (40, 0.5, True), (20, 1, True), (10, 1, False)]),
    ],
)
def test_a_draft_makes_all_but_the_last_evaluations(longest, expected):
    draft = CompactVGG19()
    stages = make_schedule(None, None, longest, draft=draft)
    assert [(s.evaluations, s.scale, s.extractor is draft) for s in stages] == expected


def test_a_run_from_nothing_is_twice_as_long(pair):
    assert [s.evaluations for s in make_schedule(None, None, 512, from_nothing=True)] == [80, 80]
    content, style = pair
    asked = {"content": content, "style": style, "size": 64}
    for init, expected in (("content", False), ("noise", True), ("grey", True), (str(style), False)):
        data = StyleTransferData(**asked, init=init)
        assert data.request.starts_from_nothing is expected, init
    assert StyleTransferData(None, style, size=64).request.starts_from_nothing


def test_a_draft_is_for_the_default_stages():
    draft = CompactVGG19()
    assert make_schedule(7, None, draft=draft) == [Stage(7)]
    assert make_schedule(None, [Stage(2, 0.5), Stage(1)], draft=draft) == [Stage(2, 0.5), Stage(1)]


@pytest.mark.parametrize(
    ("longest", "shortest", "least", "scales"),
    [
        (1280, 56, 16, [0.5, 1]),  # a quarter would have 14 px
        (1280, 56, 32, [1]),
        (1280, 64, 16, [0.25, 0.5, 1]),
        (8192, 356, 16, [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]),
        (512, 22, 16, [1]),
        (512, 512, 16, [0.5, 1]),
        (512, 8, 16, [1]),  # too low at any scale, which is said elsewhere
    ],
)
def test_strips_begin_at_a_size_that_has_cells(longest, shortest, least, scales):
    schedule = make_schedule(None, None, longest, shortest, least)
    assert [stage.scale for stage in schedule] == scales
    assert schedule[-1].evaluations <= schedule[0].evaluations


@pytest.mark.parametrize(
    ("evaluations", "stages", "words"),
    [
        (1, [Stage(3, 0.5), Stage(1)], "one for each of model.stages, got 1"),
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


@pytest.mark.parametrize(
    ("lengths", "evaluations", "expected"),
    [
        ([70, 32], 102, [70, 32]),
        ([70, 32], 204, [140, 64]),
        ([70, 32], 51, [35, 16]),
        ([200, 100, 50], 7, [4, 2, 1]),
        ([1, 1000], 2, [1, 1]),  # none goes away
        ([1000, 1, 1], 3, [1, 1, 1]),
        ([3], 5, [5]),
    ],
)
def test_stages_share_another_length_as_they_did_theirs(lengths, evaluations, expected):
    stages = [Stage(length, 0.5) for length in lengths[:-1]] + [Stage(lengths[-1])]
    made = make_schedule(evaluations, stages)
    assert [stage.evaluations for stage in made] == expected
    assert [stage.scale for stage in made] == [stage.scale for stage in stages]
    assert [stage.evaluations for stage in stages] == lengths  # one's own are not touched


def test_a_shared_length_is_met_exactly():
    for evaluations in range(4, 300):
        made = [
            s.evaluations
            for s in make_schedule(evaluations, [Stage(200, 0.25), Stage(9, 0.4), Stage(100, 0.5), Stage(50)])
        ]
        assert sum(made) == evaluations
        assert min(made) >= 1
        assert max(abs(n - share * evaluations / 359) for n, share in zip(made, (200, 9, 100, 50), strict=True)) < 3
