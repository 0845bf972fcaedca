"""What a run does on the GPU of an Apple machine: which operators it wants, and when the host waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUIET, rand_image
from pretending import pretended

from nst_lightning import StyleTransfer, StyleTransferData, losses
from nst_lightning.callbacks import Faults, Metrics, Progress, Snapshots, Watch
from nst_lightning.config.presets import beside_package
from nst_lightning.data.schedule import Stage
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.features import VGG19
from nst_lightning.losses import (
    NNFM,
    Content,
    CosineContent,
    Grain,
    Gram,
    Histogram,
    NearestNeighbour,
    Palette,
    RelaxedEMD,
    SelfSimilarity,
    SlicedWasserstein,
    Term,
    TotalVariation,
)
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS


@pytest.fixture
def device(monkeypatch):
    """The device, and what happened on it."""
    with pretended(monkeypatch) as visit:
        yield visit


def painterly() -> list[Term]:
    """The terms of the preset, as its file has them."""
    text = (beside_package("configs") / "painterly.yaml").read_text(encoding="utf-8")
    terms = yaml.safe_load(text)["model"]["terms"]
    return [getattr(losses, term["class_path"].rpartition(".")[2])(**term["init_args"]) for term in terms]


def steps(device: str, terms: list[Term], weights: Path, tile: int | None = None, count: int = 3, visit=None):
    """Losses of some steps; what is noted is of all but the first: targets and the optimiser's tables may be read."""
    network = VGG19(str(weights)).to(device)
    evaluate = Evaluator(Objective(terms), network, tile)
    content, style = rand_image(48, 96).to(device), rand_image(40, 40, seed=1).to(device)
    evaluate.prepare(content, [(style, 1.0)])
    image = content.clone().requires_grad_()
    optimizer = LBFGS([image])

    def closure():
        optimizer.zero_grad()
        loss = evaluate(image).loss
        loss.backward()
        return loss.detach()

    losses = [optimizer.step(closure)]
    if visit is not None:
        visit.forget()
    losses += [optimizer.step(closure) for _ in range(count)]
    reads = {} if visit is None else dict(visit.reads)
    return [float(loss) for loss in losses], reads


TERMS = {
    "default": default_terms,
    "painterly": painterly,
    "histogram": lambda: [Content(), Histogram()],
    "nnfm": lambda: [NNFM()],
    "similarity": lambda: [SelfSimilarity(), CosineContent(), Gram()],
    "transport": lambda: [RelaxedEMD(), Palette(), Grain()],
    "neighbour": lambda: [NearestNeighbour()],
    "sliced": lambda: [SlicedWasserstein()],
    "gram and tv": lambda: [Gram(), TotalVariation()],
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_a_step_reads_nothing_and_wants_no_operator_that_is_not_there(device, terms, tiny_weights):
    losses, reads = steps("mps", terms(), tiny_weights, visit=device)
    assert reads == {}
    assert device.operators["convolution_backward"] > 3 * 5  # it was there that the network ran
    assert losses == pytest.approx(steps("cpu", terms(), tiny_weights)[0], rel=1e-3)


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


def fit(folder: Path, pair, weights: Path, terms: list[Term], evaluations: int, accelerator: str = "mps"):
    """Run as `nst fit` does, with callbacks that read."""
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=48)
    module = StyleTransfer(
        stages=[Stage(evaluations, scale=0.7), Stage(3)], terms=terms,
        extractor=VGG19(str(weights)),
    )  # fmt: skip
    callbacks = [Progress(), Metrics(), Faults(), Watch(), Snapshots(every=4)]
    trainer = StyleTrainer(
        **(QUIET | {"accelerator": accelerator, "enable_progress_bar": True}), precision="32-true",
        callbacks=callbacks, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return trainer, module


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
@both
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
