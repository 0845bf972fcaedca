"""The schedule of a run: stages, each a size and a number of evaluations. Pure arithmetic, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nst_lightning.errors import UserError


@dataclass
class Stage:
    """One stage of a run; it becomes one epoch of the trainer.

    Args:
        evaluations: Evaluations of loss and gradient, at least 1.
        scale: Size of this stage relative to ``data.size``, above 0; 0.5 is half of each side.
    """

    evaluations: int
    scale: float = 1.0


# Half size first: large motifs form there, at a quarter of the cost; full size then adds strokes and detail. The same
# 300 evaluations at full size take twice as long and show fewer motifs.
DEFAULT_STAGES = (Stage(200, scale=0.5), Stage(100))


def make_schedule(evaluations: int | None, stages: Sequence[Stage] | None) -> list[Stage]:
    """Turn the two ways of saying how long a run is into one list.

    Args:
        evaluations: Length of a run of one stage at full size.
        stages: Explicit stages, from coarse to fine. With neither of the two the run has `DEFAULT_STAGES`.

    Raises:
        UserError: If both are given, or a number makes no sense.
    """
    argument = "model.stages.evaluations"
    if stages is None:
        stages = DEFAULT_STAGES if evaluations is None else [Stage(evaluations)]
        argument = "model.evaluations"
    elif evaluations is not None:
        raise UserError(
            f"model.evaluations: contradicts model.stages, got {evaluations} and stages; leave one of the two out"
        )
    elif not stages:
        raise UserError("model.stages: must hold at least one stage, got none; leave it out for a run of one stage")
    for stage in stages:
        if stage.evaluations < 1:
            raise UserError(f"{argument}: must be at least 1, got {stage.evaluations}; 300 is a good start")
        if not 0 < stage.scale <= 1:
            raise UserError(f"model.stages.scale: must be above 0 and at most 1, got {stage.scale}; 1 is the full size")
    if stages[-1].scale != 1:
        raise UserError(
            f"model.stages: the last stage must have scale 1, got {stages[-1].scale}; data.size is its size"
        )
    return [replace(stage) for stage in stages]
