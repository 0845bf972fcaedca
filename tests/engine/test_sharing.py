"""Terms and networks belong to the user: a run leaves them as they were, and several runs may have them at once."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import QUIET
from lightning.pytorch import Trainer

from nst_lightning import Stage, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Snapshots
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.losses import (
    NNFM,
    Content,
    Covariance,
    Grain,
    Gram,
    Histogram,
    MeanStd,
    NearestNeighbour,
    Palette,
    RelaxedEMD,
    SelfSimilarity,
    SlicedWasserstein,
    TotalVariation,
    Wasserstein,
)

LAYERS = ["relu1_1", "relu3_1"]
KINDS = [
    Content,
    SelfSimilarity,
    Gram,
    Covariance,
    MeanStd,
    Wasserstein,
    RelaxedEMD,
    Histogram,
    NNFM,
    NearestNeighbour,
    SlicedWasserstein,
    Grain,
    Palette,
    TotalVariation,
]


def terms():
    return [kind() if kind in {Grain, Palette, TotalVariation} else kind(LAYERS) for kind in KINDS]


def fit(content, style, folder, *callbacks, ckpt_path=None, size=48, **options):
    module = StyleTransfer(**options)
    trainer = Trainer(**QUIET, default_root_dir=folder, callbacks=list(callbacks))
    trainer.fit(module, datamodule=StyleTransferData(str(content), str(style), size=size), ckpt_path=ckpt_path)
    return module


def state_of(thing):
    """All attributes of a module, tensors as lists."""
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in vars(thing).items()
    }


def test_a_run_writes_nothing_to_terms(tiny_weights, pair, tmp_path):
    mine = [*terms(), Gram(["relu2_1"])]  # a second one of a kind, which columns tell apart
    before = [state_of(term) for term in mine]
    fit(*pair, tmp_path, evaluations=2, terms=mine, strength=0.5, extractor=VGG19(str(tiny_weights)))
    assert [state_of(term) for term in mine] == before


@pytest.mark.parametrize("tile", [None, 64])
def test_two_threads_share_terms_and_a_network(pair, tmp_path, tile):
    """Of other pictures and sizes; the results are those of runs of their own."""
    network = CompactVGG19("narrow")
    kinds = [Content(weight=0.5), Gram(), Wasserstein(["relu3_1"]), *([] if tile else [Histogram(LAYERS)])]
    runs = [(pair, 64), (pair[::-1], 96)]

    def run(which, network, kinds, name):
        pictures, size = runs[which]
        options = {"terms": kinds, "extractor": network, "tile": tile, "evaluations": 3}
        return fit(*pictures, tmp_path / name, size=size, **options).picture()

    alone = [run(i, CompactVGG19("narrow"), copy.deepcopy(kinds), f"alone{i}") for i in (0, 1)]
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda i: run(i, network, kinds, f"together{i}"), (0, 1)))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=2e-3)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", [VGG19, CompactVGG19])
def test_a_run_neither_cuts_nor_scales_a_network(kind, tiny_weights, pair, tmp_path):
    weights = str(tiny_weights) if kind is VGG19 else "narrow"
    network, untouched = kind(weights, unit_activations=True), kind(weights, unit_activations=True)
    fit(*pair, tmp_path, evaluations=2, terms=[Content(["relu2_1"]), Gram(["relu1_1"])], extractor=network)
    picture = torch.rand(1, 3, 48, 40)
    layers = list(kind.strides)
    for each in (network, untouched):  # algorithms, and with them the last bits, go by the deepest layer so far
        each(picture, layers[-1:])
    for layer in layers:
        assert torch.equal(network(picture, [layer])[layer], untouched(picture, [layer])[layer]), layer
        ours, theirs = network.projection(layer), untouched.projection(layer)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_the_second_stage_goes_on_with_the_scale_of_the_first(tiny_weights, pair, tmp_path):
    stages = [Stage(2, 0.5), Stage(3)]

    def options():
        return {"stages": stages, "extractor": VGG19(str(tiny_weights), unit_activations=True)}

    whole = fit(*pair, tmp_path, Snapshots(1, checkpoint=True), **options())
    for step in (1, 3, 4):
        checkpoint = str(tmp_path / "snapshots" / f"{step:06d}.ckpt")
        resumed = fit(*pair, tmp_path / str(step), ckpt_path=checkpoint, **options())
        assert torch.equal(resumed.image, whole.image), step
