"""What makes pictures, behind a small interface: how one is made, and how many at once, is an engine's own affair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nst_lightning.gallery.judging import Task
from nst_lightning.session import Outcome


@dataclass(frozen=True)
class Made:
    """A picture that is finished.

    Attributes:
        picture: What its file holds.
        evaluations: After how many it was finished.
        seconds: How long the last part of its run took; None if that is not known any more.
        size: Width and height in pixels.
        loss: The last one; None if that is not known any more.
        continued: Whether its run went on from a checkpoint.
        device: What it was made on; empty if that is not known any more.
    """

    picture: bytes
    evaluations: int
    seconds: float | None
    size: tuple[int, int]
    loss: float | None = None
    continued: bool = False
    device: str = ""


@dataclass(frozen=True)
class Step:
    """How far a picture is.

    Attributes:
        evaluation: How many evaluations are made.
        evaluations: How many it will have.
        loss: The last one.
    """

    evaluation: int
    evaluations: int
    loss: float | None


Tell = Callable[[Task, Step], None]


class Engine(ABC):
    """Makes the pictures of a gallery."""

    def begin(self, run_folder: Callable[[Task], Path]) -> None:  # noqa: B027 - most keep nothing there
        """Be told, before the first picture, where the run of a task may keep its checkpoints."""

    @abstractmethod
    def make(self, task: Task, tell: Tell) -> Made:
        """Make one picture, from its checkpoint if its run has been under way.

        Args:
            task: The row, its settings and the files that it reads.
            tell: Hears how far it is, now and then.

        Raises:
            UserError: If it cannot be made.
            KeyboardInterrupt: After Ctrl-C, when a checkpoint is written.
        """

    def make_all(self, tasks: Sequence[Task], tell: Tell) -> Iterator[tuple[Task, Made | Exception]]:
        """Make pictures, in any order; those of one style in a row, by default, so that its targets are taken once.

        An engine with several workers makes several at once. `tell` must be called by the caller's thread alone.

        Yields:
            Each task with its picture, or with why there is none, as they come.
        """
        for task in in_order(tasks):
            try:
                made: Made | Exception = self.make(task, tell)
            except Exception as error:  # of this picture; the others are made all the same
                made = error
            yield task, made

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what the engine holds."""


def made_of(file: Path, outcome: Outcome, *, continued: bool = False, device: str = "") -> Made:
    """What a run has made of a picture and written to a file."""
    loss = outcome.losses.get("loss")
    return Made(file.read_bytes(), outcome.evaluations, outcome.seconds, outcome.size, loss, continued, device)


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Rows of the same settings and styles one after the other."""
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        groups.setdefault((repr(task.row.short), repr(task.row.styles)), []).append(task)
    return [task for group in groups.values() for task in group]
