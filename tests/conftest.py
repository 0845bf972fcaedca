"""Small networks and pictures, so that most tests need neither weights nor time."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import pytest

from nst_lightning.process.rounding import round_alike
from nst_lightning.process.waiting import wait_briefly

if "PYTEST_XDIST_WORKER" in os.environ:  # processes beside each other, which threads of more would wait for
    os.environ.setdefault("OMP_NUM_THREADS", "1")
wait_briefly(others=1)  # before PyTorch is loaded, as the command does: tests start processes beside themselves
round_alike()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from nst_lightning.features.weights import CONVOLUTIONS, ENVIRONMENT_VARIABLE  # noqa: E402

WIDTHS = (4, 4, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16)


def random_vgg19_state(seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> dict[str, torch.Tensor]:
    """A VGG-19 of few channels under torchvision's names; He's scaling keeps activations alive down to relu5_4."""
    generator = torch.Generator().manual_seed(seed)
    state, channels = {}, 3
    for index, width in zip(CONVOLUTIONS, widths, strict=True):
        scale = (2 / (9 * channels)) ** 0.5
        state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) * scale
        state[f"features.{index}.bias"] = torch.randn(width, generator=generator) * 0.1
        channels = width
    return state


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what is loaded by now: each run ends with its work, a quarter of a small one's."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in each run of a test, whatever ran before it."""
    random.seed(20)
    np.random.seed(20)
    torch.manual_seed(20)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safetensors file with a random VGG-19 of few channels."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(random_vgg19_state(), path)
    return path


@pytest.fixture
def use_tiny_weights(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every extractor built without a path take the small random network."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tiny_weights))
    return tiny_weights


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_tiny_weights: Path) -> Path:
    """An empty working folder, the small random network, and one thread for each process that a test starts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Real VGG-19 weights, or a skip."""
    value = os.environ.get(ENVIRONMENT_VARIABLE)
    if not value or not Path(value).is_file():
        pytest.skip(f"needs real VGG-19 weights: set {ENVIRONMENT_VARIABLE}")
    return Path(value)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A content picture of 48x36 and a style picture of 40x40 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(1)
    paths = []
    for name, size in (("content", (36, 48)), ("style", (40, 40))):
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        pixels = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)[0]
        array = (pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        paths.append(folder / f"{name}.png")
        Image.fromarray(array).save(paths[-1])
    return paths[0], paths[1]
