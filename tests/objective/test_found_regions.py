"""Regions that a network finds in a content, each with the parts of a style that are like it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import QUIET, rand
from PIL import Image

from nst_lightning import Stage, StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.engine.stages import plan_for
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.losses import NNFM, Content, Gram
from nst_lightning.losses.gram import gram_matrix
from nst_lightning.objective.clusters import k_means, memberships
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.matching import transport
from nst_lightning.objective.objective import Objective
from nst_lightning.objective.regions import find_regions


def test_clusters_are_those_that_are_there():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]], dtype=torch.float64)
    points = torch.cat([centre + 0.1 * rand(30, 2, seed=k) for k, centre in enumerate(centres)])
    found = k_means(points, 3)
    assert bool((torch.cdist(found, centres + 0.05).amin(1) < 0.1).all())
    belonging = memberships(points, found, 0.3)
    torch.testing.assert_close(belonging.sum(1), torch.ones(90, dtype=torch.float64))
    owner = belonging.argmax(1).view(3, 30)
    assert bool((owner == owner[:, :1]).all()) and len(set(owner[:, 0].tolist())) == 3


def test_as_many_clusters_as_points_are_the_points():
    points = rand(5, 2)
    assert sorted(k_means(points, 5).tolist()) == sorted(points.tolist())


def test_transport_by_hand():
    """Half of the first has to go where it costs 1, as the second has nowhere else to go."""
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    cost = torch.tensor([[0.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    plan = transport(cost, half, half, sharpness=50)
    torch.testing.assert_close(plan, torch.tensor([[0, 0.5], [0.5, 0]], dtype=torch.float64), rtol=0, atol=1e-9)
    free = transport(cost, half, half, sharpness=50, freedom=1.0)  # nobody has to go past the cheapest
    torch.testing.assert_close(free, torch.tensor([[0.5, 0], [0.5, 0]], dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_transport_is_the_linear_program(seed):
    optimize = pytest.importorskip("scipy.optimize")
    n, m = 3, 6
    cost, supply, demand = rand(n, m, seed=seed), rand(n, seed=seed + 10) + 0.1, rand(m, seed=seed + 20) + 0.1
    supply, demand = supply / supply.sum(), demand / demand.sum()
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    exact = optimize.linprog(
        cost.flatten().numpy(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([supply, demand])
    )
    plan = transport(cost, supply, demand, sharpness=400)
    torch.testing.assert_close(plan.sum(1), supply, rtol=0, atol=1e-4)
    torch.testing.assert_close(plan.sum(0), demand, rtol=0, atol=1e-4)
    assert float((plan * cost).sum()) == pytest.approx(exact.fun, abs=2e-3)


def stripes(left):
    """One side smooth, the other one rough: (1, 3, 96, 128)."""
    rough = (torch.arange(96)[:, None] // 4 + torch.arange(128) // 4) % 2
    smooth = torch.full((96, 128), 0.5)
    is_left = torch.arange(128) < left
    return torch.where(is_left, smooth, rough.float()).expand(1, 3, 96, 128).clone()


def test_two_textures_find_each_other(tiny_weights):
    """The content is smooth on the left, the style on the right, and each takes from what is like it."""
    network = VGG19(str(tiny_weights))
    found = find_regions(network, stripes(64), [stripes(80).flip(-1)], 2)
    torch.testing.assert_close(found.content.sum(1), torch.ones(1, *found.content.shape[-2:]))
    assert bool((found.content > 0).all()) and bool((found.styles[0] > 0).all())
    columns = found.content.shape[-1]
    left = found.content[..., : columns // 2 - 2].mean((0, 2, 3))
    smooth = int(left.argmax())
    assert float(left[smooth]) > 0.8
    assert float(found.content[:, 1 - smooth, :, columns // 2 + 2 :].mean()) > 0.8
    in_style = found.styles[0]
    rough, plain = in_style[..., : columns // 3].mean((0, 2, 3)), in_style[..., -columns // 3 :].mean((0, 2, 3))
    assert plain[smooth] > 2 * rough[smooth] and rough[1 - smooth] > 2 * plain[1 - smooth]


def test_the_same_pictures_have_the_same_regions(tiny_weights):
    network, content, style = VGG19(str(tiny_weights)), rand(1, 3, 64, 96).float(), rand(1, 3, 80, 64, seed=1).float()
    one, other = (find_regions(network, content, [style, content], 3) for _ in range(2))
    assert torch.equal(one.content, other.content)
    assert all(torch.equal(*pair) for pair in zip(one.styles, other.styles, strict=True))


def test_a_picture_of_one_colour_has_regions_too(tiny_weights):
    found = find_regions(VGG19(str(tiny_weights)), torch.full((1, 3, 64, 64), 0.5), [torch.zeros(1, 3, 64, 64)], 3)
    assert all(bool(torch.isfinite(x).all()) and bool((x > 0).all()) for x in (found.content, *found.styles))


@pytest.fixture
def textures(tmp_path):
    """Files of a content and a style with two textures each."""
    paths = tmp_path / "content.png", tmp_path / "style.png"
    for path, left in zip(paths, (64, 40), strict=True):
        pixels = stripes(left)[0].permute(1, 2, 0) * 255
        Image.fromarray(pixels.byte().numpy()).save(path)
    return paths


def fit(data, weights, ckpt_path=None, **options):
    model = StyleTransfer(terms=[Content(["relu3_1"]), Gram(["relu1_1", "relu3_1"])], extractor=VGG19(str(weights)),
                          stages=options.pop("stages"))  # fmt: skip
    trainer = StyleTrainer(**{**QUIET, **options})
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model, trainer


def test_a_run_takes_each_region_from_what_is_like_it(textures, tiny_weights, tmp_path):
    """And goes on from a checkpoint to the same bits, in the stage after the one in which it has found them."""

    def data(regions=2):
        return StyleTransferData(*textures, size=64, regions=regions)

    def stages():
        return [Stage(3, 0.5), Stage(4)]

    whole, _ = fit(data(), tiny_weights, stages=stages())
    assert {part.region for part in whole.objective.parts if part.term.group == "style"} == {0, 1}
    _, trainer = fit(data(), tiny_weights, stages=stages(), max_steps=5)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again, _ = fit(data(), tiny_weights, tmp_path / "run.ckpt", stages=stages())
    assert torch.equal(again.image, whole.image)
    plain, _ = fit(data(0), tiny_weights, stages=stages())
    assert not torch.equal(plain.image, whole.image)


def test_each_region_has_its_part_of_one_style(tiny_weights):
    """Targets are Gram matrices of the style's halves."""
    network = VGG19(str(tiny_weights)).double()
    network.set_compute_dtype(torch.float64)
    evaluate = Evaluator(Objective([Gram(["relu1_1"])], regions=2), network)
    left = (torch.arange(40) < 20).double().expand(1, 1, 20, 40)
    halves = [Mask(left, "left"), Mask(1 - left, "right")]
    everywhere = Mask(torch.full((1, 1, 16, 16), 0.5).double(), "half")
    style = rand(1, 3, 20, 40, seed=2)
    masks = Masks([everywhere] * 2, [None], [None], [None], None, matched=[halves])
    targets = evaluate.prepare(rand(1, 3, 16, 16), [(style, 1.0)], masks).of_layers
    features = network(style, ["relu1_1"])["relu1_1"]
    torch.testing.assert_close(targets[0, "relu1_1"][0], gram_matrix(features[..., :20]))
    torch.testing.assert_close(targets[1, "relu1_1"][0], gram_matrix(features[..., 20:]))


def test_a_plan_counts_regions(textures, tiny_weights):
    memory = []
    for regions in (0, 3):
        model = StyleTransfer(terms=[Content(), Gram()], extractor=VGG19(str(tiny_weights)), evaluations=2)
        data = StyleTransferData(*textures, size=512, regions=regions)
        model.check(data)
        memory.append(plan_for(model, data, available=2**40, resident=0).plans[0].memory)
    assert memory[1] > memory[0] + 3 * 4 * 512 * 384  # a mask each, and what is weighted by it


def test_masks_sum_to_one_at_each_size(textures, tiny_weights):
    data = StyleTransferData(*textures, size=100, regions=3)
    data.find_regions(VGG19(str(tiny_weights)), torch.device("cpu"))
    for scale in (0.3, 1.0):
        masks = data.masks(scale)
        total = sum(mask.pixels for mask in masks.regions)
        torch.testing.assert_close(total, torch.ones(1, 1, *data.stage_size(scale)))
        assert [mask.pixels.shape[-2:] for mask in masks.matched[0]] == [data.style_sizes(scale)[0]] * 3


def test_off_by_default(textures):
    data = StyleTransferData(*textures, size=64)
    assert data.request.regions == 0 and data.regions is None and data.masks() is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regions": 1}, r"data\.regions: must be 0 or from 2 to 8, got 1"),
        ({"regions": 9}, r"data\.regions: must be 0 or from 2 to 8, got 9"),
        ({"regions": 2, "content": None}, r"data\.regions: must be 0 without a content, got 2"),
        ({"regions": 2, "mask": True}, r"data\.regions: must be 0 where a style has a mask"),
    ],
)
def test_what_makes_no_sense_is_refused(textures, options, said):
    content, style = textures
    given = {"path": style, "mask": content} if options.pop("mask", False) else style
    with pytest.raises(UserError, match=said):
        StyleTransferData(options.pop("content", content), given, size=64, **options)


def test_terms_that_weigh_no_cells_are_refused(textures, tiny_weights):
    model = StyleTransfer(terms=[NNFM(["relu2_1"])], extractor=VGG19(str(tiny_weights)), evaluations=2)
    with pytest.raises(UserError, match=r"data\.regions"):
        model.check(StyleTransferData(*textures, size=64, regions=2))
