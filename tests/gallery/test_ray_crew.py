"""Who makes a gallery's pictures on a Ray cluster, with a cluster that is made up."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from painter import Painter

from nst_lightning import __version__
from nst_lightning.data import request
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.gallery import Gallery, RayEngine, ray_crew, ray_worker
from nst_lightning.gallery import ray_engine as module
from nst_lightning.gallery.parcels import weights_named
from nst_lightning.gallery.ray_cluster import Cluster
from nst_lightning.gallery.ray_crew import Wanted, slots_of
from nst_lightning.gallery.shift import Failure, Notice

FACTS = {"nst_lightning": __version__, "torch": torch.__version__, "weights": {}}


class RayError(Exception):
    """What Ray raises for a process that is gone."""


@dataclass
class Machine:
    """A node: what its processes say of themselves, and how pictures fare there."""

    name: str
    facts: dict = field(default_factory=dict)
    deadly: tuple[str, ...] = ()  # pictures that end the process
    full: int = 0  # looks at it until others leave its cores
    slow: int = 0  # looks at a process until it has loaded the program
    dies: bool = False  # whether the machine ends with it
    cores: float = 1.0
    gpus: float = 0.0
    alive: bool = True
    without_faces: str = ""  # why it finds no faces

    def say(self, needed, faces):
        return {**FACTS, "faces": self.without_faces if faces else "", **self.facts}

    def node(self):
        has = {"CPU": self.cores, **({"GPU": self.gpus} if self.gpus else {})}
        return {"NodeID": self.name, "NodeManagerAddress": self.name, "Alive": self.alive, "Resources": has}


class Later:
    """What is there after some looks."""

    def __init__(self, looks, value):
        self._looks, self.value = looks, value

    def is_there(self):
        self._looks -= 1
        return self._looks < 0


class Ray:
    """As much of Ray as an engine uses; what is asked for is there at once, unless a machine is full or slow."""

    exceptions = SimpleNamespace(RayError=RayError)
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
    )

    def __init__(self, place, *machines):
        self.machines, self.painter = list(machines), Painter(place)
        self.tasks = {}
        self.begun, self.made = [], []

    def nodes(self):
        return [machine.node() for machine in self.machines]

    def remote(self, class_):
        return self

    def options(self, *, scheduling_strategy, **options):
        machine = next(machine for machine in self.machines if machine.name == scheduling_strategy)
        self.begun.append((machine.name, options["num_cpus"], options["num_gpus"]))

        def begin(*arguments):
            return SimpleNamespace(
                here=SimpleNamespace(remote=lambda: Later(machine.full, None)),
                facts=SimpleNamespace(remote=lambda *asked: Later(machine.slow, machine.say(*asked))),
                make=SimpleNamespace(remote=lambda parcel: self._make(machine, parcel)),
            )

        return SimpleNamespace(remote=begin)

    def _make(self, machine, parcel):
        if parcel.name in machine.deadly:
            machine.alive = not machine.dies
            yield RayError("The actor died because its node has died.")
        if parcel.name == "dog_night.png":
            yield Notice("something odd")
            yield Failure("memory: ran out")
        self.made.append((machine.name, parcel.name))
        yield self.painter.make(self.tasks[parcel.name], lambda task, step: None)

    def put(self, value):
        return value

    def get(self, value):
        if isinstance(value, RayError):
            raise value
        return value.value if isinstance(value, Later) else value

    def wait(self, pending, num_returns, timeout):
        ready = [item for item in pending if not isinstance(item, Later) or item.is_there()][:num_returns]
        return ready, [item for item in pending if not any(item is other for other in ready)]

    def kill(self, actor):
        pass


@pytest.fixture
def begin(folders, monkeypatch):
    """Makes a gallery of four on some machines; a fifth picture is nobody's."""
    monkeypatch.setattr(ray_crew, "_PERIOD", 0.0)

    def make(*machines, cores=None, tell=None, **settings):
        ray = Ray(folders, *machines)
        monkeypatch.setattr(module, "Cluster", lambda address: SimpleNamespace(ray=ray, leave=lambda: None))
        pack = ray_crew.pack

        def noting(task, send):
            ray.tasks[task.row.name] = task
            return pack(task, send)

        with monkeypatch.context() as patch:
            patch.setattr(ray_crew, "pack", noting)
            gallery = Gallery("out", ["photos"], ["paintings"], **settings)
            return gallery.make(tell, RayEngine(cores=cores)), ray

    return make


@pytest.mark.filterwarnings("ignore:something odd")
class TestMachines:
    def test_all_get_work(self, begin):
        with pytest.warns(UserNotice, match="something odd"):
            summary, ray = begin(Machine("a"), Machine("b"))
        assert (len(summary.made), summary.failed) == (3, {"dog_night.png": "memory: ran out"})
        assert ray.begun == [("a", 1, 0), ("b", 1, 0)]

    def test_one_that_joins_later(self, begin):
        late = Machine("late", alive=False)

        def tell(event):
            late.alive = event.finished >= 1

        summary, ray = begin(Machine("a"), late, tell=tell)
        assert ray.begun == [("a", 1, 0), ("late", 1, 0)]
        assert len(summary.made) == 3

    def test_another_version(self, begin):
        with pytest.warns(UserNotice, match=r"b makes no pictures: its nst_lightning is 0.1.0, not .*; pip install"):
            summary, ray = begin(Machine("a"), Machine("b", {"nst_lightning": "0.1.0"}))
        assert {machine for machine, _ in ray.made} == {"a"}
        assert len(summary.made) == 3

    def test_another_torch(self, begin):
        with pytest.warns(UserNotice, match=r"b has torch 1.0, and this machine .*; the last bits of its pictures may"):
            begin(Machine("a"), Machine("b", {"torch": "1.0"}))

    def test_none_has_the_program(self, begin):
        facts = {"nst_lightning": "", "torch": "", "missing": "No module named 'nst_lightning'"}
        with (
            pytest.warns(UserNotice, match=r"its nst_lightning is none that can be loaded \(No module named"),
            pytest.raises(UserError, match=r"^--engine: the cluster must have a machine .*, got none"),
        ):
            begin(Machine("a", facts))

    def test_a_wait_for_cores_is_spoken_of(self, begin, monkeypatch):
        monkeypatch.setattr(ray_crew, "_WAIT", 0.0)
        with pytest.warns(UserNotice, match="waiting for free cores of the cluster, which others use") as said:
            summary, _ = begin(Machine("a", full=6))
        assert len([1 for notice in said if "waiting for" in str(notice.message)]) == 1
        assert len(summary.made) == 3

    @pytest.mark.filterwarnings("error:--engine")
    def test_loading_the_program_is_no_wait_for_cores(self, begin, monkeypatch):
        looks = iter(range(1000))
        monkeypatch.setattr(ray_crew, "_WAIT", 1.0)
        monkeypatch.setattr(ray_crew, "time", SimpleNamespace(monotonic=lambda: 0.5 * next(looks)))
        summary, _ = begin(Machine("a", slow=6))
        assert len(summary.made) == 3

    def test_no_machine_at_all(self, begin, monkeypatch):
        monkeypatch.setattr(ray_crew, "PATIENCE", 0.1)
        with pytest.raises(UserError, match=r"^--engine: the cluster must have a machine with 2 free cores"):
            begin(Machine("a"), cores=2)


@pytest.mark.filterwarnings("ignore:something odd")
class TestLosses:
    def test_what_a_machine_loses_is_made_elsewhere(self, begin):
        with pytest.warns(UserNotice, match=r"process on a that made cat_night.png is lost \(its machine is gone\)"):
            summary, ray = begin(Machine("a", deadly=("cat_night.png",), dies=True), Machine("b"), Machine("c"))
        assert sorted(summary.made) == ["cat_night.png", "cat_waves.png", "dog_waves.png"]
        assert len({name for _, name in ray.made}) == len(ray.made) == 3

    def test_a_picture_costs_three_at_most(self, begin):
        with pytest.warns(UserNotice, match="is made anew"):
            summary, ray = begin(Machine("a", deadly=("cat_waves.png",)))
        assert len(summary.made) == 2
        assert summary.failed["cat_waves.png"].startswith("cat_waves.png: must leave the process that makes it alive")
        assert len(ray.begun) == 4  # the last one for the rest


class TestSlots:
    def test_a_processor_is_one_device(self):
        nodes = [Machine("a", cores=8).node(), Machine("b", cores=4).node(), Machine("head", cores=0).node()]
        assert [(slot.node, slot.cores) for slot in slots_of(nodes, Wanted(None, True, {}))] == [("a", 8), ("b", 4)]
        assert [slot.node for slot in slots_of(nodes, Wanted(3, True, {}))] == ["a", "a", "b"]

    def test_gpus_make_all_if_there_are_any(self):
        nodes = [Machine("a", cores=8, gpus=2).node(), Machine("b", cores=4).node()]
        found = slots_of(nodes, Wanted(None, True, {}))
        assert [(slot.node, slot.cores, slot.gpus) for slot in found] == [("a", 4, 1), ("a", 4, 1)]
        assert [slot.gpus for slot in slots_of(nodes, Wanted(None, False, {}))] == [0, 0]

    def test_machines_that_are_gone(self):
        assert slots_of([Machine("a", alive=False).node()], Wanted(None, True, {})) == []


def test_weights_that_a_machine_needs():
    model = {
        "extractor": {"class_path": "nst_lightning.features.VGG19", "init_args": {"pooling": "max"}},
        "stages": [
            {"extractor": {"class_path": "nst_lightning.features.CompactVGG19", "init_args": {"weights": "narrow"}}},
            {"extractor": {"class_path": "nst_lightning.features.CompactVGG19", "init_args": {"weights": "own.pth"}}},
        ],
    }
    assert list(weights_named(model)) == [None, "own.pth"]


@pytest.mark.filterwarnings("ignore:something odd")
def test_weights_that_differ(begin, monkeypatch):
    monkeypatch.setattr(module, "weights_named", lambda model: [None])
    monkeypatch.setattr(module, "digest_of_weights", lambda name: "ours")
    others = [Machine("b", {"weights": {None: "theirs"}}), Machine("c", {"weights": {None: ""}})]
    with pytest.warns(UserNotice, match="makes no pictures: it lacks the weights that this machine has") as said:
        _, ray = begin(Machine("a", {"weights": {None: "ours"}}), *others)
    assert {machine for machine, _ in ray.made} == {"a"}
    assert len([1 for notice in said if "lacks the weights" in str(notice.message)]) == 2


@pytest.mark.filterwarnings("ignore:something odd")
class TestFaces:
    ABSENT = "data.content_mask: faces needs the package mtcnn 1.0.0, which is not installed; pip install it"

    def test_a_machine_that_finds_none_is_left_out_where_they_are_asked_for(self, begin, monkeypatch):
        monkeypatch.setattr(request, "check_weights", lambda: None)
        with pytest.warns(UserNotice, match=f"b makes no pictures: {self.ABSENT} there"):
            summary, ray = begin(Machine("a"), Machine("b", without_faces=self.ABSENT), protect_faces=True)
        assert {machine for machine, _ in ray.made} == {"a"}
        assert len(summary.made) == 3

    @pytest.mark.filterwarnings("error:--engine")
    def test_it_makes_pictures_that_need_none(self, begin):
        _, ray = begin(Machine("b", without_faces=self.ABSENT))
        assert {machine for machine, _ in ray.made} == {"b"}

    def test_a_worker_looks_for_the_detector_where_it_is_needed(self, monkeypatch):
        def absent():
            raise UserError(self.ABSENT)

        worker = ray_worker.Worker(torch.get_num_threads(), None, bytes)
        monkeypatch.setattr(ray_worker, "check_weights", absent)
        assert worker.facts([], faces=True)["faces"] == self.ABSENT
        assert worker.facts([])["faces"] == ""
        monkeypatch.setattr(ray_worker, "check_weights", lambda: None)
        assert worker.facts([], faces=True)["faces"] == ""


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^--engine: ray must be installed, .*; pip install 'nst_lightning\[ray\]'"):
        Cluster(None)


def test_an_address_of_rays_client():
    with pytest.raises(UserError, match=r"^--address: must be auto or HOST:PORT .*, got ray://head:10001; join it by"):
        Cluster("ray://head:10001")
