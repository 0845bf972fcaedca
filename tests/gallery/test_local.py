"""Galleries in processes of this machine: the pictures of one process, and nobody left behind however it ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from forked import Running, nst
from galleries import contents, make
from painter import put_picture

from nst_lightning.config.short import Short
from nst_lightning.errors import UserError
from nst_lightning.gallery import Gallery, LocalEngine, local_crew
from nst_lightning.gallery import local_engine as module
from nst_lightning.gallery.rows import Row
from nst_lightning.images import read_image

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")]

ROWS = """\
- {content: photos/cat.png, style: paintings/waves.png}
- {content: photos/dog.jpg, style: [paintings/waves.png, {path: paintings/night.png, weight: 2}], stroke_size: 1.5}
- {content: photos/cat.png, style: paintings/waves.png, output: again.png}
- {content: photos/cat.png, style: paintings/night.png, preset: gatys, model.extractor.weights: nowhere.pth}
- {content: photos/cat.png, style: paintings/night.png, data.content_mask: dark.png, output: dark.jpg}
"""
LITTLE = {"size": 32, "options": {"model.evaluations": 4}}


@pytest.fixture
def engine():
    """An engine with two workers of a core each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield LocalEngine(cores=1)
    torch.set_num_threads(threads)


@pytest.fixture
def deadly(folders, monkeypatch):
    """A callback that ends its process, as often as there are lines in a file."""
    (folders / "deadly.py").write_text(
        "import os\nfrom pathlib import Path\nfrom lightning.pytorch import Callback\n\n\nclass Deadly(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n        left = Path('left')\n"
        "        if trainer.global_step == 3 and (lines := left.read_text().split()):\n"
        "            left.write_text(' '.join(lines[1:]))\n            os._exit(7)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(folders)
    return folders / "left"


def pixels(folder):
    return {path.name: read_image(path).pixels for path in sorted(Path(folder).glob("*.png"))}


def test_all_is_as_in_one_process(folders, engine):
    (folders / "rows.yaml").write_text(ROWS, encoding="utf-8")
    put_picture(folders / "dark.png", (0, 0, 0))
    steps, environment = [], dict(os.environ)
    gallery = Gallery("there", manifest="rows.yaml", pattern="{index}", **LITTLE)
    summary, said = make(gallery, engine, lambda event: steps.append(event.step))
    assert any(steps)
    assert dict(os.environ) == environment
    assert not multiprocessing.active_children()
    expected, said_here = make(Gallery("here", manifest="rows.yaml", pattern="{index}", **LITTLE))
    assert contents("there") == contents("here")
    assert len(contents("here")) == 4
    assert summary.failed == expected.failed
    assert "nowhere.pth" in summary.failed["4.png"]
    assert said == said_here
    assert any("dark.png" in text for text in said)
    left = {path.name for path in Path("there/.gallery").iterdir() if path.suffix != ".json"}
    assert left == {path.name for path in Path("here/.gallery").iterdir() if path.suffix != ".json"}


def test_pictures_come_in_the_order_of_one_process(folders, engine):
    one_by_one = LocalEngine(cores=2)  # one worker with both
    made = [make(Gallery(name, ["photos"], ["paintings"], **LITTLE), way)[0].made for name, way in
            (("there", one_by_one), ("here", None))]  # fmt: skip
    assert made[0] == made[1]


def test_a_process_that_is_lost_and_begun_again(folders, deadly, engine):
    callback = {"trainer.callbacks": "deadly.Deadly", "model.evaluations": 6, "checkpoint_every": 1}
    deadly.write_text("", encoding="utf-8")
    make(Gallery("here", ["photos/cat.png"], ["paintings/waves.png"], size=32, options=callback))
    deadly.write_text("once", encoding="utf-8")
    steps = []
    gallery = Gallery("there", ["photos/cat.png"], ["paintings/waves.png"], size=32, options=callback)
    summary, said = make(gallery, engine, lambda event: steps.append(event.step and event.step.evaluation))
    assert summary.made == ["cat_waves.png"]
    assert said[0].startswith(
        "--engine: the process on worker 1 that made cat_waves.png is lost (exit code 7); it goes"
    )
    assert torch.equal(pixels("there")["cat_waves.png"], pixels("here")["cat_waves.png"])


def test_a_picture_that_no_process_survives(folders, deadly, engine):
    deadly.write_text("one and two and three", encoding="utf-8")
    options = {"trainer.callbacks": "deadly.Deadly", "model.evaluations": 6}
    summary, _ = make(Gallery("out", ["photos/cat.png"], ["paintings/waves.png"], size=32, options=options), engine)
    assert summary.failed["cat_waves.png"].startswith("cat_waves.png: must leave the process that makes it alive, got")


def test_stopped_in_the_middle_it_goes_on(folders, engine):
    options = {"model.evaluations": 60, "checkpoint_every": 1}
    expected, _ = make(Gallery("here", ["photos"], ["paintings"], size=32, options=options))

    def stop(event):
        if event.step is not None:  # the first one is told at once
            raise KeyboardInterrupt

    gallery = Gallery("there", ["photos"], ["paintings"], size=32, options=options)
    with pytest.raises(KeyboardInterrupt):
        gallery.make(stop, engine)
    assert not multiprocessing.active_children()
    assert list(Path("there/.gallery").glob("*/*/checkpoints/*"))
    summary, _ = make(gallery, engine)
    assert sorted(expected.made) == sorted([*summary.made, *summary.kept])
    assert all(
        torch.equal(one, other) for one, other in zip(*map(dict.values, map(pixels, ("there", "here"))), strict=True)
    )


COMMAND = ["gallery", "photos", "--styles", "paintings", "-o", "out", "--size", 32, "--json", "--cores", 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_is_left_behind(folders, use_tiny_weights, number):
    options = ["--model.evaluations", 4000, "--checkpoint_every", 1]
    running = Running(folders, [*COMMAND, *options], environment={"OMP_NUM_THREADS": "2"})
    said = running.number.with_suffix(".said")
    begin = time.monotonic()
    while not said.exists() or '"progress"' not in said.read_text(encoding="utf-8"):
        assert time.monotonic() < begin + 300
        time.sleep(0.02)
    workers = [process for process in psutil.process_iter() if is_at_work_in(process, folders)]
    os.kill(int(running.number.read_text(encoding="ascii")), number)
    ended = running.wait()
    assert ended.code == (-9 if number == signal.SIGKILL else 128 + number)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    summary = events_of(nst(folders, *COMMAND, "--model.evaluations", 4, "--checkpoint_every", 1).said)
    assert [event["finished"] for event in summary if event["event"] == "finished"] == [4]
    assert sorted(path.name for path in (folders / "out/.gallery").glob(".*")) == [".lock"]


def test_a_process_of_a_killed_gallery_is_waited_for(folders, engine, monkeypatch):
    """Each process holds a lock as long as it is there; whoever comes next does not touch its run."""
    monkeypatch.setattr(local_crew, "_LAST_STEP", 0.1)
    gallery = Gallery("out", ["photos"], ["paintings"], **LITTLE)
    seen = []

    def look(event):
        if event.kind == "progress":
            with pytest.raises(UserError, match=r"^--output: .*, got '.*out', where a process of one that was killed"):
                local_crew.LocalCrew(1, 1, Path("out/.gallery"), None)
            seen.append(event.name)

    make(gallery, engine, look)
    assert seen
    assert not list(Path("out/.gallery").glob(".worker*"))


def is_at_work_in(process, folder):
    try:
        return any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    except psutil.Error:
        return False


def events_of(said):
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_how_many_at_a_time(monkeypatch, folders):
    """One by one on one core, of little work, and where memory has room for one; else a core each, or a share."""
    gigabyte = 1 << 30
    monkeypatch.setattr(module, "Session", lambda: type("", (), {"forecast": lambda *_, **__: Forecast}))
    monkeypatch.setattr(module, "arguments_of", lambda *_: [])

    class Forecast:
        memory = gigabyte

    class Task:
        pixels, evaluations, configuration, row = 1 << 18, 300, {}, Row(1, "", (), Short())

    def cores(tasks, cores, free):
        monkeypatch.setattr(module, "free_within", lambda *_: free * gigabyte)
        return module._cores_of_each([Task] * tasks, cores)

    assert cores(16, 2, 10) == 1
    assert cores(16, 1, 10) is None
    assert cores(1, 8, 10) is None
    assert cores(2, 8, 10) == 4
    assert cores(16, 8, 5) == 2
    assert cores(16, 8, 1.5) is None
    Forecast.memory = 0  # unknown
    assert cores(16, 8, 10) is None
    Task.evaluations = 2
    assert cores(16, 8, 10) is None


def test_rows_of_other_settings(monkeypatch, folders):
    """Of rows of one size those with VGG-19 take the most, wherever they stand; and any row's limit is kept."""
    asked, limits = [], []

    class Session:
        def forecast(self, preset, measured):
            asked.append(preset)
            if preset == "texture":
                raise UserError("model.extractor.weights: no")
            return SimpleNamespace(memory={"fast": 1, "gatys": 4}[preset] << 30)

    def free_within(limit, device):
        limits.append(limit)
        return 11 << 30

    def task(preset, seed=None, **model):
        row = Row(1, "", (), Short(preset, seed=seed))
        return SimpleNamespace(pixels=1 << 18, evaluations=300, configuration={"model": model}, row=row)

    monkeypatch.setattr(module, "Session", Session)
    monkeypatch.setattr(module, "arguments_of", lambda task, *_: task.row.short.preset)
    monkeypatch.setattr(module, "free_within", free_within)
    rows = [task("fast"), task("gatys", memory=9), task("gatys", seed=3, memory=7), task("fast", memory=None)]
    assert module._cores_of_each(rows[:1] * 8, 8) == 1
    assert module._cores_of_each(rows * 2, 8) == 4
    assert asked == ["fast", "fast", "gatys"]  # seeds take no memory
    assert limits == [None, 7]
    assert module._cores_of_each([*rows * 2, task("texture")], 8) == 4  # which fails when it is made
    assert module._cores_of_each([task("texture")] * 8, 8) is None


def test_cores_below_one_are_refused():
    with pytest.raises(UserError, match=r"^--cores: must be at least 1, got 0"):
        LocalEngine(cores=0)
