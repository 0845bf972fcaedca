"""The schedule of a run: stages, each a size, a number of evaluations and maybe a network of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from nst_lightning.errors import UserError, check_at_least
from nst_lightning.features import Extractor


@dataclass
class Stage:
    """One stage of a run; it becomes one epoch of the trainer.

    Args:
        evaluations: Evaluations of loss and gradient, at least 1.
        scale: Size of this stage relative to ``data.size``, above 0; 0.5 is half of each side.
        extractor: The network of this stage; by default the model's own.
    """

    evaluations: int
    scale: float = 1.0
    extractor: Optional[Extractor] = None


# Coarse first: large motifs form there, at a fraction of the cost; each finer stage then adds strokes and detail, and
# needs no more evaluations than the one before. The same evaluations at full size take longer and show fewer motifs.
COARSEST = 256  # pixels of the long side, to the nearest power of two
_FIRST, _SECOND, _LEAST = 40, 40, 8
_OWN = 16  # of the model's own network after a draft
_ALONE = 60  # evaluations of a run of one stage: with more, judges that nobody optimises see less of the photograph


def default_stages(
    longest: int,
    shortest: int | None = None,
    least: int = 1,
    draft: Extractor | None = None,
    from_nothing: bool = False,
) -> list[Stage]:
    """Stages of doubling size: 40 evaluations at about `COARSEST` and at the next, then 20, 10 and at least 8.

    The sides are the result's, in pixels. A strip may have a larger coarsest stage: its short side has at `least` so
    many pixels there, if it has them in the result. A run that starts from nothing, and has a longer way to go, makes
    twice as many evaluations. With a `draft` all these are that network's, and half as many as its last, at most 16,
    are the model's own.
    """
    doublings = max(0, round(math.log2(max(longest, 1) / COARSEST)))
    while doublings and shortest is not None and round(shortest * 0.5**doublings) < least:
        doublings -= 1
    counts = default_evaluations(doublings + 1, from_nothing)
    stages = [Stage(n, scale=0.5 ** (doublings - k), extractor=draft) for k, n in enumerate(counts)]
    return stages if draft is None else [*stages, Stage(evaluations_after_draft(counts[-1]))]


def evaluations_after_draft(last: int) -> int:
    """How many the model's own network makes after so many of a draft at full size."""
    return max(1, min(last // 2, _OWN))


def default_evaluations(stages: int, from_nothing: bool = False) -> list[int]:
    """Evaluations of so many stages of doubling size; see `default_stages`."""
    counts = [_FIRST, *(max(_LEAST, _SECOND >> k) for k in range(stages - 1))] if stages > 1 else [_ALONE]
    return [2 * count for count in counts] if from_nothing else counts


def make_schedule(
    evaluations: int | None,
    stages: Sequence[Stage] | None,
    longest: int = 512,
    shortest: int | None = None,
    least: int = 1,
    draft: Extractor | None = None,
    from_nothing: bool = False,
) -> list[Stage]:
    """Turn the two ways of saying how long a run is into one list.

    Args:
        evaluations: Length of a run of one stage at full size; with explicit stages they share it, as they did theirs.
        stages: Explicit stages, from coarse to fine. With neither of the two the run has `default_stages`.
        longest: Long side of the result in pixels, which the default depends on; see there for the next four, too.
        shortest: Its short side.
        least: What that has at the coarsest stage.
        draft: The network that begins.
        from_nothing: Whether the run starts from noise or one colour.

    Raises:
        UserError: If a number makes no sense.
    """
    argument = "model.stages.evaluations"
    if stages is None:
        stages = (
            default_stages(longest, shortest, least, draft, from_nothing)
            if evaluations is None
            else [Stage(evaluations)]
        )
        argument = "model.evaluations"
    elif not stages:
        raise UserError("model.stages: must hold at least one stage, got none; leave it out for a run of one stage")
    for stage in stages:
        check_at_least(argument, stage.evaluations, 1, "300 is a good start")
        if not 0 < stage.scale <= 1:
            raise UserError(f"model.stages.scale: must be above 0 and at most 1, got {stage.scale}; 1 is the full size")
    if stages[-1].scale != 1:
        raise UserError(
            f"model.stages: the last stage must have scale 1, got {stages[-1].scale}; data.size is its size"
        )
    if evaluations is not None:
        return _of_length(stages, evaluations)
    return [replace(stage) for stage in stages]


def _of_length(stages: Sequence[Stage], evaluations: int) -> list[Stage]:
    """Stages with the same shares of a run of another length, each at least 1; they sum to it exactly."""
    if evaluations < len(stages):
        raise UserError(
            f"model.evaluations: must be at least {len(stages)}, one for each of model.stages, got {evaluations}"
        )
    total = sum(stage.evaluations for stage in stages)
    ends = [round(evaluations * sum(s.evaluations for s in stages[: k + 1]) / total) for k in range(len(stages))]
    lengths, start = [], 0
    for index, end in enumerate(ends):
        after = len(stages) - 1 - index  # stages that still need an evaluation each
        lengths.append(min(max(1, end - start), evaluations - start - after))
        start += lengths[-1]
    return [replace(stage, evaluations=length) for stage, length in zip(stages, lengths, strict=True)]
