"""A picture in a notebook: shown as one, below a bar, without a warning, and nothing is changed."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nst_lightning import stylize

CELLS = [
    "import sys, warnings; sys.path.insert(0, {tests!r}); warnings.simplefilter('error')\n"
    "from processstate import state\nfrom nst_lightning import stylize\nimport nst_lightning.session",
    "before = state()\n"
    "result = stylize({content!r}, {style!r}, size=48, evaluations=4, precision='32-true', device='cpu')",
    "after = state()\nprint([name for name in before if before[name] != after[name]])",
    "result",
]


def test_a_notebook_run_by_nbclient(pair, place, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    words = {"tests": str(Path(__file__).parents[1]), "content": str(pair[0]), "style": str(pair[1])}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.format(**words)) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    _, made, compared, shown = (cell.outputs for cell in notebook.cells)
    (bar,) = made  # a widget, or lines on standard error without widgets
    assert "application/vnd.jupyter.widget-view+json" in bar.get("data", {}) or "4/4" in bar["text"]
    assert compared[0]["text"].strip() == "[]"
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0]["data"]["image/png"])))
    assert picture.size == (48, 36)
    expected = stylize(*pair, size=48, evaluations=4, precision="32-true", device="cpu")
    assert np.array_equal(np.asarray(picture), np.asarray(expected))
