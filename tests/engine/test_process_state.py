"""A fit leaves its process as it was, however it ends, and has meanwhile what makes it fast and exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import processstate
import pytest
from filelock import FileLock

from nst_lightning.hardware.memory import freed_memory_kept

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process of its own for each case is forked")

ENDS = {
    "a refusal": "nst_lightning.errors.UserError: trainer.gradient_clip_val: must be left out",
    "an error in setup": "RuntimeError: no",
    "an error at the start": "RuntimeError: no",
    "an error in the middle": "RuntimeError: no",
    "an error after an error": "ValueError: once more",
    "an error at the end": "RuntimeError: no",
    "Ctrl-C, Trainer": "SystemExit: 1",  # Lightning's doing, where no signal came
    "Ctrl-C, StyleTrainer": "KeyboardInterrupt",
    "SIGTERM": "SystemExit: 143",
    "a refusal, the command": "AssertionError: exit code 2",
}
CASES = [f"{name}, {kind}" for kind, names in processstate.KINDS.items() for name in names]


@pytest.fixture(scope="module")
def found(pair, tmp_path_factory):
    """What all fits have changed; where several processes share the tests, the first one finds it out for all."""
    together = tmp_path_factory.getbasetemp()
    together = together.parent if "PYTEST_XDIST_WORKER" in os.environ else together
    kept = together / "process_state.json"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_text(json.dumps(make_fits(pair, tmp_path_factory.mktemp("fits"))), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def make_fits(pair, folder):
    command = [sys.executable, processstate.__file__, *map(str, pair), str(folder)]
    ours = Path(processstate.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ours), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", ["import", *CASES])
def test_the_process_is_afterwards_as_it_was(case, found):
    if case == "an error after an error, Trainer":  # Lightning does not come to put its own handler away
        (handlers,) = found[case]["changed"].values()
        assert "_HandlersCompose" in handlers[1]
        return
    assert found[case]["changed"] == {}


@pytest.mark.parametrize("case", CASES)
def test_each_fit_ended_as_it_should(case, found):
    expected = ENDS.get(case) or ENDS.get(case.partition(",")[0], "finished")
    assert found[case]["end"].startswith(expected)


@pytest.mark.parametrize(("name", "mapped"), [("a success", False), ("tiles", True), ("an error in the middle", False)])
@pytest.mark.parametrize("kind", ["Trainer", "StyleTrainer"])
def test_freed_memory_is_kept_meanwhile(name, mapped, kind, found):
    """Blocks of 256 MiB are mapped where pictures are large or in tiles; the heap's end is never handed back."""
    if found["import"]["memory"]:
        assert literal_eval(found[f"{name}, {kind}"]["during"]["memory"]) == {"mapped": mapped, "handed back": False}


@pytest.mark.parametrize(
    ("case", "allowed"),
    [
        ("a success, Trainer", False),
        ("a success, StyleTrainer", False),
        ("TF32, StyleTrainer", True),
        ("a program with a precision, Trainer", True),  # as it has chosen for products
        ("a program with a precision, StyleTrainer", False),
    ],
)
def test_tf32_is_meanwhile_as_asked_for(case, allowed, found):
    during = found[case]["during"]
    precisions = literal_eval(during["precisions"])
    wanted = "tf32" if allowed else "ieee"
    assert {name: precisions[name] for name in ("CUDA's products", "cuDNN's convolutions")} == {
        "CUDA's products": wanted,
        "cuDNN's convolutions": wanted,
    }
    assert literal_eval(during["TF32"]) == [allowed, allowed]  # the older names say the same


def test_newer_names_of_precision_are_as_asked_for(found):
    precisions = literal_eval(found["a program with a precision by name, StyleTrainer"]["during"]["precisions"])
    assert (precisions["CUDA's products"], precisions["cuDNN's convolutions"]) == ("ieee", "ieee")


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_MMAP_MAX_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536")]
)
def test_what_the_environment_says_of_memory_holds(name, value, monkeypatch):
    before = processstate.heap()
    monkeypatch.setenv(name, value)
    with freed_memory_kept():
        assert processstate.heap() == before
    monkeypatch.delenv(name)
    with freed_memory_kept():
        assert not before or processstate.heap() == {"mapped": False, "handed back": False}
    assert processstate.heap() == before
