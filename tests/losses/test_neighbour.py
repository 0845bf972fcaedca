"""Features chosen where a stage starts: values by hand and by loops, gradients, tiles, regions, turns, and resuming."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from helpers import QUIET, rand, rand_image
from lightning.pytorch import Trainer
from terms import Alone

from nst_lightning import Stage, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Checkpoints
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.losses import NNFM, Content, Gram, NearestNeighbour
from nst_lightning.losses.projection import projection_of
from nst_lightning.losses.reference import Window
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.objective import Objective
from nst_lightning.planning.memory import make_plan

LAYER = "relu1_1"


def features(channels=4, height=5, width=6, seed=0):
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed)).double()


def cells_at(*rows):
    """A map of one row, a cell each."""
    return torch.tensor(rows).double().T[None, :, None]


def double(weights):
    network = VGG19(str(weights)).double()
    network.set_compute_dtype(torch.float64)
    return network


def test_by_hand():
    """Less their means the style's cells point left and right, and so do the start's: it chooses crosswise. By their
    own directions, which are the axes, the image's cells are at 0 and 45 degrees from the chosen ones."""
    style, start = cells_at((4, 0), (0, 4)), cells_at((1, 2), (2, 1))
    term = Alone(NearestNeighbour([LAYER]), start, [(style, 1.0)])
    assert term.target.features[0, :, 0].T.round(decimals=4).tolist() == [[0, 1], [1, 0]]
    at_content = 1 - 2 / 5**0.5
    assert float(term.target.scale) == pytest.approx(at_content, rel=1e-4)
    value = float(term.value(cells_at((0, 7), (3, 3))))
    assert value == pytest.approx((0 + 1 - 0.5**0.5) / 2 / at_content, rel=1e-4)


def test_is_that_of_a_loop():
    content, start, image, style, other = (features(seed=seed) for seed in range(5))
    styles = [(style, 0.3), (other[..., :3, :], 0.7)]

    def cells(maps):
        return maps[0].flatten(1).T.numpy()

    def cosine(p, q):
        return p @ q / np.linalg.norm(p) / np.linalg.norm(q)

    def distance(maps, at):
        total = 0.0
        for style, share in styles:
            those, here = cells(style), cells(at)
            for own, now in zip(here - here.mean(0), cells(maps), strict=True):
                best = max(range(len(those)), key=lambda i: cosine(own, those[i] - those.mean(0)))
                total += share * (1 - cosine(now, those[best])) / len(here)
        return total

    term = Alone(NearestNeighbour([LAYER]), content, styles, start=start)
    assert float(term.value(image)) == pytest.approx(distance(image, start) / distance(content, content), rel=1e-4)
    assert float(Alone(NearestNeighbour([LAYER]), content, styles).value(content)) == pytest.approx(1)


def test_a_weight_is_how_often_a_cell_counts():
    content, image, style = (features(seed=seed) for seed in range(3))
    weights = rand(1, 1, 5, 6, seed=4) + 0.6  # all cells lie in the sample
    found = Alone(NearestNeighbour([LAYER]), content, [(style, 1.0)], weights=weights)
    there, unit = found.target.features, image / image.norm(dim=1, keepdim=True)
    expected = (weights * (1 - (unit * there).sum(1, keepdim=True))).sum() / weights.sum() / found.target.scale
    torch.testing.assert_close(found.value(image), expected, rtol=1e-5, atol=0)


def test_the_choice_stays_where_the_image_moves():
    content, style = features(8, 9, 9, seed=1), features(8, 9, 9, seed=2)
    fixed, follows = (Alone(kind([LAYER]), content, [(style, 1.0)]) for kind in (NearestNeighbour, NNFM))
    assert float(follows.value(style.flip(-1))) < 1e-4
    assert float(fixed.value(style.flip(-1))) > 0.5
    assert float(fixed.value(fixed.target.features)) == pytest.approx(0, abs=1e-4)


def test_distances_through_a_projection_are_those_of_the_full_features():
    maps, matrix = [features(3, seed=seed) for seed in range(3)], rand(7, 3, seed=4)
    full = [torch.einsum("oc,bchw->bohw", matrix, each) for each in maps]
    narrow = Alone(NearestNeighbour([LAYER]), maps[0], [(maps[1], 1.0)], projection=projection_of(matrix))
    wide = Alone(NearestNeighbour([LAYER]), full[0], [(full[1], 1.0)])
    torch.testing.assert_close(narrow.value(maps[2]), wide.value(full[2]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("projected", [False, True])
def test_gradients(weighted, projected, monkeypatch):
    monkeypatch.setattr("nst_lightning.losses.neighbour.cached_values", lambda device: 20)  # several strips
    content, image, style, other = (features(3, 4, 3, seed=seed) for seed in range(4))
    weights, projection = rand(1, 1, 4, 3, seed=5) if weighted else None, projection_of(rand(7, 3, seed=4))
    term = Alone(
        NearestNeighbour([LAYER]),
        content,
        [(style, 0.7), (other, 0.3)],
        weights=weights,
        projection=projection if projected else None,
    )
    assert torch.autograd.gradcheck(term.value, image.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3)])
@pytest.mark.parametrize("others", ["zeros", "ones", "random"])
@pytest.mark.parametrize("image", ["zeros", "ones", "random"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_without_differences_are_no_trouble(others, image, shape, dtype):
    kinds = {"zeros": torch.zeros, "ones": torch.ones, "random": rand}
    leaf = kinds[image](1, 4, *shape, dtype=torch.float64).to(dtype).requires_grad_()
    other = kinds[others](1, 4, *shape, dtype=torch.float64).to(dtype)
    value = Alone(NearestNeighbour([LAYER]), other, [(other, 1.0)]).value(leaf)
    value.backward()
    assert value.dtype == torch.float32
    assert bool(value.isfinite())
    assert bool(leaf.grad.isfinite().all())


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("keep", [0, 2])
def test_tiles_do_not_show(tiny_weights, regions, keep):
    content, start, image = (rand(1, 3, 130, 101, seed=seed) for seed in (0, 7, 1))
    styles = [(rand(1, 3, 61, 45, seed=2), 1.0), (rand(1, 3, 33, 70, seed=3), 0.3), (rand(1, 3, 50, 50, seed=4), 0.7)]
    ramp = torch.linspace(0, 1, 101).double().expand(1, 1, 130, 101)
    part = Mask((torch.arange(45) < 20).double().expand(1, 1, 61, 45), "style_mask")
    both = [Mask(1 - ramp, "left"), Mask(ramp, "right")]
    masks = Masks(both, [0, 1, 1], [part, None, None], [None] * 3, None)
    found = []
    for tile in (None, 48):
        terms = [NearestNeighbour({"relu1_1": 1.0, "conv3_2": 0.4}, samples=150, turns=True), Content(["relu2_1"])]
        evaluate = Evaluator(Objective(terms, regions=2 * regions), double(tiny_weights), tile, keep)
        evaluate.prepare(content, styles if regions else styles[1:], masks if regions else None, start)
        loss, parts = evaluate(image.requires_grad_())
        found.append((parts, torch.autograd.grad(loss, image)[0]))
    (parts, gradient), (tiled_parts, tiled_gradient) = found
    torch.testing.assert_close(tiled_parts, parts, rtol=1e-10, atol=1e-12)
    assert len(parts) == (5 if regions else 3)
    assert float((tiled_gradient - gradient).abs().max() / gradient.abs().max()) < 1e-10


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_start_is_what_is_asked(kind):
    """Without a start it is the content; in tiles, whose targets are in bfloat16, all but the same."""
    content, image, style = (rand_image(96, 80, seed=seed) for seed in range(3))
    network = CompactVGG19()
    network.set_compute_dtype(kind)
    values = {}
    for name, start, tile in (("default", None, None), ("content", content, None), ("image", image, None)):
        evaluate = Evaluator(Objective([NearestNeighbour()]), network, tile)
        evaluate.prepare(content, [(style, 1.0)], start=start)
        values[name] = float(evaluate(image).loss.detach())
    tiled = Evaluator(Objective([NearestNeighbour()]), network, 64)
    tiled.prepare(content, [(style, 1.0)])
    assert values["default"] == values["content"] != values["image"]
    assert float(tiled(image).loss) == pytest.approx(values["content"], rel=2e-2)


def test_turned_styles_are_looked_through(tiny_weights):
    """A picture of vertical stripes and a style of horizontal ones; what is left comes of their other means."""
    stripes = (torch.arange(32) % 4 < 2).double().expand(1, 3, 32, 32).contiguous()
    values = []
    for turns in (False, True):
        evaluate = Evaluator(Objective([NearestNeighbour(["relu2_1"], turns=turns)]), double(tiny_weights))
        evaluate.prepare(rand(1, 3, 32, 32), [(stripes.transpose(-1, -2), 1.0)], start=stripes)
        values.append(float(evaluate(stripes).loss * evaluate.targets.of_layers[0, "relu2_1"].scale))
        kept = evaluate.style_targets([(stripes[..., :24], 1.0)]).of_layers[0, "relu2_1"]
        assert len(kept.styles[0].unit) == 16 * 12 * (8 if turns else 1)
    assert values[1] < 0.5 * values[0]


def test_turns_are_turned_pictures_with_their_masks(tiny_weights):
    """Of a style that counts on its left side, the samples are those of the picture turned, where it counts then."""
    style = rand(1, 3, 24, 16)
    left = (torch.arange(16) < 8).double().expand(1, 1, 24, 16)
    seen = []

    class Spy(Gram):
        turns = True

        def style_reference(self, layer):
            class Reference:
                sharing = "all"

                def add(self, features, window):
                    seen.append((features.clone(), window.weights))

                def sums(self):
                    return []

                def result(self, cells):
                    seen.append(cells)
                    return torch.zeros(3, 3).double()

            return Reference()

    evaluate = Evaluator(Objective([Spy(["image"])]), double(tiny_weights))
    evaluate.style_targets([(style, 1.0)], Masks([], [None], [Mask(left, "style_mask")], [None], None))
    *views, cells = seen
    assert len(views) == 8
    assert cells == 8 * 24 * 8
    assert len({tuple(picture.flatten().tolist()) for picture, _ in views}) == 8
    for picture, weights in views:
        assert sorted(picture[weights.expand_as(picture) > 0].tolist()) == sorted(style[..., :8].flatten().tolist())


def test_memory_is_planned():
    """The chosen features and the start, beside a plan without them."""
    network, size = CompactVGG19(), (1024, 1024)
    with_it, without = (
        make_plan(Objective(terms), network, size, None, [(0, 0)], 0).memory
        for terms in ([NearestNeighbour(["relu3_1"])], [Gram(["relu3_1"])])
    )
    channels = network(torch.rand(1, 3, 16, 16), ["relu3_1"])["relu3_1"].shape[1]
    assert with_it - without >= (12 + 4 * channels / 16) * 1024 * 1024


class CutError(Exception):
    """What ends a run in the middle."""


def run(pair, folder, *, evaluations=(4, 5), stop=None, ckpt_path=None):
    """Losses of a run in two stages, and its picture; it may be cut after so many evaluations."""
    made = []

    class Watched(StyleTransfer):
        def training_step(self, batch, batch_idx):
            if stop is not None and len(made) == stop:
                raise CutError
            loss = super().training_step(batch, batch_idx)
            made.append(float(loss.detach()))
            return loss

    stages = [Stage(evaluations[0], scale=0.5), Stage(evaluations[1])]
    terms = [NearestNeighbour(["relu2_1"]), Content(["relu3_1"], weight=0.2)]
    module = Watched(stages=stages, terms=terms, extractor=CompactVGG19("narrow"))
    trainer = Trainer(
        **{**QUIET, "enable_checkpointing": True}, default_root_dir=folder, callbacks=[Checkpoints(every=1)]
    )
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=64)
    with contextlib.suppress(CutError):
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return made, module


@pytest.mark.parametrize("cut", [2, 4, 6])
def test_a_run_that_goes_on_has_the_targets_it_had(cut, pair, tmp_path):
    """In the first stage, between the two, and in the second one: the same losses and the same picture."""
    whole, module = run(pair, tmp_path / "whole")
    begun, _ = run(pair, tmp_path / "cut", stop=cut)
    path = max((tmp_path / "cut").rglob("*.ckpt"))
    assert path.stem == f"{cut:06d}"
    rest, resumed = run(pair, tmp_path / "rest", ckpt_path=path)
    assert begun + rest == whole
    assert torch.equal(resumed.picture(), module.picture())


def test_only_what_is_needed_is_kept(pair, tmp_path):
    _, module = run(pair, tmp_path, evaluations=(1, 1))
    assert module._start.shape == module.image.shape
    other = StyleTransfer(evaluations=1, terms=[Gram(["relu1_1"])], extractor=CompactVGG19("narrow"))
    Trainer(**QUIET, default_root_dir=tmp_path).fit(other, datamodule=StyleTransferData(*map(str, pair), size=32))
    assert other._start is None


def test_counts_of_nothing_are_refused():
    with pytest.raises(UserError, match=r"nearestneighbour\.samples: must be at least 1, got 0"):
        NearestNeighbour([LAYER], samples=0)


def test_windows_that_nobody_showed_are_left_alone():
    """Where processes share tiles each has the features of its own alone."""
    term, maps = NearestNeighbour([LAYER]), features(4, 6, 8)
    reference = term.start_reference(None)
    window = Window(slice(0, 6), slice(0, 3), 6, 8)
    reference.add(maps[..., :3], window)
    alone = Alone(term, maps, [(features(seed=1), 1.0)])
    target = alone.target._replace(styles=alone.style.styles)
    found = term.start_target(alone.layer, reference.result(48), target).features
    assert float(found[..., 3:].abs().max()) == 0
    assert float(found[..., :3].norm(dim=1).min()) == pytest.approx(1, rel=1e-3)
