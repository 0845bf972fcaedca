"""One knob for how much a stranger recognises of the content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.losses import SelfSimilarity, Term, Tones

NEUTRAL = 0.5
# At a likeness of 1, in units of the content's weight. Found on portraits and towns: see docs/performance.md.
_SIMILARITY, _TONES = 2.0, 1.0
_APART, _STRUCTURE = 0.1, 2.0  # of the self-similarity that joins: plain skies are left to the style


class Likeness(NamedTuple):
    """What a likeness does to an objective.

    Below 0.5 the weights of the content's terms fall, in proportion, to none at 0. Above, two terms join them that keep
    structure, and let colours and strokes go where the style wants them: `SelfSimilarity` and `Tones`, of twice and
    once the content's weight at 1. A `SelfSimilarity` that is there already gets that weight on top of its own, as a
    second one would cost as much again. Where the content's weight has no unit, as with Gatys' normalisations, that
    weight grows instead, to four times.
    """

    share: float  # 0 to 1, as it was asked for
    factor: float  # on the content terms that were given
    terms: tuple[Term, ...]  # that join them
    similarity: float = 0.0  # joins the weight of each `SelfSimilarity` that was given

    @classmethod
    def of(cls, terms: Sequence[Term], share: float) -> Likeness:
        """What a share does to these terms.

        Raises:
            UserError: If it is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise UserError(f"model.likeness: must be from 0 to 1, got {share}; {NEUTRAL} is neutral")
        more, weight = max(0.0, share / NEUTRAL - 1), content_weight(terms)
        if share <= NEUTRAL:
            return cls(share, share / NEUTRAL, ())
        if not weight:
            return cls(share, 1 + 3 * more, ())
        similarity, tones = _SIMILARITY * more * weight, Tones(weight=_TONES * more * weight)
        there = sum(isinstance(term, SelfSimilarity) for term in terms)
        if there:
            return cls(share, 1.0, (tones,), similarity / there)
        return cls(share, 1.0, (SelfSimilarity(weight=similarity, apart=_APART, structure=_STRUCTURE), tones))

    def weight(self, term: Term) -> float:
        """The weight of a term, as this changes it."""
        if term.group != "content":
            return term.weight
        more = self.similarity if isinstance(term, SelfSimilarity) else 0.0
        return term.weight * self.factor + more


def content_weight(terms: Sequence[Term]) -> float:
    """Sum of the weights of balanced content terms: those of other normalisations have no unit.

    A self-similarity and tones are in the unit of another term, if there is one, and do not count beside it.
    """
    balanced = [term for term in terms if term.group == "content" and term.balanced]
    others = [term for term in balanced if not isinstance(term, (SelfSimilarity, Tones))]
    return sum(term.weight for term in others or balanced)
