"""What the trainer is given for each evaluation: its stage, whose images never change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nst_lightning.data.stage_images import StageImages


class StageBatch:
    """What an evaluation is of; all evaluations of a stage are given the same object.

    It holds no tensors, so that the trainer has nothing to move in each step: those of a large picture would take
    memory all through the stage, and are needed only where its targets are taken. Nor is it a dataclass, of which the
    trainer would make a copy each time. Images are made on the CPU.
    """

    def __init__(self, stage: int, images: Callable[[], StageImages]) -> None:
        self.stage, self.images = stage, images


@dataclass
class EvaluationLoader:
    """Gives a stage's batch once for each of its evaluations; it can resume in the middle."""

    length: int  # number of evaluations
    batch: StageBatch
    position: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[StageBatch]:
        start, self.position = self.position, 0
        for index in range(start, self.length):
            self.position = index + 1
            yield self.batch
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        """Position, for Lightning's checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at a position."""
        self.position = state["position"]
