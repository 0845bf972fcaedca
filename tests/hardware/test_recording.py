"""Evaluations and steps that a device replays: on a GPU that is played, whose graphs have the dangers of CUDA's."""

from __future__ import annotations

import contextlib
import gc
import itertools
import warnings
import weakref

import pretending
import pytest
import torch
from helpers import rand_image
from played import TERMS, fit
from pretending import pretended, recorded

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.features import VGG19
from nst_lightning.hardware import recording, rehearsal
from nst_lightning.hardware.recording import Repeated, recorder_for, suspended
from nst_lightning.losses import Content, Gram
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS


@pytest.fixture
def device(monkeypatch):
    """A device that records."""
    with pretended(monkeypatch, "cuda") as visit, recorded(monkeypatch, visit.device):
        yield visit


def run(device: str, terms, weights, count: int = 7, between=lambda *_: None, **options):
    """Losses and the image after some steps, and how often terms and optimiser were asked by the host."""
    network = VGG19(str(weights)).to(device)
    evaluate = Evaluator(Objective(terms), network)
    content, style = rand_image(32, 32).to(device), rand_image(32, 32, seed=1).to(device)
    evaluate.prepare(content, [(style, 1.0)])
    image = content.clone().requires_grad_()
    optimizer = LBFGS([image], **{"history_size": 6, "max_step": 0.02} | options)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = evaluate(image).loss
        loss.backward()
        return loss.detach()

    for index in range(count):
        between(index, evaluate, optimizer, image)
        losses.append(optimizer.step(closure))
    return torch.tensor([float(loss) for loss in losses]), image.detach().cpu(), evaluate, optimizer


@contextlib.contextmanager
def recorded_by(monkeypatch, record):
    """Record in another way, for a while."""
    with monkeypatch.context() as patch:
        patch.setitem(recording.RECORDERS, "cuda", lambda _: record)
        yield


def is_recorded(evaluate, optimizer) -> bool:
    assert evaluate._recorded.is_recorded == optimizer._steps.is_recorded
    return evaluate._recorded.is_recorded


def same_as_by_hand(monkeypatch, terms, weights, **how):
    """Run with recordings and without; losses and images have to agree."""
    losses, image, evaluate, optimizer = run("cuda", terms(), weights, **how)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        patch.setenv("NST_CUDA_GRAPHS", "0")
        plain, other, without, _ = run("cuda", terms(), weights, **how)
    assert without._recorded is None
    torch.testing.assert_close(losses, plain, rtol=1e-5, atol=0)
    torch.testing.assert_close(image, other, rtol=0, atol=1e-5)
    return evaluate, optimizer


@pytest.mark.parametrize(
    "terms",
    # The others are made of the same operations.
    [pytest.param(terms, id=name, marks=[] if name in {"painterly", "transport", "neighbour"} else pytest.mark.slow)
     for name, terms in TERMS.items()],
)  # fmt: skip
def test_what_is_replayed_is_what_the_host_computes(device, terms, tiny_weights, monkeypatch):
    assert is_recorded(*same_as_by_hand(monkeypatch, terms, tiny_weights))


@pytest.mark.parametrize(
    "options",
    [{"history_dtype": "bfloat16"}, {"spectral_exponent": 0.0}, {"rules": "torch", "lr": 0.02}, {"history_size": 20}],
    ids=str,
)
def test_every_kind_of_step_is_replayed(device, options, tiny_weights, monkeypatch):
    assert is_recorded(*same_as_by_hand(monkeypatch, default_terms, tiny_weights, **options))


def test_the_host_is_asked_three_times(device, tiny_weights, monkeypatch):
    calls = []
    measured = Gram.measure
    monkeypatch.setattr(Gram, "measure", lambda *given, **named: calls.append(1) or measured(*given, **named))
    run("cuda", [Gram(["relu1_1"])], tiny_weights, count=7)
    # A target for the balance, two by the host, one more beside the recording of the third, and the recording itself.
    before = len(calls)
    calls.clear()
    run("cuda", [Gram(["relu1_1"])], tiny_weights, count=11)  # the eighth replay is compared once more
    assert (before, len(calls)) == (before, before + 1)
    assert before < 7


def test_the_rate_is_read_anew_at_each_step(device, tiny_weights, monkeypatch):
    def slower(index, evaluate, optimizer, image):
        optimizer.param_groups[0]["lr"] = 0.9**index

    assert is_recorded(*same_as_by_hand(monkeypatch, default_terms, tiny_weights, between=slower))


def changed_strength(index, evaluate, optimizer, image):
    if index == 4:
        evaluate.objective.strength = 0.3


def changed_weight(index, evaluate, optimizer, image):
    if index == 4:
        evaluate.objective.parts[1].term.weight *= 2


def moved_image(index, evaluate, optimizer, image):
    if index == 4:
        image.data = image.data.clone()


def other_targets(index, evaluate, optimizer, image):
    if index == 4:
        evaluate.prepare(rand_image(32, 32, seed=5).to("cuda"), [(rand_image(32, 32, seed=6).to("cuda"), 1.0)])


def shifted_image(index, evaluate, optimizer, image):
    if index == 4:
        with torch.no_grad():
            image.add_(0.05)


def restored(index, evaluate, optimizer, image):
    if index == 4:
        optimizer.load_state_dict(optimizer.state_dict())


def other_network(index, evaluate, optimizer, image):
    if index == 4:
        for parameter in evaluate.extractor.parameters():
            parameter.data = 0.9 * parameter.data


@pytest.mark.parametrize(
    "between",
    [changed_strength, changed_weight, moved_image, other_targets, shifted_image, restored, other_network],
    ids=lambda function: function.__name__,
)
def test_what_callbacks_may_do_between_steps(device, between, tiny_weights, monkeypatch):
    evaluate, optimizer = same_as_by_hand(monkeypatch, default_terms, tiny_weights, between=between)
    assert evaluate._recorded.is_recorded
    assert optimizer._steps.is_recorded


def test_a_loss_that_is_no_number_is_undone_in_a_replay_too(device, tiny_weights, monkeypatch):
    seen = {}

    def spoiled(index, evaluate, optimizer, image):
        if index == 4:
            seen["image"] = image.detach().clone()
            with torch.no_grad():
                image[0, 0, 0, 0] = torch.nan
        if index == 6:
            seen["skipped"] = int(optimizer.state[image]["skipped"])

    losses, image, *found = run("cuda", default_terms(), tiny_weights, between=spoiled)
    assert seen["skipped"] == 1
    assert losses.isnan().sum() == 1
    assert image.isfinite().all()
    assert is_recorded(*found)


class Reading(Content):
    """A term that looks at a value."""

    def measure(self, *given, **named):
        measured = super().measure(*given, **named)
        return measured if float(measured.detach().sum()) > 0 else 0 * measured


class Counting(Content):
    """A term whose weight grows."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def measure(self, *given, **named):
        self.calls += 1
        return self.calls * super().measure(*given, **named)


class Drawing(Content):
    """A term that draws its weight on the host: the same one for some time, then another."""

    def __init__(self):
        super().__init__()
        self.weights = itertools.chain(itertools.repeat(1.0, 4), itertools.repeat(2.0))

    def measure(self, *given, **named):
        return next(self.weights) * super().measure(*given, **named)


SAYS = "are launched kernel by kernel and not as a CUDA graph, which takes longer and makes the same picture: "


@pytest.mark.parametrize(
    ("term", "why"),
    [
        (Reading, r"Reading.measure \(test_recording.py, line \d+\) waits for the device \(_local_scalar_dense\)"),
        (Counting, "counting.calls changes again and again"),
    ],
)
def test_what_cannot_be_recorded_goes_on_and_is_named(device, term, why, tiny_weights, monkeypatch):
    monkeypatch.setattr(rehearsal, "_LIBRARIES", (*rehearsal._LIBRARIES, pretending.__file__))
    with pytest.warns(UserNotice, match=f"^evaluations {SAYS}{why}$") as told:
        evaluate, optimizer = same_as_by_hand(monkeypatch, lambda: [term(), Gram()], tiny_weights, count=12)
    assert len(told) == 1
    assert not evaluate._recorded.is_recorded
    assert optimizer._steps.is_recorded  # its steps are still replayed


def test_what_the_host_draws_is_found_by_comparison(device, tiny_weights):
    with pytest.warns(UserNotice, match="^evaluations are launched .* the host computes another result: is a term ran"):
        evaluate = run("cuda", [Drawing(), Gram(["relu1_1"])], tiny_weights, count=11)[2]
    assert not evaluate._recorded.is_recorded


def test_recordings_can_be_left_out_for_a_while(device, tiny_weights, monkeypatch):
    launched, stack = [], contextlib.ExitStack()

    def between(index, evaluate, optimizer, image):
        launched.append(device.operators["convolution_backward"])
        device.forget()
        if index == 4:
            stack.enter_context(suspended())
        if index == 6:
            stack.close()

    found = run("cuda", default_terms(), tiny_weights, count=8, between=between)[2:]
    assert is_recorded(*found)
    layers = launched[1]
    # By the host; with an eye on what waits; beside the recording, and that; replayed; by the host; replayed.
    assert launched[1:] == [layers, layers, 2 * layers, 0, layers, layers, 0]
    with stack:
        same_as_by_hand(monkeypatch, default_terms, tiny_weights, between=between)


def test_a_recording_that_fails_leaves_all_as_it_was(device, tiny_weights, monkeypatch):
    def refuse(function):
        function()  # as much as there is to spoil
        raise RuntimeError("CUDA error: operation not permitted\nmore")

    says = "PyTorch says: CUDA error: operation not permitted$"
    with recorded_by(monkeypatch, refuse), pytest.warns(UserNotice, match=says) as told:
        same_as_by_hand(monkeypatch, default_terms, tiny_weights)
    assert sorted(str(one.message).split(" are ")[0] for one in told) == ["evaluations", "steps of L-BFGS"]


def by_nothing(function):
    """A recording on the stream of another device: all is computed at once, and a replay does nothing."""
    function()
    return lambda: None


def test_a_replay_that_does_nothing_is_refused(device, tiny_weights, monkeypatch):
    says = "what is replayed is not what the host computes$"
    with recorded_by(monkeypatch, by_nothing), pytest.warns(UserNotice, match=says) as told:
        evaluate, optimizer = same_as_by_hand(monkeypatch, default_terms, tiny_weights)
    assert sorted(str(one.message).split(" are ")[0] for one in told) == ["evaluations", "steps of L-BFGS"]
    assert not evaluate._recorded.is_recorded
    assert not optimizer._steps.is_recorded


def test_a_gradient_outlives_the_next_replay(device, tiny_weights):
    image, evaluate = run("cuda", default_terms(), tiny_weights)[1:3]
    first, second = (x.to("cuda").requires_grad_() for x in (image, image + 0.1))
    at_place = next(iter(evaluate._recorded._repeated._fixed.values()))
    leaf = first
    for _ in range(4):
        evaluate(leaf).loss.backward()
    assert evaluate._recorded.is_recorded
    assert at_place != next(iter(evaluate._recorded._repeated._fixed.values()))
    with torch.no_grad():
        leaf.grad = None
    one = evaluate(leaf)
    with torch.no_grad():
        leaf.copy_(second)
    other = evaluate(leaf)
    one.loss.backward()
    found, leaf.grad = leaf.grad.cpu(), None
    other.loss.backward()
    assert not torch.equal(found, leaf.grad.cpu())


def test_memory_that_runs_out_beside_a_replay_leaves_the_replay(device, tiny_weights):
    """Where there is no memory to compute beside what was recorded, nothing is compared, and nothing lost."""
    made, full = [], []

    def compute():
        if full:
            full.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")
        made.append(1)
        return [torch.ones(3, device="cuda")]

    repeated = Repeated(recording.RECORDERS["cuda"](device.device), "sums")
    for index in range(10):
        if index == 9:
            full.append(1)
        repeated({"x": 1}, compute)
    assert repeated.is_recorded
    assert torch.equal(repeated({"x": 1}, compute)[0].cpu(), torch.ones(3))
    assert not full
    assert repeated.is_recorded


def test_what_is_no_number_is_not_compared(device):
    values = torch.ones(3, device="cuda")
    repeated = Repeated(recording.RECORDERS["cuda"](device.device), "sums")
    for index in range(14):
        if index == 9:
            values.fill_(torch.nan)
        (result,) = repeated({"x": 1}, lambda: [2 * values])
    assert repeated.is_recorded
    assert result.isnan().all()


def test_large_pictures_are_not_recorded(device):
    place = device.device
    assert recorder_for(place, 3 * 1024 * 1024) is not None
    assert recorder_for(place, 3 * 2048 * 2048) is None


def test_memory_of_recordings_goes_where_a_stage_or_a_fit_ends(device, pair, tiny_weights, tmp_path):
    module = two_stages(tmp_path, pair, tiny_weights)[3]
    assert not module.evaluator._recorded.is_recorded
    assert not module.trainer.optimizers[0]._steps.is_recorded


class Stream:
    """A stream of CUDA, by name."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def cuda(monkeypatch):
    """What `CudaGraphs` asks of ``torch.cuda``: which stream is current, which memory recordings go to."""
    known = {"stream": Stream("default"), "pools": [], "cleared": 0, "ended": [], "refuse": None}

    class Graph:
        def replay(self) -> None:
            """Nothing."""

    @contextlib.contextmanager
    def record(graph, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        known["pools"].append(pool)
        before, known["stream"] = known["stream"], stream
        if known["refuse"] == "begin":
            raise RuntimeError("cannot begin")
        yield
        if known["refuse"] == "end":
            raise RuntimeError("capture failed")
        known["stream"] = before

    def clear():
        known["cleared"] += 1

    answers = {
        "Stream": lambda device: Stream(str(device)), "CUDAGraph": Graph, "graph": record,
        "graph_pool_handle": object, "current_stream": lambda device: known["stream"],
        "set_stream": lambda stream: known.update(stream=stream), "current_device": lambda: 1,
        "device": lambda device: contextlib.nullcontext(),
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", clear, raising=False)
    ended = known["ended"]
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *which: ended.append(which), raising=False)
    recording._cuda_graphs.cache_clear()
    yield known
    recording._cuda_graphs.cache_clear()


def test_cuda_graphs_share_memory_as_long_as_there_are_any(cuda):
    graphs = recorder_for(torch.device("cuda", 1), 1)
    seen = []
    one, other = (graphs(lambda: seen.append(cuda["stream"].name)) for _ in range(2))
    assert seen == ["cuda:1", "cuda:1"]
    assert cuda["stream"].name == "default"
    assert cuda["pools"][0] is cuda["pools"][1]
    assert cuda["cleared"] == 1
    del one, other
    gc.collect()
    graphs(lambda: None)
    assert cuda["pools"][2] is not cuda["pools"][0]
    assert cuda["cleared"] == 2
    assert recorder_for(torch.device("cuda", 0), 1) is not graphs


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_recording_that_fails_leaves_the_stream_and_is_the_last(cuda, where):
    place = torch.device("cuda", 1)
    graphs = recorder_for(place, 1)
    cuda["refuse"] = where
    with pytest.raises(RuntimeError, match=r"begin|failed"):
        graphs(lambda: None)
    assert cuda["stream"].name == "default"
    assert cuda["ended"] == [(1, cuda["pools"][0])]
    assert recorder_for(place, 1) is None


def test_what_an_operation_reads_is_kept_as_long_as_it_is_replayed():
    tables = {"one": torch.ones(3)}
    seen = weakref.ref(tables["one"].untyped_storage())

    def record(function):
        function()
        return lambda: result.fill_(1)

    x, result = torch.zeros(3), torch.zeros(3)
    repeated = Repeated(record, "sums")
    for _ in range(3):
        repeated({"x": 1}, lambda: [torch.add(x, tables["one"], out=result)])
    assert repeated.is_recorded
    storages = {tensor.untyped_storage().data_ptr() for tensor in repeated._kept}
    assert tables.pop("one").untyped_storage().data_ptr() in storages
    assert seen() is not None


@pytest.mark.parametrize("value", ["", "2", "off"])
def test_the_switch_is_0_or_1(monkeypatch, value):
    monkeypatch.setenv("NST_CUDA_GRAPHS", value)
    with pytest.raises(UserError, match=f"^NST_CUDA_GRAPHS: must be 0 or 1, got {value}; 0 launches"):
        recorder_for(torch.device("cpu"), 1)


def test_a_cpu_records_nothing():
    assert recorder_for(torch.device("cpu"), 1) is None


def two_stages(folder, pair, weights):
    """A fit of two stages with the callbacks of the command."""
    terms = [Content(weight=0.5), Gram(["relu1_1", "relu3_1"])]
    _, module = fit(folder, pair, weights, terms, 9, accelerator="cuda", last=12, size=64)
    rows = (next(folder.glob("**/metrics.csv"))).read_text(encoding="utf-8").splitlines()
    losses = [float(row.split(",")[2]) for row in rows[1:]]
    return module.image.detach().cpu(), losses, rows[0].split(","), module


def test_a_fit_is_the_same(device, pair, tiny_weights, tmp_path, monkeypatch):
    recordings = []
    made = recording.RECORDERS["cuda"]
    with recorded_by(monkeypatch, lambda function: recordings.append(1) or made(device.device)(function)):
        image, losses, names, _ = two_stages(tmp_path / "recorded", pair, tiny_weights)
        assert len(recordings) == 4  # an evaluation and a step, in two stages
        monkeypatch.setenv("NST_CUDA_GRAPHS", "0")
        plain, others, *_ = two_stages(tmp_path / "plain", pair, tiny_weights)
    assert len(recordings) == 4
    assert len(losses) == 21, names
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(others), rtol=1e-4, atol=0)
    torch.testing.assert_close(image, plain, rtol=0, atol=1e-3)
