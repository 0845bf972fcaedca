"""Runs in the kernel of a notebook: what they leave behind, and what its stop button does."""

from __future__ import annotations

import gc
import importlib.util
import json
import threading
import time
import warnings
from pathlib import Path

import pytest

from nst_lightning.features.weights import ENVIRONMENT_VARIABLE

BEGIN = """
import sys, time
sys.path.insert(0, {tests!r})
from processstate import resident, state
from nst_lightning import StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Checkpoints, Export, Metrics, Progress, Signals, Snapshots
from nst_lightning.cli import main

def command(evaluations, *more):
    return main(["fit", "--data.content", {content!r}, "--data.style", {style!r}, "--data.size", "32",
                 "--trainer.accelerator", "cpu", "--model.evaluations", str(evaluations), *more])

def trained(evaluations, *more):
    own = [Signals(), Export("picture.png"), Metrics(), Snapshots(1), Checkpoints(every=2), *more]
    trainer = StyleTrainer(accelerator="cpu", precision="32-true", max_epochs=-1, logger=False, callbacks=own)
    model = StyleTransfer(evaluations=evaluations)
    trainer.fit(model, datamodule=StyleTransferData({content!r}, {style!r}, size=32))
    return tuple(model.picture().shape)
"""
COMPARE = """
now = state()
print({name: (before[name], now[name]) for name in now if now[name] != before[name]})
"""


class Notebook:
    """A kernel that runs cells, as the page of a notebook asks it to."""

    def __init__(self, folder: Path) -> None:
        manager = pytest.importorskip("jupyter_client.manager")
        pytest.importorskip("ipykernel")
        self.manager, self.client = manager.start_new_kernel(kernel_name="python3", cwd=str(folder))

    def run(self, code: str, stop_when: Path | None = None) -> tuple[str, str]:
        """A cell's text, with what it returns, and the name of what it raised.

        Args:
            code: The cell.
            stop_when: Press the stop button when this file is there.
        """
        said: list[str] = []

        def hear(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "execute_result":
                said.append(content["data"]["text/plain"])
            elif message["msg_type"] == "display_data":
                said.append(" ".join(content["data"]))

        if stop_when is not None:
            threading.Thread(target=self._stop, args=(stop_when,), name="stop button").start()
        reply = self.client.execute_interactive(code, timeout=300, output_hook=hear)["content"]
        return "".join(said), reply.get("ename", "")

    def _stop(self, file: Path) -> None:
        until = time.monotonic() + 120
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        self.manager.interrupt_kernel()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        del self.client, self.manager
        with warnings.catch_warnings():  # sockets and event loops that Jupyter's client leaves to the collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture
def notebook(tmp_path, pair, tiny_weights, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tiny_weights))
    opened = Notebook(tmp_path)
    try:
        tests = str(Path(__file__).parents[1])
        assert opened.run(BEGIN.format(tests=tests, content=str(pair[0]), style=str(pair[1]))) == ("", "")
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("way", "runs"),
    [("trained", 3), *(pytest.param(way, 10, marks=pytest.mark.slow) for way in ("trained", "command"))],
)
def test_runs_leave_the_kernel_as_it_was(way, runs, notebook, tmp_path):
    """A cell is run as often as that: handlers, threads, environment, levels of logging and memory stay."""
    assert notebook.run(f"{way}(3); before = state(); sizes = [resident()]")[1] == ""  # the first one imports
    for _ in range(runs):
        assert notebook.run(f"{way}(3); sizes.append(resident())")[1] == ""
        assert notebook.run(COMPARE) == ("{}\n", "")
    assert len(list(tmp_path.rglob("metrics.csv"))) == (runs + 1 if way == "command" else 1)
    sizes = json.loads(notebook.run("sizes")[0])
    print(f"{way}: {[round(size / 2**20, 1) for size in sizes]} MiB")
    if runs >= 10:
        assert sizes[-1] - sizes[0] < runs * 2**20


@pytest.mark.parametrize(
    "cell",
    ["command(100000, '--output', 'picture.png')", pytest.param("trained(100000)", marks=pytest.mark.slow)],
)
def test_the_stop_button_ends_a_run_with_its_picture(cell, notebook, tmp_path):
    """It is pressed at an evaluation: the cell ends with KeyboardInterrupt, and the next one runs."""
    assert notebook.run("trained(1); command(1); before = state()")[1] == ""
    (tmp_path / "picture.png").unlink()
    pressed = tmp_path / "press"
    at_work = f"import pathlib, threading; threading.Timer(3, pathlib.Path({str(pressed)!r}).touch).start()"
    assert notebook.run(f"{at_work}\n{cell}", stop_when=pressed)[1] == "KeyboardInterrupt"
    assert (tmp_path / "picture.png").stat().st_size > 0
    assert notebook.run(COMPARE) == ("{}\n", "")
    assert notebook.run("trained(2)")[0].endswith("(1, 3, 24, 32)")


def test_the_bar_is_a_widget_where_a_notebook_has_them(notebook):
    pytest.importorskip("ipywidgets")
    said, error = notebook.run("trained(4, Progress())")
    assert error == ""
    assert "application/vnd.jupyter.widget-view+json" in said
    assert "eval/s" not in said  # no text beside it
    assert "evaluation 4 of 4" in notebook.run("command(4, '--log', 'lines')")[0]


@pytest.mark.skipif(importlib.util.find_spec("ipywidgets") is not None, reason="notebooks have widgets here")
def test_a_notebook_without_widgets_gets_lines(notebook):
    said, error = notebook.run("command(4)")
    assert error == ""
    assert "evaluation 4 of 4" in said
