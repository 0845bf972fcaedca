"""What a run does on a GPU with CUDA: when the host waits for it, to read from it or to bring something there."""

from __future__ import annotations

import pytest
import torch
from helpers import rand
from played import TERMS, fit, painterly, steps
from pretending import pretended
from torch.nn.functional import max_pool2d

from nst_lightning.features.kernels.pooling import max_pool
from nst_lightning.losses.reference import Window
from nst_lightning.losses.sampling import Places, gathered
from nst_lightning.objective.objective import default_terms


@pytest.fixture
def device(monkeypatch):
    """The device, and what happened on it."""
    with pretended(monkeypatch, "cuda") as visit:
        yield visit


# The others read and send nothing on MPS, says `test_mps`, and are made of the same operations.
QUICK = {"painterly", "transport", "histogram"}
SOME = [pytest.param(terms, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, terms in TERMS.items()]
astray = pytest.mark.filterwarnings("ignore:the stage ends with loss")  # as it does on a CPU, with so few cells
both = pytest.mark.parametrize("terms", [default_terms, painterly], ids=["default", "painterly"])


@pytest.mark.parametrize("terms", SOME)
@pytest.mark.parametrize("tile", [None, 64], ids=["whole", "tiles"])
def test_a_step_neither_reads_nor_sends(device, terms, tile, tiny_weights):
    if tile and any(term.needs_whole for term in terms()):
        pytest.skip("a term needs the whole")
    losses, reads = steps("cuda", terms(), tiny_weights, tile, visit=device)
    assert reads == {}
    assert dict(device.sends) == {}
    assert losses == pytest.approx(steps("cpu", terms(), tiny_weights, tile)[0], rel=1e-3)


@astray
@both
def test_more_evaluations_mean_no_more_sends_and_reads(device, terms, pair, tiny_weights, tmp_path):
    counts = []
    for evaluations in (5, 8):
        device.forget()
        fit(tmp_path / str(evaluations), pair, tiny_weights, terms(), evaluations, accelerator="cuda")
        by_a_clock = "tolist at engine/ledger.py: losses", "copy to the host at engine/image.py: _finished"
        reads = {place: n for place, n in device.reads.items() if place not in by_a_clock}
        counts.append((reads, dict(device.sends)))
    assert counts[0] == counts[1]
    assert counts[0][1]


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9), (7, 9)], ids=str)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_gradient_of_pooling_is_written_whole(device, size, order):
    """CUDA's kernel takes what it writes to for contiguous, as a part of a map with an odd side is not."""
    values = rand(1, 5, *size).contiguous(memory_format=order)
    slope = rand(1, 5, size[0] // 2, size[1] // 2, seed=1)
    there, here = values.to("cuda").requires_grad_(), values.clone().requires_grad_()
    max_pool(there).backward(slope.to("cuda"))
    max_pool2d(here, 2).backward(slope)
    assert torch.equal(there.grad.cpu(), here.grad)


def test_the_double_notes_what_is_brought_to_the_device(device):
    values, there = torch.rand(3, device="cuda"), torch.ones(3, device="cuda", dtype=torch.bool)
    asked = {
        "move": lambda: torch.rand(3).to("cuda"),
        "_to_copy": lambda: torch.tensor([1.0], device="cuda"),
        "new_tensor": lambda: values.new_tensor([1.0]),
        "index.Tensor": lambda: values[[0, 2]],
        "copy_": lambda: values.copy_(torch.rand(3)),
        "where.self": lambda: torch.where(there, values, torch.tensor(0.0)),
    }
    for name, ask in asked.items():
        device.forget()
        ask()
        assert dict(device.sends) == {f"{name} at elsewhere": 1}, name
    device.forget()
    for ask in (
        lambda: values * torch.tensor(2.0),
        lambda: values + 1,
        lambda: torch.where(there, values, 0),
        lambda: torch.zeros(3, device="cuda"),
        lambda: values[1:],
        lambda: values.fill_(1),
    ):
        ask()
    assert not device.sends
    assert not device.reads


def test_sampled_places_are_found_once_for_each_window():
    """What is kept of them is what was computed each time before."""
    maps = torch.rand(1, 3, 9, 7)
    places = Places.of(Window(slice(0, 9), slice(0, 7), 9, 7), 12, torch.zeros(()))
    window = Window(slice(2, 6), slice(1, 7), 9, 7)
    part = maps[:, :, 2:6, 1:7]
    lying = list(zip(places.rows.tolist(), places.columns.tolist(), strict=True))
    expected = torch.stack([maps[0, :, r, c] * (2 <= r < 6 and 1 <= c < 7) for r, c in lying])
    for _ in range(2):
        assert torch.equal(gathered(part, window, places), expected)
    whole = gathered(maps, Window.whole(maps), places)
    assert torch.equal(whole, torch.stack([maps[0, :, r, c] for r, c in lying]))


def test_the_double_counts_bytes_that_tensors_hold(device):
    live = device.live
    before = live.now
    image = torch.zeros(1000, device="cuda")
    assert live.now - before == 4096  # 4000, rounded up to 512
    part = image[10:]
    del image
    assert live.now - before == 4096  # somebody still looks at it
    del part
    assert live.now == before
    live.begin()
    one = torch.rand(128, 128, device="cuda", requires_grad=True)
    loss = (one * one).relu().sum()  # the product is gone once it is rectified; that is kept for the way back
    assert live.now - before == 2 * 65536 + 512
    assert live.peak - before == 3 * 65536
    loss.backward()
    assert one.grad is not None
    del loss
    assert live.now - before == 2 * 65536
