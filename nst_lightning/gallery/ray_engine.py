"""Pictures made on the machines of a Ray cluster, each device by a session of its own."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nst_lightning.errors import UserError, check_at_least, notice
from nst_lightning.gallery.engine import Engine, Made, Step, Tell, in_order
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.parcels import digest_of_weights, pack, weights_named
from nst_lightning.gallery.ray_cluster import Cluster
from nst_lightning.gallery.ray_crew import Crew, Lost, Member, Wanted
from nst_lightning.gallery.ray_worker import Failure, Notice
from nst_lightning.process.ownership import owns_process

_LOSSES = 3  # workers that a picture may cost


class RayEngine(Engine):
    """Makes pictures on a Ray cluster, as many at once as there are devices; files travel through Ray.

    Each GPU of the cluster makes one picture at a time, or, where there are none, each machine's processor. Machines
    that join later get work, too. What a lost machine was making is made elsewhere, from its beginning.

    Args:
        address: Of the cluster that this machine is part of: auto, or HOST:PORT; by default that of ``RAY_ADDRESS``,
            else this machine alone. A program that has begun Ray itself goes on with that.
        cores: For each picture, and so its number of threads; by default a machine's, shared by its GPUs if it has any.
            Several pictures at once, each with few cores, take less time in all.

    Raises:
        UserError: If Ray is not installed, or there is no cluster at the address within 20 seconds.

    Example:
        >>> from nst_lightning.gallery import Gallery, RayEngine
        >>> engine = RayEngine(cores=1)  # doctest: +SKIP
        >>> Gallery("walls", ["photos"], ["paintings"]).make(engine=engine)  # doctest: +SKIP
        >>> engine.close()  # doctest: +SKIP
    """

    def __init__(self, address: str | None = None, cores: int | None = None) -> None:
        if cores is not None:
            check_at_least("--cores", cores, 1, "leave it out for all of a machine")
        self._cores = cores
        self._cluster = Cluster(address)

    def close(self) -> None:
        """Leave the cluster; end it if it was begun for this."""
        self._cluster.leave()

    def make(self, task: Task, tell: Tell) -> Made:
        """See Engine."""
        ((_, made),) = self.make_all([task], tell)
        if isinstance(made, Exception):
            raise made
        return made

    def make_all(self, tasks: Sequence[Task], tell: Tell) -> Iterator[tuple[Task, Made | Exception]]:
        """See Engine."""
        if not tasks:
            return
        for task in tasks:
            _check_devices(task)
        weights = {name for task in tasks for name in weights_named(task.configuration.get("model"))}
        accelerators = {str((task.configuration.get("trainer") or {}).get("accelerator")) for task in tasks}
        wanted = Wanted(self._cores, accelerators != {"cpu"}, {name: digest_of_weights(name) for name in weights})
        crew = Crew(self._cluster, wanted)
        try:
            with _ending_in_good_order():
                yield from _Making(self._cluster, crew, tasks, tell).run()
        finally:
            crew.dismiss()


class _Making:
    """One call of `RayEngine.make_all`."""

    def __init__(self, cluster: Cluster, crew: Crew, tasks: Sequence[Task], tell: Tell) -> None:
        self._cluster, self._crew, self._tell = cluster, crew, tell
        self._waiting = deque(in_order(tasks))
        self._losses: Counter[str] = Counter()
        self._sent: dict[Path, object] = {}  # what Ray holds of files, as long as they are in use

    def run(self) -> Iterator[tuple[Task, Made | Exception]]:
        """Make them all; see Engine.make_all."""
        while self._waiting or self._crew.busy:
            self._crew.recruit(len(self._waiting) + len(self._crew.busy))
            yield from self._begin()
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
                    member.begin(task, pack(task, self._send))
                except OSError as error:
                    yield task, UserError(f"{error.filename}: {error.strerror}; see that it is there")
        in_use = {path for member in self._crew.busy for path in map(Path, _files(member))}
        self._sent = {path: sent for path, sent in self._sent.items() if path in in_use}

    def _send(self, path: Path) -> object:
        if path not in self._sent:
            self._sent[path] = self._cluster.ray.put(path.read_bytes())
        return self._sent[path]

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
        notice(f"--engine: the process on {member.where} that made {name} is lost ({lost.reason}); it is made anew")
        self._waiting.appendleft(task)


def _files(member: Member) -> list[str]:
    return [str(path) for path in member.task.inputs] if member.task is not None else []


def _check_devices(task: Task) -> None:
    devices = (task.configuration.get("trainer") or {}).get("devices", 1)
    if str(devices) not in {"1", "auto"}:
        where = f"{task.row.place}: " if task.row.place else ""
        raise UserError(
            f"{where}trainer.devices: must be left out with --engine ray, which gives each picture one device, "
            f"got {devices}; leave it out"
        )


@contextlib.contextmanager
def _ending_in_good_order() -> Iterator[None]:
    """Let SIGTERM leave as an exception does, unless the program around has its own idea, and Ctrl-C in any shell."""
    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            ours[signal.SIGTERM] = _end
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
