"""Workers on the devices of a Ray cluster: begun where there is room, each with one picture at a time."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import nst_lightning
from nst_lightning.errors import UserError, notice
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.gallery.engine import Made
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.parcels import pack
from nst_lightning.gallery.ray_cluster import PATIENCE, Cluster
from nst_lightning.gallery.shift import Crew, Failure, Lost, Told

_PERIOD = 2.0  # seconds between two looks at who is there
_WAIT = 60.0  # seconds after which a wait for cores is spoken of
_STARTS = 3  # of workers that end before they say a word, until their machine is left alone
_ROOT = str(Path(nst_lightning.__file__).parent.parent)
_INSTALL = f"pip install nst_lightning=={nst_lightning.__version__} there"


@dataclass(frozen=True)
class Wanted:
    """What workers have to be like.

    Attributes:
        cores: Of each; None for a machine's own, shared by its GPUs.
        gpus: Whether GPUs are of use.
        weights: SHA-256 of the weights that are needed, by their file; empty where this machine has none.
        faces: Whether they have to find faces.
    """

    cores: int | None
    gpus: bool
    weights: Mapping[str | None, str]
    faces: bool = False


@dataclass(frozen=True)
class Slot:
    """A device."""

    node: str
    index: int
    address: str
    cores: int
    gpus: int


class RayMember:
    """A worker.

    Attributes:
        placed: Whether it has its cores; a busy machine may then take minutes to load the program.
        ready: Whether the program is loaded, and the right one.
        pending: What it will say next.
    """

    def __init__(self, slot: Slot, actor: Any) -> None:
        self.slot, self.actor = slot, actor
        self.task: Task | None = None
        self.placed = self.ready = False
        self.pending = actor.here.remote()

    @property
    def where(self) -> str:
        """Its machine, for messages."""
        return self.slot.address


class RayCrew(Crew[RayMember]):
    """All workers of a gallery.

    Args:
        cluster: Where they work.
        wanted: What they have to be like.
    """

    def __init__(self, cluster: Cluster, wanted: Wanted) -> None:
        self._ray, self._wanted = cluster.ray, wanted
        self._members: dict[tuple[str, int], RayMember] = {}
        self._left_out: set[str] = set()  # machines
        self._ends: Counter[str] = Counter()  # workers of a machine that ended before they said a word
        self._looked = 0.0
        self._alone_since = self._begun = time.monotonic()
        self._said: set[str] = set()
        self._sent: dict[Path, object] = {}  # what Ray holds of files
        self._class = self._ray.remote(_worker_class())

    @property
    def members(self) -> list[RayMember]:
        """All that are there."""
        return list(self._members.values())

    def recruit(self, most: int) -> None:
        """Begin workers on devices that have none.

        Args:
            most: How many there may be in all.

        Raises:
            UserError: If there has been nobody for a while.
        """
        now = time.monotonic()
        if now - self._looked < _PERIOD:
            return
        self._looked = now
        for slot in slots_of(self._nodes(), self._wanted):
            key = slot.node, slot.index
            if key not in self._members and slot.node not in self._left_out and len(self._members) < most:
                self._members[key] = self._start(slot)
        if self._members:
            self._alone_since = now
            if now - self._begun > _WAIT and not any(member.placed for member in self._members.values()):
                self._say("--engine: waiting for free cores of the cluster, which others use; --cores asks for fewer")
        elif now - self._alone_since > (0 if self._left_out else PATIENCE):
            cores = f"{self._wanted.cores or 1} free cores" if self._wanted.cores != 1 else "a free core"
            raise UserError(
                f"--engine: the cluster must have a machine with {cores} and this version of the program, got none; "
                "'ray status' lists them, and the same command goes on when there is one"
            )

    def _nodes(self) -> Sequence[Mapping[str, Any]]:
        try:
            found: Sequence[Mapping[str, Any]] = self._ray.nodes()
        except Exception as error:  # of Ray's many, all mean this
            raise UserError(
                f"--engine: the cluster must answer, got {type(error).__name__}: {str(error)[:200]}; begin its "
                "head again, and run the same command"
            ) from None
        return found

    def _start(self, slot: Slot) -> RayMember:
        affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(slot.node, soft=False)
        options = {"num_cpus": slot.cores, "num_gpus": slot.gpus, "scheduling_strategy": affinity}
        actor = self._class.options(max_restarts=0, **options).remote(
            _ROOT, slot.cores, os.environ.get(ENVIRONMENT_VARIABLE)
        )
        return RayMember(slot, actor)

    def begin(self, member: RayMember, task: Task) -> None:
        """Send a picture's parcel to a worker; what Ray holds of files is kept as long as they are in use."""
        in_use = {path for member in self.busy if member.task is not None for path in member.task.inputs}
        self._sent = {path: sent for path, sent in self._sent.items() if path in {*in_use, *task.inputs}}
        member.pending = member.actor.make.remote(pack(task, self._send))
        member.task = task

    def _send(self, path: Path) -> object:
        if path not in self._sent:
            self._sent[path] = self._ray.put(path.read_bytes())
        return self._sent[path]

    def listen(self, seconds: float = 1.0) -> list[tuple[RayMember, Task, Told | Lost]]:
        """What workers say, after at most so many seconds."""
        pending = [member.pending for member in self._members.values() if member.pending is not None]
        if not pending:
            time.sleep(min(seconds, 0.2))
            return []
        self._ray.wait(pending, num_returns=1, timeout=seconds)
        ready, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)  # all that are, or some would starve
        heard: list[tuple[RayMember, Task, Told | Lost]] = []
        for member in list(self._members.values()):
            if any(member.pending is item for item in ready):
                heard += self._hear(member)
        return heard

    def _hear(self, member: RayMember) -> list[tuple[RayMember, Task, Told | Lost]]:
        task = member.task
        try:
            said = self._ray.get(member.pending if task is None else next(member.pending))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            self._lose(member)
            reason = _reason(error)
            if task is not None:
                return [(member, task, Lost(reason))]
            self._ends[member.slot.node] += 1
            if self._ends[member.slot.node] >= _STARTS:
                self._leave_out(member, f"its processes end at once ({reason})")
            return []
        if not member.placed:
            asked = list(self._wanted.weights), self._wanted.faces
            member.placed, member.pending = True, member.actor.facts.remote(*asked)
            return []
        if task is None:
            self._greet(member, said)
            return []
        if isinstance(said, (Made, Failure)):
            member.task = member.pending = None
        return [(member, task, said)]

    def _greet(self, member: RayMember, facts: Mapping[str, Any]) -> None:
        """Take a worker whose pictures will be those of this machine, and leave out its machine otherwise."""
        member.pending = None
        ours = {"nst_lightning": nst_lightning.__version__, "torch": torch.__version__}
        other = [name for name, sha in self._wanted.weights.items() if sha and facts["weights"].get(name) != sha]
        if facts["nst_lightning"] != ours["nst_lightning"]:
            theirs = facts["nst_lightning"] or f"none that can be loaded ({facts['missing']})"
            self._leave_out(member, f"its nst_lightning is {theirs}, not {ours['nst_lightning']}; {_INSTALL}")
        elif other:
            name = other[0] or f"{ENVIRONMENT_VARIABLE} or the cache"
            self._leave_out(member, f"it lacks the weights that this machine has ({name}); copy the file there")
        elif facts["faces"]:
            self._leave_out(member, f"{facts['faces']} there")
        else:
            member.ready = True
            if facts["torch"] != ours["torch"]:
                self._say(
                    f"--engine: {member.where} has torch {facts['torch']}, and this machine {ours['torch']}; the last "
                    "bits of its pictures may differ"
                )

    def _leave_out(self, member: RayMember, why: str) -> None:
        self._lose(member)
        self._left_out.add(member.slot.node)
        self._say(f"--engine: {member.where} makes no pictures: {why}")

    def _lose(self, member: RayMember) -> None:
        self._members.pop((member.slot.node, member.slot.index), None)
        with contextlib.suppress(self._ray.exceptions.RayError):  # it may be gone, and the cluster, too
            self._ray.kill(member.actor)
        member.task = member.pending = None

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            notice(text)

    def dismiss(self) -> None:
        """End all workers."""
        for member in list(self._members.values()):
            self._lose(member)


def slots_of(nodes: Sequence[Mapping[str, Any]], wanted: Wanted) -> list[Slot]:
    """The devices of a cluster: its GPUs if they are of use, else the processor of each machine, or parts of it.

    Args:
        nodes: What Ray says of its machines.
        wanted: How many cores each worker shall have, and whether GPUs are of use.
    """
    alive = [(node, node.get("Resources", {})) for node in nodes if node["Alive"]]
    by_gpu = wanted.gpus and any(has.get("GPU", 0) >= 1 for _, has in alive)
    slots: list[Slot] = []
    for node, has in alive:
        there = int(has.get("CPU", 0))
        if by_gpu:
            count = int(has.get("GPU", 0))
            cores = min(wanted.cores or there, there // max(1, count))
        else:
            cores = wanted.cores or there
            count = there // cores if cores else 0
        address = str(node.get("NodeManagerAddress", ""))
        slots += [Slot(node["NodeID"], index, address, cores, int(by_gpu)) for index in range(count)]
    return slots


def _reason(error: BaseException) -> str:
    """Why a worker has ended, in a few words; Ray says a page."""
    for line in str(error).splitlines():
        for sign, words in _SIGNS.items():
            if sign in line:
                return words
    return type(error).__name__


_SIGNS = {
    "node has died": "its machine is gone",
    "unavailable": "it does not answer",
    "ray.kill": "it was ended",
    "out of memory": "memory ran out",
    "OOM": "memory ran out, or it was killed",
}


def _worker_class() -> type:
    """What Ray carries to the machines as it is, since there may be no package there to load it from."""

    class PictureWorker:
        def __init__(self, root: str, cores: int, weights: str | None) -> None:
            self._root, self._cores, self._weights = root, cores, weights

        def here(self) -> None:
            """Be there: Ray answers this as soon as there are cores."""

        def facts(self, needed: list[str | None], faces: bool) -> dict[str, Any]:
            """Load the program, and say which it is."""
            import importlib  # noqa: PLC0415 - all of this happens elsewhere
            import os  # noqa: PLC0415
            import sys  # noqa: PLC0415

            root = self._root
            if root not in sys.path and os.path.isfile(os.path.join(root, "nst_lightning", "__init__.py")):  # noqa: PTH113, PTH118
                sys.path.insert(0, root)  # a source tree
            if os.environ.get("OMP_NUM_THREADS") == str(self._cores):
                del os.environ["OMP_NUM_THREADS"]  # Ray's, which counts two for a core that runs two threads
            try:
                importlib.import_module("nst_lightning.process.before_torch").import_torch()
                module = importlib.import_module("nst_lightning.gallery.ray_worker")
                self._worker = module.Worker(self._cores, self._weights, importlib.import_module("ray").get)
                found: dict[str, Any] = self._worker.facts(needed, faces=faces)
            except ImportError as error:
                found = {"nst_lightning": "", "torch": "", "weights": {}, "faces": "", "missing": str(error)}
            return found

        def make(self, parcel: Any) -> Any:
            yield from self._worker.make(parcel)

    return PictureWorker
