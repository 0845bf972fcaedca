"""Galleries on a Ray cluster: two nodes with one core each, on this machine.

``pytest -m slow tests/gallery/test_ray.py`` kills a node in the middle of a gallery of twelve, the gallery itself, and
processes that make pictures. ``python tools/measure_ray.py`` measures how much two nodes make in the time of one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from galleries import contents, make
from painter import put_picture

from nst_lightning.errors import UserError
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.gallery import Gallery, RayEngine, ray_cluster, ray_crew

pytest.importorskip("ray")
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("default")]

ROWS = """\
- {content: photos/cat.png, style: paintings/waves.png}
- {content: photos/dog.jpg, style: [paintings/waves.png, {path: paintings/night.png, weight: 2}], stroke_size: 1.5}
- {content: photos/dog.jpg, style: paintings/night.png, preset: "gatys,own.yaml"}
- {content: photos/cat.png, style: paintings/night.png, preset: gatys, model.extractor.weights: nowhere.pth}
- {content: photos/cat.png, style: paintings/night.png, data.content_mask: dark.png, output: dark.jpg}
"""


class TwoNodes:
    """A cluster of two nodes with one core each, and no weights of their own."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(ENVIRONMENT_VARIABLE, raising=False)
            patch.setenv("RAY_worker_niceness", "0")  # or other tests beside this one leave its workers little time
            self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            self._second = self._cluster.add_node(num_cpus=1)
        self.address = self._cluster.address

    def kill_second(self):
        """End a node, and all that runs there, with SIGKILL."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def close(self):
        self._cluster.shutdown()


@pytest.fixture
def nodes():
    made = TwoNodes()
    yield made
    made.close()


@pytest.fixture
def engine(folders, nodes, monkeypatch):
    """An engine on the cluster of two nodes, which has all the time it needs; this process has one thread, too."""
    for module, name in ((ray_cluster, "PATIENCE"), (ray_crew, "PATIENCE"), (ray_crew, "_WAIT")):
        monkeypatch.setattr(module, name, 3600.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    environment = dict(os.environ)
    made = RayEngine(nodes.address)
    assert dict(os.environ) == environment
    yield made
    made.close()
    torch.set_num_threads(threads)


def test_all_is_as_on_this_machine(folders, engine, capfd):
    (folders / "rows.yaml").write_text(ROWS, encoding="utf-8")
    (folders / "own.yaml").write_text("data: {init: start.png, content_mask: mask.png}", encoding="utf-8")
    for name, colour in (("start", (200, 10, 90)), ("mask", (250, 250, 250)), ("dark", (0, 0, 0))):
        put_picture(folders / f"{name}.png", colour)
    little = {"size": 32, "pattern": "{index}", "options": {"model.evaluations": 4}}
    there, here = (Gallery(name, manifest="rows.yaml", **little) for name in ("there", "here"))
    steps, environment = [], dict(os.environ)
    summary, said = make(there, engine, lambda event: steps.append(event.step))
    assert any(steps)
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == environment
    expected, said_here = make(here)
    assert contents("there") == contents("here")
    assert len(contents("here")) == 4
    assert summary.failed == expected.failed
    assert "nowhere.pth" in summary.failed["4.png"]
    assert said == said_here
    assert any("'mask.png'" in text for text in said)  # not where it lay for the time of the run
    with pytest.raises(UserError, match=r"^trainer.devices: must be left out with --engine ray"):
        Gallery("two", ["photos"], ["paintings"], options={"trainer.devices": 2}).make(engine=engine)


def twelve(name, **options):
    for index in range(6):
        put_picture(Path("photos") / f"{index}.png", (40 * index, 30, 200 - 40 * index), (64, 48))
    return Gallery(
        name, ["photos/[0-9].png"], ["paintings"], size=64, options={"model.evaluations": 30, **options}
    )  # fmt: skip


@pytest.mark.slow
def test_a_node_is_killed_in_the_middle(nodes, engine, capfd):
    def kill(event):
        if event.kind == "picture" and event.finished == 4:
            nodes.kill_second()

    summary, said = make(twelve("there"), engine, kill)
    assert len(summary.made) == len(set(summary.made)) == 12
    assert any("is lost" in text and "is made anew" in text for text in said)
    assert capfd.readouterr() == ("", "")  # Ray has a page to say about it
    make(twelve("here"))
    assert contents("there") == contents("here")


@pytest.mark.slow
def test_a_picture_that_kills_its_process(folders, engine, monkeypatch):
    (folders / "deadly.py").write_text(
        "import os\nfrom lightning.pytorch import Callback\n\n\nclass Deadly(Callback):\n"
        "    def on_train_start(self, *_):\n        os._exit(1)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(folders)
    (folders / "rows.yaml").write_text(
        "- {content: photos/cat.png, style: paintings/waves.png, trainer.callbacks: deadly.Deadly}\n"
        "- {content: photos/dog.jpg, style: paintings/waves.png}\n",
        encoding="utf-8",
    )
    summary, said = make(Gallery("out", manifest="rows.yaml", size=32, options={"model.evaluations": 4}), engine)
    assert summary.made == ["dog_waves.png"]
    assert summary.failed["cat_waves.png"].startswith("cat_waves.png: must leave the process that makes it alive, got")
    assert len([text for text in said if "is lost" in text]) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_gallery_is_ended_and_made_again(folders, number):
    """On this machine alone, by the command; Ray's processes end with it."""
    command = [
        *(sys.executable, "-m", "nst_lightning", "gallery", "photos", "--styles", "paintings", "-o", "out", "--json"),
        *("--size", "64", "--model.evaluations", "30", "--engine", "ray", "--cores", "1"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        events = []
        for line in running.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "picture":
                running.send_signal(number)
                break
        rest, errors = running.communicate()
    events += [json.loads(line) for line in rest.splitlines()]
    assert running.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    before = [event["picture"] for event in events if event["event"] == "picture"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    made = [event["picture"] for event in map(json.loads, again.stdout.splitlines()) if event["event"] == "picture"]
    assert sorted(made + before) == sorted({*made, *before}) == sorted(contents("out"))
    assert len(made + before) == 4
    assert errors == again.stderr == ""


def test_an_address_where_nobody_is(folders):
    with pytest.raises(UserError, match=r"^--address: must be that of a Ray cluster .*127.0.0.1:1: Connection refused"):
        RayEngine("127.0.0.1:1")
