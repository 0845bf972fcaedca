"""How `auto` becomes a choice, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import AcceleratorRegistry

import nst_lightning
from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.errors import UserError
from nst_lightning.features import CompactVGG19
from nst_lightning.hardware import numerics
from nst_lightning.hardware.accelerator import (
    Hardware,
    choose_accelerator,
    choose_precision,
    compute_dtype,
    count_devices,
    describe,
    first_device,
    name_device,
)
from nst_lightning.hardware.memory import hand_back_freed_memory, is_out_of_memory
from nst_lightning.hardware.numerics import one_thread, side_by_side, threads_kept

WITH = Hardware("cpu", "new", True, "the processor has AMX", 1)
WITHOUT = Hardware("cpu", "old", False, "the processor has neither", 1)
APPLE = Hardware("mps", "Apple", False, "not yet measured", 1)


@pytest.mark.parametrize(("machine", "precision"), [(WITH, "bf16-mixed"), (WITHOUT, "32-true")])
@pytest.mark.parametrize("requested", ["auto", None])
def test_auto_follows_the_hardware_and_says_why(machine, precision, requested):
    assert choose_precision(requested, machine) == (precision, machine.bfloat16_reason)


@pytest.mark.parametrize(
    ("requested", "precision"), [("32", "32-true"), (32, "32-true"), ("bf16", "bf16-mixed"), (64, "64-true")]
)
def test_lightnings_other_names(requested, precision):
    assert choose_precision(requested, WITHOUT).value == precision


@pytest.mark.parametrize("requested", ["16-true", "16-mixed", "16", 16, "bf16-true", "transformer-engine", "wide"])
def test_a_precision_that_cannot_work(requested):
    with pytest.raises(UserError, match=rf"trainer.precision: must be auto, .*got {requested} .*use auto"):
        choose_precision(requested, WITH)


def test_emulated_bfloat16_is_called_slow():
    assert "32-true is many times faster here: the processor has neither" in choose_precision("bf16", WITHOUT).reason
    assert choose_precision("bf16", WITH).reason == choose_precision("bf16", APPLE).reason == "asked for"


def test_mps_has_no_float64():
    with pytest.raises(UserError, match="float64, which MPS lacks"):
        choose_precision("64-true", APPLE)
    assert numerics.widest_dtype("mps") == torch.float32
    assert numerics.widest_dtype("cuda") == torch.float64


def test_compute_dtype():
    assert compute_dtype("bf16-mixed") == torch.bfloat16
    assert compute_dtype("32-true") == torch.float32
    assert compute_dtype("64-true") == torch.float64


@pytest.fixture
def machine(monkeypatch):
    """Let PyTorch find an accelerator of some kind."""

    def there(kind):
        found = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)

    return there


@pytest.mark.parametrize(
    ("found", "best"), [("cuda", "cuda"), ("mps", "mps"), (None, "cpu"), ("xpu", "xpu"), ("hpu", "cpu")]
)
def test_auto_takes_the_fastest_device_that_lightning_knows(machine, found, best):
    machine(found)
    assert choose_accelerator("auto").value == best
    assert best == "cpu" or choose_accelerator("gpu").value == best
    assert choose_accelerator("cpu").value == "cpu"


def test_a_kind_that_lightning_learns_is_taken(machine, monkeypatch):
    machine("hpu")
    monkeypatch.setitem(AcceleratorRegistry, "hpu", {})
    assert {choose_accelerator(name).value for name in ("auto", "gpu", "hpu")} == {"hpu"}


def test_a_device_that_is_not_there(machine):
    machine(None)
    for name in ("cuda", "mps", "xpu", "gpu"):
        with pytest.raises(UserError, match=f"trainer.accelerator: {name} is not available .* which has cpu"):
            choose_accelerator(name)
    with pytest.raises(
        UserError, match=r"^trainer.accelerator: must be auto, cpu, cuda, mps, xpu, got tpu; auto takes"
    ):
        choose_accelerator("tpu")


def test_a_device_has_a_number_where_there_may_be_several():
    given = [("cpu", ""), ("mps", ""), ("cuda", ""), ("cuda", "1"), ("xpu", "0")]
    assert [name_device(*one) for one in given] == ["cpu", "mps", "cuda:0", "cuda:1", "xpu:0"]


@pytest.mark.parametrize(
    ("accelerator", "devices", "count"),
    [("cpu", 1, 1), ("cpu", "auto", 1), ("cpu", 3, 3), ("cpu", "2", 2), ("cuda", [0, 2], 2), ("cuda", "0,1", 2)],
)
def test_how_many_processes_a_machine_needs(accelerator, devices, count):
    assert count_devices(accelerator, devices) == count


def test_all_of_several_devices(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    assert [count_devices(kind, devices) for kind in ("cuda", "cpu") for devices in ("auto", -1)] == [3, 3, 1, 1]


def test_the_processor_is_described():
    machine = describe("cpu")
    assert machine.accelerator == "cpu"
    assert str(torch.get_num_threads()) in machine.name
    assert 1 << 28 < machine.memory < 1 << 50
    assert machine.bfloat16_reason


def test_trainer_resolves_auto_and_keeps_the_reason():
    trainer = StyleTrainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert trainer.precision == choose_precision("auto", describe("cpu")).value
    assert trainer.precision_reason == describe("cpu").bfloat16_reason
    assert trainer.num_devices == 1


def test_several_devices_share_tiles_or_nothing():
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    assert type(StyleTrainer(devices=2, **quiet).strategy).__name__ == "SharedTiles"
    assert type(StyleTrainer(devices=1, **quiet).strategy).__name__ == "SingleDeviceStrategy"
    with pytest.raises(UserError, match=r"trainer.strategy: must be auto with 2 processes, got DDPStrategy"):
        StyleTrainer(devices=2, strategy="ddp", **quiet)


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_only_when_asked_for_and_only_while_it_runs(allowed, pair, tmp_path):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def flags():
        return matmul.allow_tf32, cudnn.allow_tf32, matmul.allow_bf16_reduced_precision_reduction

    class Look(Callback):
        def on_train_start(self, *_):
            self.seen = flags()

    before, look = flags(), Look()
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": -1}
    trainer = StyleTrainer(
        callbacks=[look], default_root_dir=tmp_path, **options, **({"tf32": True} if allowed else {})
    )
    assert flags() == before
    model = StyleTransfer(evaluations=1, extractor=CompactVGG19())
    trainer.fit(model, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=32))
    assert look.seen == (allowed, allowed, False)
    assert flags() == before


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_matrices_side_by_side_give_the_same_bits_for_any_number_of_threads(threads):
    matrices = [torch.rand(n, n, generator=torch.Generator().manual_seed(n)) for n in (5, 90, 40, 90, 1)]
    matrices = [matrix + matrix.T for matrix in matrices]
    function = lambda matrix: torch.linalg.eigh(matrix)[1] @ matrix  # noqa: E731
    with one_thread():
        expected = [function(matrix) for matrix in matrices]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = side_by_side(function, matrices)
        with one_thread():
            again = side_by_side(function, matrices)
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, other, more in zip(expected, found, again, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, more)


def test_threads_stay_until_the_last_one_who_needs_them_leaves():
    def running():
        return {thread for thread in threading.enumerate() if thread.name.startswith("side_by_side")}

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_kept():
            side_by_side(len, ["a", "bc"])
            first = running()
            with threads_kept():
                side_by_side(len, ["a", "bc"])
            assert set() != first <= running()
        assert running() == set()
        assert side_by_side(len, ["a", "bc"]) == [1, 2]
        assert running() == set()
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are started anew here")
def test_a_forked_process_solves_matrices_side_by_side_too():
    script = """
import os, torch
from nst_lightning.hardware.numerics import side_by_side, threads_kept
torch.set_num_threads(2)
kept = threads_kept()
kept.__enter__()
assert side_by_side(len, ["a", "bc"]) == [1, 2]
child = os.fork()
if child == 0:
    os._exit(0 if side_by_side(len, ["abc", "abcd"]) == [3, 4] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    # Python warns that a process with threads is forked, which is what is tried here.
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], check=True, timeout=120)


QUESTIONS = re.compile(
    r"torch\.(cuda|mps|xpu|accelerator|backends\.mps)\b|device\.type\b|\bis_available\(\)|"
    r"[!=]= *[\"'](cpu|cuda|mps|xpu)[\"']|[\"'](cpu|cuda|mps|xpu)[\"'] *[!=]="
)
NO_DEVICES = {"process/world.py": "torch.distributed.is_available()"}


def test_only_this_room_asks_what_kind_a_device_is():
    package, asking = Path(nst_lightning.__file__).parent, set()
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        text = path.read_text(encoding="utf-8").replace(NO_DEVICES.get(name, "\0"), "")
        if QUESTIONS.search(text) and not name.startswith("hardware/"):
            asking.add(name)
    assert not asking


def test_networks_and_losses_need_no_lightning():
    """It takes seconds and hundreds of megabytes."""
    rooms = ("features", "losses", "objective.evaluator", "optim", "images")
    names = ", ".join(f"nst_lightning.{room}" for room in rooms)
    code = f"import sys, {names}; print('lightning' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("devices", "name"), [(1, "cuda:0"), ("1", "cuda:0"), ("auto", "cuda:0"), ([1], "cuda:1"), ("1,", "cuda:1")]
)
def test_one_device_has_one_name(devices, name):
    assert first_device("cuda", devices) == name
    assert first_device("cpu", devices) == "cpu"


def test_the_processor_has_no_more_memory_either():
    """As PyTorch says it on this system, of an allocation that no machine has memory for."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 50)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("the size of a tensor must match"))


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuFFT error: CUFFT_ALLOC_FAILED",
    ],
)
def test_libraries_that_allocate_for_themselves_have_no_memory_either(said):
    assert is_out_of_memory(RuntimeError(said))


def test_memory_is_handed_back_where_pytorch_knows_no_accelerator(monkeypatch):
    """As PyTorch built for the processor alone: its own function for all accelerators is an error there."""

    def none():
        raise RuntimeError("Cannot access accelerator device when none is available.")

    monkeypatch.setattr(torch.accelerator, "empty_cache", none)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    hand_back_freed_memory()
