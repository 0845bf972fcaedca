"""What a run does on the GPU of an Apple machine: which operators it wants, and when the host waits for it."""

from __future__ import annotations

import pytest
import torch
from played import TERMS, fit, painterly, steps
from pretending import pretended

from nst_lightning.losses import Content, Histogram
from nst_lightning.losses.projection import projection_of
from nst_lightning.objective.objective import default_terms


@pytest.fixture
def device(monkeypatch):
    """The device, and what happened on it."""
    with pretended(monkeypatch) as visit:
        yield visit


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_a_step_reads_nothing_and_wants_no_operator_that_is_not_there(device, terms, tiny_weights):
    losses, reads = steps("mps", terms(), tiny_weights, visit=device)
    assert reads == {}
    assert device.operators["convolution_backward"] > 3 * 5  # it was there that the network ran
    assert losses == pytest.approx(steps("cpu", terms(), tiny_weights)[0], rel=1e-3)


def test_what_terms_need_of_a_narrower_network_is_made_on_the_host(device):
    """Moments of its maps in double precision, which the device has not, nor makes on the way to the host."""
    matrix = torch.rand(6, 3)
    there, here = projection_of(matrix.to("mps")), projection_of(matrix)
    torch.testing.assert_close(there.moments.cpu(), here.moments)
    assert there.matrix.device.type == there.moments.device.type == "mps"
    with pytest.raises(TypeError, match=r"Cannot convert a MPS Tensor to torch\.float64"):
        matrix.to("mps").to("cpu", torch.float64)


@pytest.mark.parametrize("terms", [default_terms, lambda: [Content(), Histogram()]], ids=["default", "histogram"])
def test_tiles_are_summed_up_in_double_precision_which_the_device_has_not(device, terms, tiny_weights):
    losses, reads = steps("mps", terms(), tiny_weights, tile=64, visit=device)
    assert set(reads) == {"copy to the host at losses/reference.py: add"}
    assert losses == pytest.approx(steps("cpu", terms(), tiny_weights, tile=64)[0], rel=1e-3)


# What reads on purpose: at the start of a stage and at its end, at times of a clock or a count, and when all is over.
AT_TIMES = {
    "losses/reference.py: add": "targets, summed in double precision",
    "optim/metric.py: __init__": "the optimiser's table of frequencies",
    "lightning/pytorch/utilities/data.py: has_len_all_ranks": "how many steps a stage has",
    "optim/hessian.py: measured": "what one stage tells the next",
    "callbacks/faults.py: _look": "every 25 evaluations, and at the end of a stage",
    "engine/ledger.py: losses": "losses, many at a time",
    "engine/image.py: _finished": "snapshots",
    "lightning/fabric/utilities/device_dtype_mixin.py: cpu": "the module, which is handed back on the CPU",
    "lightning/fabric/utilities/apply_func.py: batch_to": "the optimiser's state, the same",
}


both = pytest.mark.parametrize(
    "terms", [pytest.param(default_terms, id="default"), pytest.param(painterly, id="painterly")]
)
astray = pytest.mark.filterwarnings("ignore:the stage ends with loss")  # as it does on a CPU, with so few cells


@astray
@both
def test_a_fit_runs_there_and_reads_where_it_means_to(monkeypatch, terms, pair, tiny_weights, tmp_path):
    with pretended(monkeypatch) as device:
        trainer, module = fit(tmp_path, pair, tiny_weights, terms(), 3)
    assert trainer.strategy.root_device == torch.device("mps", 0)
    assert device.operators["convolution_backward"] > 9 * 5
    places = {text.split(" at ")[1] for text in device.reads}
    axes = {
        place for place in places - set(AT_TIMES) if place.startswith("losses/")
    }  # once a stage, says the next test
    assert places - (axes if terms is painterly else set()) == set(AT_TIMES)
    # Few evaluations: with so few cells each makes a difference of roots some five times as large.
    plain = fit(tmp_path / "cpu", pair, tiny_weights, terms(), 3, accelerator="cpu")[1]
    torch.testing.assert_close(module.image.detach(), plain.image.detach(), rtol=0, atol=0.005)


@astray
@pytest.mark.parametrize(
    "terms",
    [pytest.param(default_terms, id="default"), pytest.param(painterly, id="painterly", marks=pytest.mark.slow)],
)
def test_more_evaluations_mean_no_more_reads(device, terms, pair, tiny_weights, tmp_path):
    counts = []
    for evaluations in (5, 8):
        device.forget()
        fit(tmp_path / str(evaluations), pair, tiny_weights, terms(), evaluations)
        by_a_clock = "tolist at engine/ledger.py: losses", "copy to the host at engine/image.py: _finished"
        counts.append({place: n for place, n in device.reads.items() if place not in by_a_clock})
    assert counts[0] == counts[1]


def test_the_double_refuses_what_the_device_refuses(device):
    matrix = torch.rand(3, 3, device="mps")
    with pytest.raises(NotImplementedError, match="_linalg_eigh' is not currently implemented for the MPS device"):
        torch.linalg.eigvalsh(matrix)
    with pytest.raises(NotImplementedError, match="aten::linalg_eig'"):
        torch.linalg.eig(matrix)
    with pytest.raises(TypeError, match="float64"):
        matrix.double()
    with pytest.raises(TypeError, match="complex128"):
        torch.zeros(2, dtype=torch.complex128, device="mps")
    with pytest.raises(RuntimeError, match="same device"):
        matrix + torch.rand(3, 3)
    with pytest.raises(TypeError, match="to numpy"):
        matrix.numpy()
    assert (matrix + torch.tensor(1.0)).device == torch.device("mps", 0)  # a scalar may come from anywhere
    assert not device.reads


def test_the_double_notes_what_the_host_waits_for(device):
    values = torch.rand(3, device="mps")
    asked = {
        "_local_scalar_dense": lambda: float(values.sum()),
        "copy to the host": values.cpu,
        "tolist": values.tolist,
        "nonzero": values.nonzero,
        "index.Tensor": lambda: values[values > 0.5],
        "masked_select": lambda: values.masked_select(values > 0.5),
        "equal": lambda: torch.equal(values, values),
        "copy_": lambda: torch.zeros(3).copy_(values),
    }
    for name, ask in asked.items():
        device.forget()
        ask()
        assert dict(device.reads) == {f"{name} at elsewhere": 1}, name
