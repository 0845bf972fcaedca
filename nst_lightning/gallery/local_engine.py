"""Pictures made on this machine, several at a time where that takes less time in all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nst_lightning.errors import UserError, check_at_least
from nst_lightning.gallery.engine import Engine, Made, Tell
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.local_crew import LocalCrew
from nst_lightning.gallery.session_engine import SessionEngine, arguments_of
from nst_lightning.gallery.shift import Shift
from nst_lightning.hardware.accelerator import choose_accelerator, prefers_large_operations
from nst_lightning.hardware.memory import free_within
from nst_lightning.session import Session

# Pixels times evaluations of all pictures, from which on processes of their own are worth the seconds that it takes to
# begin them: the work of half a minute on two cores with the compact encoder.
_WORTH = 2e7
_SHARE = 0.8  # of the free memory that workers may take together


class LocalEngine(Engine):
    """Makes pictures in processes of this machine, each with some of its cores.

    An evaluation gains less from a second core than a second picture does, the more so the smaller it is; and a picture
    has the same bits whatever the number of cores that it is made with. A GPU, and a gallery of little work, makes one
    picture after the other in this process. A process that is lost is begun again, and its picture goes on from its
    checkpoint.

    Processes are begun as `multiprocessing` begins them, so a script that calls this keeps what it runs below
    ``if __name__ == "__main__":``.

    Args:
        cores: For each picture; by default one, or so many that what pictures take at once fits into the memory.

    Raises:
        UserError: If cores are below 1.

    Example:
        >>> from nst_lightning.gallery import Gallery, LocalEngine
        >>> gallery = Gallery("walls", ["photo.jpg"], ["painting.jpg"], size=32, options={"model.evaluations": 2})
        >>> gallery.make(engine=LocalEngine()).made
        ['photo_painting.png']
    """

    def __init__(self, cores: int | None = None) -> None:
        if cores is not None:
            check_at_least("--cores", cores, 1, "leave it out for what takes the least time")
        self._cores = cores
        self._session = SessionEngine(Session())
        self._run_folder: Callable[[Task], Path]

    def begin(self, run_folder: Callable[[Task], Path]) -> None:
        """See Engine."""
        self._run_folder = run_folder
        self._session.begin(run_folder)

    def make(self, task: Task, tell: Tell) -> Made:
        """See Engine."""
        return self._session.make(task, tell)

    def make_all(self, tasks: Sequence[Task], tell: Tell) -> Iterator[tuple[Task, Made | Exception]]:
        """See Engine."""
        cores = torch.get_num_threads()
        each = None if not tasks or _needs_device(tasks) else self._cores or _cores_of_each(tasks, cores)
        if each is None:
            yield from self._session.make_all(tasks, tell)
            return
        firsts: dict[str, Task] = {}
        again = [task for task in tasks if firsts.setdefault(task.fingerprint, task) is not task]
        crew = LocalCrew(max(1, cores // each), min(each, cores), self._run_folder(tasks[0]).parent, self._run_folder)
        yield from Shift(crew, list(firsts.values()), tell, lost="it goes on from its checkpoint").make()
        # The same picture under another name has the same run folder.
        yield from self._session.make_all(again, tell)


def _needs_device(tasks: Sequence[Task]) -> bool:
    """Whether pictures are made on something else than the processor."""
    asked = {str((task.configuration.get("trainer") or {}).get("accelerator", "auto")) for task in tasks}
    return any(prefers_large_operations(choose_accelerator(name).value) for name in asked)


def _cores_of_each(tasks: Sequence[Task], cores: int) -> int | None:
    """How many cores a picture is best made with; None: with all of them, in this process."""
    if len(tasks) < 2 or cores < 2 or sum(task.pixels * task.evaluations for task in tasks) < _WORTH:
        return None
    needed = _memory_of_each(tasks)
    limits = [(task.configuration.get("model") or {}).get("memory") for task in tasks]
    limit = min((limit for limit in limits if limit is not None), default=None)
    workers = min(cores, len(tasks), int(_SHARE * free_within(limit, "cpu")) // needed if needed else 1)
    return cores // workers if workers > 1 else None


def _memory_of_each(tasks: Sequence[Task]) -> int:
    """What the picture takes that takes the most memory, of the largest ones of all settings; 0: that is not known."""
    largest: dict[tuple[str, int], Task] = {}
    for task in tasks:
        # Seeds and sizes are left out: what matters of sizes are the pixels, and each forecast takes a moment.
        key = repr(replace(task.row.short, size=None, seed=None)), len(task.row.styles)
        if key not in largest or task.pixels > largest[key].pixels:
            largest[key] = task
    session = Session()
    found: list[int] = []
    for task in largest.values():
        with contextlib.suppress(UserError):  # what cannot be made takes nothing, and says so when its turn comes
            found.append(session.forecast(arguments_of(task, Path("picture.png"), Path()), measured=False).memory)
    return max(found) if found and all(found) else 0
