"""One knob for likeness: what it changes of an objective, and what it leaves alone."""

from __future__ import annotations

import pytest

from nst_lightning.errors import UserError
from nst_lightning.losses import Content, CosineContent, Gram, MattingLaplacian, Palette, Tones
from nst_lightning.objective.objective import Objective, default_terms


def weights(objective):
    return {
        part.name: objective.factor((index, part.term.columns[0]), 1.0) for index, part in enumerate(objective.parts)
    }


def test_half_is_neutral():
    assert weights(Objective(default_terms(), likeness=0.5)) == weights(Objective(default_terms()))


def test_above_half_content_counts_more_up_to_twice():
    terms = [Content(weight=0.4), CosineContent(weight=0.3), Tones(weight=0.1), Gram()]
    found = weights(Objective(terms, likeness=0.75))
    assert found == pytest.approx({"content": 0.6, "cosinecontent": 0.45, "tones": 0.15, "gram": 1})
    twice = weights(Objective(terms, likeness=1.0))
    assert twice == pytest.approx({"content": 0.8, "cosinecontent": 0.6, "tones": 0.2, "gram": 1})


def test_a_photograph_that_stays_one_has_a_unit():
    terms = [MattingLaplacian(weight=10.0), Tones(weight=2.0), Palette()]
    assert weights(Objective(terms, likeness=1.0)) == {"mattinglaplacian": 20, "tones": 4, "palette": 1}
    assert weights(Objective(terms[::2], likeness=1.0)) == {"mattinglaplacian": 20, "palette": 1}


def test_below_half_content_counts_less():
    found = weights(Objective([Content(weight=0.4), Gram()], likeness=0.1))
    assert found == {"content": pytest.approx(0.08), "gram": 1}


def test_content_without_a_unit_grows_by_itself():
    objective = Objective([Content(weight=3.0, normalization="released"), Gram()], likeness=1.0)
    assert weights(objective) == {"content": 12, "gram": 1}


def test_regions_keep_the_knob():
    objective = Objective(default_terms(), likeness=0.9).divided(2)
    assert weights(objective)["content"] == pytest.approx(0.5 * 1.8)
    assert objective.divided(0).likeness.share == 0.9


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_likeness_out_of_range_is_refused(share):
    with pytest.raises(UserError, match=r"model\.likeness: must be from 0 to 1"):
        Objective(default_terms(), likeness=share)
