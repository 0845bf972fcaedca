"""Intel's GPUs, which Lightning does not know, and AMD's, which PyTorch calls CUDA."""

from __future__ import annotations

import pytest
import torch
from helpers import QUIET
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy
from pretending import MEMORY, pretended

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.cli.words import DEVICES
from nst_lightning.config.presets import beside_package
from nst_lightning.engine.trainer import SharedTiles, StyleTrainer
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.hardware import accelerator, inventory, memory, numerics
from nst_lightning.hardware.accelerator import Hardware, choose_precision
from nst_lightning.hardware.numerics import widest_dtype
from nst_lightning.hardware.xpu import XPUAccelerator, register


def test_it_is_registered_once_and_gives_way_to_one_of_lightnings():
    register()
    assert isinstance(AcceleratorRegistry.get("xpu"), XPUAccelerator)
    ours, theirs = AcceleratorRegistry["xpu"], {"accelerator": object}
    AcceleratorRegistry["xpu"] = theirs
    try:
        register()
        assert AcceleratorRegistry["xpu"] is theirs
    finally:
        AcceleratorRegistry["xpu"] = ours


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (1, [0]),
        (2, [0, 1]),
        (-1, [0, 1, 2]),
        ("-1", [0, 1, 2]),
        ("2", [0, 1]),
        ([2], [2]),
        ("0,2", [0, 2]),
        ("1,", [1]),
    ],
)
def test_devices_are_counted(monkeypatch, asked, found):
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 3)
    assert XPUAccelerator.parse_devices(asked) == found
    assert XPUAccelerator.auto_device_count() == 3
    assert XPUAccelerator.get_parallel_devices(found) == [torch.device("xpu", index) for index in found]


@pytest.mark.parametrize("asked", [4, [3], "0,5", "some", 0, []])
def test_devices_that_are_not_there(monkeypatch, asked):
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 3)
    with pytest.raises(UserError, match=r"^trainer.devices: must be a number up to 3 or a list of numbers below, got"):
        XPUAccelerator.parse_devices(asked)


def test_another_kind_of_device_is_no_xpu():
    assert not XPUAccelerator.is_available()
    with pytest.raises(ValueError, match="must be an xpu, got cpu"):
        XPUAccelerator().setup_device(torch.device("cpu"))


def test_what_it_offers(monkeypatch):
    with pretended(monkeypatch, "xpu"):
        assert accelerator.choose_accelerator("auto").value == "xpu"
        (facts,) = inventory.devices("xpu")
        assert inventory.in_words(facts) == (
            "xpu:0: Played GPU; 8.0 GiB, of which 8.0 GiB free; bf16-mixed (the device has bfloat16)"
        )
        assert memory.free_memory("xpu") == MEMORY
        assert memory.resident_memory("xpu") == 0
        assert XPUAccelerator().get_device_stats("xpu")
        states = numerics.random_states(torch.device("xpu", 0))
        assert set(states) == {"cpu", "xpu"}
        numerics.set_random_states(states, torch.device("xpu", 0))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "auto", "64-true"])
def test_a_fit_runs_there(monkeypatch, precision, pair, tiny_weights, tmp_path):
    with pretended(monkeypatch, "xpu") as device:
        data = StyleTransferData(str(pair[0]), str(pair[1]), size=48)
        module = StyleTransfer(evaluations=3, extractor=VGG19(str(tiny_weights)))
        trainer = StyleTrainer(**(QUIET | {"accelerator": "xpu"}), precision=precision, default_root_dir=tmp_path)
        trainer.fit(module, datamodule=data)
    assert trainer.strategy.root_device == torch.device("xpu", 0)
    assert str(trainer.precision) == ("bf16-mixed" if precision == "auto" else precision)
    assert device.operators["convolution_backward"] > 3 * 5
    assert not [text for text in device.reads if "optim/lbfgs.py" in text or "engine/module.py" in text]


def test_several_share_tiles_and_a_strategy_of_ones_own_stays(monkeypatch):
    monkeypatch.setattr(accelerator, "available", lambda: ["xpu", "cpu"])
    monkeypatch.setattr("nst_lightning.engine.trainer.describe", lambda kind: accelerator.describe("cpu"))
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 2)
    quiet = QUIET | {"accelerator": "xpu", "precision": "32-true"}
    register()
    assert type(StyleTrainer(devices=2, **quiet).strategy) is SharedTiles
    assert StyleTrainer(devices=[1], **quiet).strategy.root_device == torch.device("xpu", 1)
    own = SingleDeviceStrategy(torch.device("xpu", 0))
    assert StyleTrainer(devices=1, strategy=own, **quiet).strategy is own


def test_the_words_that_a_shell_completes_are_the_kinds_of_devices():
    assert accelerator.Accelerator.__args__ == DEVICES
    for name in DEVICES:
        assert (beside_package("configs") / "hardware" / f"{name}.yaml").is_file()


def test_rocm_calls_its_devices_cuda(monkeypatch):
    """PyTorch's build for AMD has `torch.version.hip`, no `torch.version.cuda`, and the same names."""
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "7.1.0")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda *_: (40 << 30, 192 << 30))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "AMD Instinct MI300X")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert inventory.gpu_support() == "ROCm 7.1.0"
    assert accelerator.choose_accelerator("gpu").value == "cuda"
    (facts,) = inventory.devices("cuda")
    assert inventory.in_words(facts) == (
        "cuda:0: AMD Instinct MI300X; 192.0 GiB, of which 40.0 GiB free; bf16-mixed (the device has bfloat16)"
    )
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    for allowed in (True, False):
        with numerics.tf32_allowed(allowed):
            assert torch.backends.cuda.matmul.fp32_precision == ("tf32" if allowed else "ieee")
    assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision) == before


def test_a_product_of_halves_in_float32_is_tried_and_not_believed_in(monkeypatch):
    """A release for AMD or Intel may have none."""
    ask = accelerator.sums_halves_exactly.__wrapped__
    with pretended(monkeypatch, "xpu"):
        assert not ask(torch.device("xpu", 0))  # the CPU that plays it has none
    assert not ask("cpu")


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_may_have_no_float64(monkeypatch, has):
    with pretended(monkeypatch, "xpu", has_float64=has):
        assert widest_dtype("xpu") == (torch.float64 if has else torch.float32)
        hardware = Hardware("xpu", "Arc A770", True, "", 1 << 34)
        if has:
            assert choose_precision("64-true", hardware).value == "64-true"
        else:
            with pytest.raises(UserError, match="64-true needs float64, which Arc A770 lacks; use 32-true or"):
                choose_precision("64-true", hardware)
