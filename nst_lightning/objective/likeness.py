"""One knob for how much a stranger recognises of the content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.losses import MattingLaplacian, SelfSimilarity, Term, Tones

NEUTRAL = 0.5
# Times the content's weight at a likeness of 1; of terms without a unit, whose weights say less, four times.
_MOST, _MOST_WITHOUT_UNIT = 2.0, 4.0


class Likeness(NamedTuple):
    """What a likeness does to an objective: the content's terms count so many times.

    Below 0.5 their weights fall, in proportion, to none at 0; above they grow, to twice at 1. What is kept then is what
    these terms keep. Self-similarity and tones joined them once: for as much of the style they gave less of the
    content, by judges that nobody optimises (see docs/performance.md).
    """

    share: float  # 0 to 1, as it was asked for
    factor: float  # on the content's terms

    @classmethod
    def of(cls, terms: Sequence[Term], share: float) -> Likeness:
        """What a share does to these terms.

        Raises:
            UserError: If it is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise UserError(f"model.likeness: must be from 0 to 1, got {share}; {NEUTRAL} is neutral")
        if share <= NEUTRAL:
            return cls(share, share / NEUTRAL)
        most = _MOST if content_weight(terms) else _MOST_WITHOUT_UNIT
        return cls(share, 1 + (most - 1) * (share / NEUTRAL - 1))

    def weight(self, term: Term) -> float:
        """The weight of a term, as this changes it."""
        return term.weight * self.factor if term.group == "content" else term.weight


def content_weight(terms: Sequence[Term]) -> float:
    """Sum of the weights of balanced content terms: those of other normalisations have no unit.

    A self-similarity and tones are in the unit of another term, if there is one, and do not count beside it. Nor does a
    matting Laplacian beside these: it has a unit of its own, small against what becomes of a photograph's colours.
    """
    balanced = [term for term in terms if term.group == "content" and term.balanced]
    measured = [term for term in balanced if not isinstance(term, MattingLaplacian)]
    others = [term for term in measured if not isinstance(term, (SelfSimilarity, Tones))]
    return sum(term.weight for term in others or measured or balanced)
