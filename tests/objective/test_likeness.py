"""One knob for likeness: what it adds to an objective, and what it leaves alone."""

from __future__ import annotations

import pytest

from nst_lightning.errors import UserError
from nst_lightning.losses import Content, Gram, SelfSimilarity, Tones
from nst_lightning.objective.objective import Objective, default_terms


def weights(objective):
    return {
        part.name: objective.factor((index, part.term.columns[0]), 1.0) for index, part in enumerate(objective.parts)
    }


def test_half_is_neutral():
    assert weights(Objective(default_terms(), likeness=0.5)) == weights(Objective(default_terms()))


def test_above_half_structure_and_tones_join_in_units_of_the_content():
    found = weights(Objective([Content(weight=0.4), Gram()], likeness=0.75))
    assert found["content"] == 0.4
    assert found["gram"] == 1
    assert found["selfsimilarity"] == pytest.approx(2 * 0.5 * 0.4)
    assert found["tones"] == pytest.approx(0.5 * 0.4)
    twice = weights(Objective([Content(weight=0.4), Gram()], likeness=1.0))
    assert twice["tones"] == pytest.approx(2 * found["tones"])


def test_a_similarity_that_is_there_counts_more():
    """And no second one joins, whose unit is the content's weight as before."""
    terms = [Content(weight=0.4), SelfSimilarity(weight=0.7), Gram()]
    assert weights(Objective(terms, likeness=0.5))["selfsimilarity"] == 0.7
    found = weights(Objective(terms, likeness=0.75))
    assert found["selfsimilarity"] == pytest.approx(0.7 + 2 * 0.5 * 0.4)
    assert found["tones"] == pytest.approx(0.5 * 0.4)
    assert len(found) == 4
    assert weights(Objective(terms, likeness=0.25))["selfsimilarity"] == pytest.approx(0.35)


def test_below_half_content_counts_less():
    found = weights(Objective([Content(weight=0.4), Gram()], likeness=0.1))
    assert found == {"content": pytest.approx(0.08), "gram": 1}


def test_content_without_a_unit_grows_by_itself():
    objective = Objective([Content(weight=3.0, normalization="released"), Gram()], likeness=1.0)
    assert weights(objective) == {"content": 12, "gram": 1}


def test_regions_keep_the_knob():
    objective = Objective(default_terms(), likeness=0.9).divided(2)
    assert sum(isinstance(part.term, (SelfSimilarity, Tones)) for part in objective.parts) == 2
    assert objective.divided(0).likeness.share == 0.9


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_likeness_out_of_range_is_refused(share):
    with pytest.raises(UserError, match=r"model\.likeness: must be from 0 to 1"):
        Objective(default_terms(), likeness=share)
