"""Lightning's counters in a checkpoint, brought to where a run goes on.

Lightning goes on counting from where a checkpoint was written, at an evaluation's end or at a stage's, by rules that
differ with the trainer's limits. Here each becomes one of three: before a stage's first evaluation, in its middle, or
after its last one, with what callbacks do at its end still to come.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple


class Position(NamedTuple):
    """Where a run is."""

    stage: int  # index of the stage
    done: int  # evaluations made in it
    closed: bool = False  # whether callbacks have seen its end


def written_at(checkpoint: dict[str, Any]) -> Position:
    """Where a run was when it wrote a checkpoint; its image has the size of that stage."""
    loop = checkpoint["loops"]["fit_loop"]
    epochs = loop["epoch_progress"]["current"]
    begun = epochs["started"] == epochs["ready"]  # else the number of evaluations is that of the stage before
    done = loop["epoch_loop.batch_progress"]["current"]["processed"] if begun else 0
    return Position(max(0, epochs["ready"] - 1), done, 0 < epochs["ready"] == epochs["processed"])


def next_position(checkpoint: dict[str, Any], evaluations: Sequence[int]) -> Position:
    """Where a run goes on from a checkpoint; its stages may not have the evaluations that were asked for then.

    At the end of the last stage callbacks see that end, again if they have seen it then.
    """
    stage, done, closed = written_at(checkpoint)
    if stage >= len(evaluations):
        return Position(len(evaluations) - 1, done)
    if closed and done >= evaluations[stage] and stage + 1 < len(evaluations):
        return Position(stage + 1, 0)
    return Position(stage, done)


def is_over(position: Position, evaluations: Sequence[int]) -> bool:
    """Whether a position is the end of the last stage."""
    return position.stage + 1 >= len(evaluations) and position.done >= evaluations[position.stage]


def set_position(checkpoint: dict[str, Any], position: Position, evaluations: Sequence[int]) -> None:
    """Make Lightning go on from a checkpoint at a position of `next_position`, in place."""
    loop = checkpoint["loops"]["fit_loop"]
    batches, steps = loop["epoch_loop.batch_progress"], checkpoint["global_step"]
    stage, done, _ = position
    begun = int(done > 0)
    # In the middle Lightning expects the moment at which callbacks write: the evaluation is not completed.
    behind = int(0 < done < evaluations[stage])
    for progress in loop["epoch_progress"].values():
        progress.update(ready=stage + begun, started=stage + begun, processed=stage, completed=stage)
    for progress, made in ((batches["current"], done), (batches["total"], steps)):
        progress.update(ready=made, started=made, processed=made, completed=made - behind)
    batches["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - behind
    # At the end there is nothing more to load, also if a limit of the trainer is what makes it the end.
    loop["state_dict"]["combined_loader"] = [{"position": done if behind else sys.maxsize}] if done else []
