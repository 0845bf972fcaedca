"""Pictures made by several workers at once: who gets which, and what becomes of those whose worker is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from nst_lightning.errors import UserError, UserNotice, notice
from nst_lightning.gallery.engine import Made, Step, Tell, in_order
from nst_lightning.gallery.judging import Task
from nst_lightning.process.ownership import owns_process

_LOSSES = 3  # workers that a picture may cost
_ENDING = ("SIGTERM", "SIGHUP")  # which end a process at once; Windows lacks the second


@dataclass(frozen=True)
class Notice:
    """Something that the user should know while a picture is made."""

    text: str


@dataclass(frozen=True)
class Failure:
    """Why a picture cannot be made, in one line."""

    line: str


@dataclass(frozen=True)
class Lost:
    """The end of a worker in the middle of its picture."""

    reason: str


Told = Step | Notice | Made | Failure  # what a worker says
M = TypeVar("M", bound="Member")


class Member(Protocol):
    """A worker, as seen from here."""

    task: Task | None  # that it makes
    ready: bool  # whether it could make one

    @property
    def where(self) -> str:
        """Its machine or number, for messages."""
        ...


class Crew(ABC, Generic[M]):
    """Workers that come and go, each with one picture at a time."""

    @property
    @abstractmethod
    def members(self) -> list[M]:
        """All that are there."""

    @property
    def busy(self) -> list[M]:
        """Those that make a picture."""
        return [member for member in self.members if member.task is not None]

    @property
    def idle(self) -> list[M]:
        """Those that could."""
        return [member for member in self.members if member.ready and member.task is None]

    @abstractmethod
    def recruit(self, most: int) -> None:
        """Have as many as there can be, and at most so many.

        Raises:
            UserError: If there are none, and will be none.
        """

    @abstractmethod
    def begin(self, member: M, task: Task) -> None:
        """Let a worker make a picture.

        Raises:
            OSError: If a file that the picture needs is not there any more.
        """

    @abstractmethod
    def listen(self) -> list[tuple[M, Task, Told | Lost]]:
        """What workers say, after a second or so at most."""

    @abstractmethod
    def dismiss(self) -> None:
        """End all."""


class Shift:
    """All pictures of a gallery, by a crew.

    Args:
        crew: The workers.
        tasks: The pictures.
        tell: See `Engine.make_all`.
        lost: Ends the line about a worker that is lost in the middle of a picture, which another one then makes.
    """

    def __init__(self, crew: Crew[Any], tasks: Sequence[Task], tell: Tell, *, lost: str) -> None:
        self._crew, self._tell, self._lost = crew, tell, lost
        self._waiting = deque(in_order(tasks))
        self._losses: Counter[str] = Counter()

    def make(self) -> Iterator[tuple[Task, Made | Exception]]:
        """Make them all, and dismiss the crew; see `Engine.make_all`."""
        try:
            with _ending_in_good_order():
                while self._waiting or self._crew.busy:
                    self._crew.recruit(len(self._waiting) + len(self._crew.busy))
                    yield from self._begin()
                    yield from self._heard()
        finally:
            self._crew.dismiss()

    def _heard(self) -> Iterator[tuple[Task, Made | Exception]]:
        for member, task, item in self._crew.listen():
            if isinstance(item, Step):
                self._tell(task, item)
            elif isinstance(item, Notice):
                notice(item.text)
            elif isinstance(item, Lost):
                yield from self._after_loss(member, task, item)
            else:
                yield task, UserError(item.line) if isinstance(item, Failure) else item

    def _begin(self) -> Iterator[tuple[Task, Exception]]:
        """Give work to those that have none."""
        for member in self._crew.idle:
            while self._waiting and member.task is None:
                task = self._waiting.popleft()
                try:
                    self._crew.begin(member, task)
                except OSError as error:
                    yield task, UserError(f"{error.filename}: {error.strerror}; see that it is there")

    def _after_loss(self, member: Member, task: Task, lost: Lost) -> Iterator[tuple[Task, Exception]]:
        name = task.row.name
        self._losses[name] += 1
        if self._losses[name] >= _LOSSES:
            why = UserError(
                f"{name}: must leave the process that makes it alive, got the end of {_LOSSES}, the last one on "
                f"{member.where} ({lost.reason}); memory may have run out: set data.size lower, or --cores higher"
            )
            yield task, why
            return
        notice(f"--engine: the process on {member.where} that made {name} is lost ({lost.reason}); {self._lost}")
        self._waiting.appendleft(task)


@contextlib.contextmanager
def notices_to(tell: Callable[[Notice], None], worded: Callable[[object], str] = str) -> Iterator[None]:
    """Tell of warnings that are for users, and let others be.

    Args:
        tell: Hears of them.
        worded: Makes the text of one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserNotice)
        warnings.showwarning = lambda message, *_, **__: tell(Notice(worded(message)))
        yield


@contextlib.contextmanager
def _ending_in_good_order() -> Iterator[None]:
    """Let SIGTERM leave as an exception does, unless the program around has its own idea, and Ctrl-C in any shell."""
    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _ENDING if hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_DFL:
                ours[number] = _end
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and owns_process():  # as scripts start what they wait for
            ours[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)
