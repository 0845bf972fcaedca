"""What an evaluation is said to hold, against what is allocated."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from nst_lightning.features import CompactVGG19
from nst_lightning.features.footprint import Step, footprint
from nst_lightning.losses import Content, Gram, Wasserstein
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective
from nst_lightning.planning.memory import _left

HEIGHT, WIDTH = 384, 512
SCRATCH = 20 * 2**20  # bytes of strips


def test_by_hand():
    """Two convolutions of two values a pixel, pooled in between: terms look at the second one."""
    steps = [Step(1.0, 2.0, looked_at=False, pooled=True), Step(0.5, 1.0, looked_at=True, pooled=False)]
    found = footprint(steps, 4)
    assert found.kept == 2.0 / 8 + 4.0  # codes, and the map that terms share
    # Codes, the map, its gradient, and what that hands on; with a tile's border the gradient is there twice.
    assert found.whole == 4.25 + 4.0 + 2.0
    assert found.part == 4.25 + 4.0 + 4.0
    held = footprint([steps[0], steps[1]._replace(held=1.0)], 4)
    assert held.kept - found.kept == 4.0


def prepared(terms, tile):
    """An evaluator of small pictures, and an image."""
    torch.manual_seed(0)
    evaluator = Evaluator(Objective(terms), CompactVGG19("narrow"), tile)
    content, style = torch.rand(1, 3, HEIGHT, WIDTH), torch.rand(1, 3, 96, 96)
    evaluator.prepare(content, [(style, 1.0)])
    return evaluator, torch.rand(1, 3, HEIGHT, WIDTH, requires_grad=True)


@pytest.mark.parametrize("style", [Wasserstein, Gram])
def test_what_is_kept_for_the_pass_back(style):
    """The bytes that automatic differentiation stores, each block once."""
    evaluator, image = prepared([Content(), style()], None)
    blocks = {}

    def pack(tensor):
        blocks[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        evaluation = evaluator(image)
    use = evaluator.extractor.memory(evaluator.objective.layers, _left(evaluator.objective))
    assert sum(blocks.values()) == pytest.approx(use.kept * HEIGHT * WIDTH, rel=0.03)
    assert evaluation.loss.isfinite()


def most_allocated(evaluator, image):
    """Bytes above those at the start, by the events of PyTorch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        evaluator(image).loss.backward()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_the_most_that_an_evaluation_of_the_whole_takes():
    evaluator, image = prepared([Content(), Wasserstein()], None)
    evaluator(image)  # filters are made
    use = evaluator.extractor.memory(evaluator.objective.layers, _left(evaluator.objective))
    said = use.pixel * HEIGHT * WIDTH
    assert 0.95 * said < most_allocated(evaluator, image) < said + SCRATCH


def test_the_most_that_an_evaluation_in_tiles_takes():
    evaluator, image = prepared([Content(), Wasserstein()], 256)
    evaluator(image)
    use = evaluator.extractor.memory(evaluator.objective.layers, _left(evaluator.objective))
    crop = (192 + 80) * (256 + 80)  # of four tiles, each with a border towards the others
    said = 24 * HEIGHT * WIDTH + use.part * crop
    assert 0.9 * said < most_allocated(evaluator, image) < said + SCRATCH


def test_a_network_that_is_rescaled_is_there_twice():
    plain, scaled = (CompactVGG19("narrow", unit_activations=unit) for unit in (False, True))
    once, twice = (network.memory(["relu1_1"]) for network in (plain, scaled))
    filters = twice.filters - once.filters
    assert filters > 4 * sum(layer.weight.numel() for layer in plain.convolutions)
    assert (once.kept, once.pixel, once.part) == (twice.kept, twice.pixel, twice.part)


@pytest.mark.parametrize("layers", [["relu2_1"], []])
def test_what_another_run_asked_of_a_network_is_not_held_here(layers):
    fresh, used = CompactVGG19("narrow"), CompactVGG19("narrow")
    used.use_layers(["relu5_1"])
    fresh.use_layers(layers)
    expected, found = fresh.memory(layers), used.memory(layers)
    assert (found.kept, found.pixel, found.part) == (expected.kept, expected.pixel, expected.part)
