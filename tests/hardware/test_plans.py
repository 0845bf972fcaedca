"""What plans say that a run takes on a GPU with CUDA, against the bytes that its tensors hold there."""

from __future__ import annotations

import pytest
import torch
from helpers import QUIET, rand_image
from played import fit, painterly
from pretending import WORKSPACE, pretended

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.data.schedule import Stage
from nst_lightning.engine import stages
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.features import VGG19
from nst_lightning.hardware.memory import HEAP, bytes_there, free_memory, resident_memory, supply
from nst_lightning.objective import evaluator
from nst_lightning.objective.objective import default_terms

SIZE = 192


@pytest.fixture(scope="module")
def large_pair(tmp_path_factory):
    from torchvision.utils import save_image

    folder = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate(("content", "style")):
        save_image(rand_image(144, 192, seed=seed), folder / f"{name}.png")
    return folder / "content.png", folder / "style.png"


@pytest.mark.filterwarnings("ignore:the stage ends with loss")
@pytest.mark.parametrize(
    ("terms", "tile", "precision"),
    [
        (default_terms, None, "32-true"),
        (default_terms, None, "bf16-mixed"),
        (default_terms, 128, "32-true"),
        (painterly, None, "bf16-mixed"),
    ],
    ids=["whole", "bf16", "tiles", "painterly"],
)
def test_a_fit_takes_what_its_plan_says(monkeypatch, terms, tile, precision, large_pair, tiny_weights, tmp_path):
    with pretended(monkeypatch, "cuda") as device:
        data = StyleTransferData(str(large_pair[0]), str(large_pair[1]), size=SIZE)
        module = StyleTransfer(stages=[Stage(3)], terms=terms(), tile=tile, extractor=VGG19(str(tiny_weights)))
        trainer = StyleTrainer(**(QUIET | {"accelerator": "cuda"}), precision=precision, default_root_dir=tmp_path)
        trainer.fit(module, datamodule=data)
        said = module.planner.memory() - supply("cuda").working_space
    assert said == pytest.approx(device.live.peak, rel=0.1)


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_leaves_what_it_says(monkeypatch, pooling, dtype, tiny_weights):
    layers = ["relu1_1", "relu2_1", "conv3_2", "relu5_1"]
    with pretended(monkeypatch, "cuda") as device:
        network = VGG19(str(tiny_weights), pooling=pooling)
        network.use_layers(layers)
        network.set_compute_dtype(dtype)
        network.to("cuda")
        image = torch.rand(1, 3, 128, 128, device="cuda", requires_grad=True)
        network(image, layers)  # the filters' order is chosen
        before = device.live.now
        assert before == pytest.approx(network.memory(layers).accelerated.filters + 12 * 128**2, abs=512 * 40)
        found, use = [], network.memory(layers).accelerated
        for name, features in network.iterate(image, layers):
            found.append(features)
            if name.startswith("relu"):  # of another, what is rectified is another map
                assert device.live.now - before == pytest.approx(use.reached[name] * 128**2, rel=0.01)
        assert device.live.now - before == pytest.approx(use.kept * 128**2, rel=0.01)
        loss = sum(x.sum() for x in found)
        del features, found
        device.live.begin()
        loss.backward()
        assert device.live.peak - before == pytest.approx(use.pixel * 128**2, rel=0.15)


def test_what_the_device_has_left_and_what_lies_there(monkeypatch):
    with pretended(monkeypatch, "cuda") as device:
        assert supply("cuda").working_space > 2 * WORKSPACE
        free = free_memory("cuda")
        tensor = torch.zeros(1 << 18, device="cuda")
        assert resident_memory("cuda") == device.live.now == 1 << 20
        assert free - free_memory("cuda") == 1 << 20
        assert bytes_there([tensor, torch.zeros(9)], "cuda") == 1 << 20
        monkeypatch.setattr(torch.accelerator, "memory_reserved", lambda *_: 3 << 20)  # two of them wait for use
        assert free - free_memory("cuda") == -(1 << 20)
    assert supply("cpu") == HEAP
    assert bytes_there([torch.zeros(9)], "cpu") == 0


def test_memory_is_that_of_the_device_that_is_asked_for(monkeypatch):
    """The second of two, of which the first is full."""
    with pretended(monkeypatch, "cuda"):
        free = {None: 0, 0: 0, 1: 5 << 30}
        monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda place: (free[place.index], 8 << 30))
        assert free_memory("cuda:1") - free_memory("cuda:0") == 5 << 30


class Fails(torch.autograd.Function):
    """Runs out of memory on the way back."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, slope):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_smaller_tiles_are_made_when_what_failed_is_gone(monkeypatch, pair, tiny_weights, tmp_path, where):
    """Else they would have no more room than that had."""
    with pretended(monkeypatch, "cuda") as device:
        held, whole = [], evaluator.evaluate_whole

        def fails(comparison, image):
            held.append(device.live.now)
            evaluation = whole(comparison, image)
            held.append(device.live.now)
            if where == "forward":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return evaluation._replace(loss=Fails.apply(evaluation.loss))

        monkeypatch.setattr(evaluator, "evaluate_whole", fails)
        monkeypatch.setattr(stages, "notice", lambda _: held.append(device.live.now))
        # Stages of 420 and 600 px, which fit whole as far as is known.
        fit(tmp_path, pair, tiny_weights, default_terms(), 2, accelerator="cuda", last=1, size=600)
    before, full, after = held[:3]
    assert full - before > 1 << 20
    assert after - before < 0.1 * (full - before)
