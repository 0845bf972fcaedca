"""The schedule of a run: stages, each a size and a number of evaluations. Pure arithmetic, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nst_lightning.errors import UserError

DEFAULT_EVALUATIONS = 300


@dataclass
class Stage:
    """One stage of a run; it becomes one epoch of the trainer.

    Args:
        evaluations: Evaluations of loss and gradient, at least 1.
        scale: Size of this stage relative to ``data.size``, above 0; 0.5 is half of each side.
    """

    evaluations: int
    scale: float = 1.0


def make_schedule(evaluations: int | None, stages: Sequence[Stage] | None) -> list[Stage]:
    """Turn the two ways of saying how long a run is into one list.

    Args:
        evaluations: Length of a run of one stage; None for the default.
        stages: Explicit stages, from coarse to fine.

    Raises:
        UserError: If both are given, or a number makes no sense.
    """
    if stages is None:
        stages = [Stage(DEFAULT_EVALUATIONS if evaluations is None else evaluations)]
        argument = "model.evaluations"
    elif evaluations is not None:
        raise UserError(
            f"model.evaluations: contradicts model.stages, got {evaluations} and stages; leave one of the two out"
        )
    elif not stages:
        raise UserError("model.stages: must hold at least one stage, got none; leave it out for a run of one stage")
    else:
        argument = "model.stages.evaluations"
    for stage in stages:
        if stage.evaluations < 1:
            raise UserError(f"{argument}: must be at least 1, got {stage.evaluations}; 300 is a good start")
        if not 0 < stage.scale <= 1:
            raise UserError(f"model.stages.scale: must be above 0 and at most 1, got {stage.scale}; 1 is the full size")
    if stages[-1].scale != 1:
        raise UserError(
            f"model.stages: the last stage must have scale 1, got {stages[-1].scale}; data.size is its size"
        )
    return list(stages)
