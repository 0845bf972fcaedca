"""Plans: whole if it fits, else tiles, else a refusal that says what would fit."""

from __future__ import annotations

import psutil
import pytest
import torch

from nst_lightning.errors import UserError
from nst_lightning.features import CompactVGG19, Extractor
from nst_lightning.hardware.memory import HEAP, Supply, free_memory
from nst_lightning.losses import (
    Content,
    CosineContent,
    Grain,
    Gram,
    Histogram,
    SelfSimilarity,
    Term,
    TotalVariation,
    Wasserstein,
)
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.objective.traversal import Traversal
from nst_lightning.optim import LBFGS
from nst_lightning.planning import duration as estimate
from nst_lightning.planning import picture_terms
from nst_lightning.planning.memory import SIZES, Earlier, make_plan
from nst_lightning.planning.planner import Planner, Scope

GIB = 2**30
NETWORK = CompactVGG19("narrow")


@pytest.fixture(scope="module")
def objective():
    return Objective(default_terms())


def optimizer_memory(side, **options):
    return LBFGS([torch.zeros(1, 3, 8, 8)], **options).memory_for(3 * side * side)


def test_whole_where_it_fits(objective):
    plan = make_plan(objective, NETWORK, (1024, 1024), "auto", [optimizer_memory(1024)], 24 * GIB)
    assert (plan.tile, plan.keep, plan.pixels) == (None, 0, None)
    assert 0.5 * GIB < plan.memory < 2 * GIB


def test_tiles_where_it_does_not(objective):
    memory = optimizer_memory(8192, history_size=3, history_dtype="bfloat16")
    plan = make_plan(objective, NETWORK, (8192, 8192), "auto", [memory], 12 * GIB)
    assert plan.tile in SIZES
    assert 0.8 * 12 * GIB < plan.memory <= 12 * GIB  # a tenth is left for the heap, and some of it told
    smaller = make_plan(objective, NETWORK, (8192, 8192), "auto", [memory], 11 * GIB)
    assert smaller.tile <= plan.tile
    assert plan.pixels >= 8192**2


def test_more_memory_keeps_more_tiles(objective):
    keeps = [make_plan(objective, NETWORK, (4096, 4096), "auto", [(0, 0)], n * GIB).keep for n in (2, 3, 4, 5)]
    assert keeps == sorted(keeps)
    assert keeps[-1] > 0


def test_a_tile_that_is_asked_for_is_taken_and_none_is_kept(objective):
    plan = make_plan(objective, NETWORK, (2048, 2048), 512, [(0, 0)], 24 * GIB)
    assert (plan.tile, plan.keep) == (512, 0)
    assert make_plan(objective, NETWORK, (2048, 2048), None, [(0, 0)], GIB // 8).tile is None


def test_processes_always_have_tiles_and_keep_a_share_that_fits(objective):
    plan = make_plan(objective, NETWORK, (1024, 1024), "auto", [(0, 0)], 24 * GIB, processes=2)
    assert plan.keep == 1
    assert plan.tile is not None


def test_what_cannot_fit_is_refused_with_the_size_that_would(objective):
    with pytest.raises(UserError, match=r"data\.size: needs \d+\.\d GiB for 16384x16384 px.*at \d+ % of that") as info:
        make_plan(objective, NETWORK, (16384, 16384), "auto", [optimizer_memory(16384)], 8 * GIB)
    size = 16384 * int(str(info.value).split(" % of that")[0].split()[-1]) // 100 - 100
    make_plan(objective, NETWORK, (size, size), "auto", [optimizer_memory(size)], 8 * GIB)  # it does


def test_the_best_setting_that_leaves_room_for_a_tile(objective):
    choices = [
        make_plan(objective, NETWORK, (2048, 2048), "auto", [(n * GIB, 0) for n in (4, 2, 1)], n * GIB).choice
        for n in (9, 4, 2)
    ]
    assert choices == [0, 1, 2]


def test_memory_falls_with_the_type_and_grows_with_the_layers():
    layers, network = Objective([Content(["relu4_2"]), Gram(["relu1_1", "relu5_1"])]).layers, CompactVGG19()
    single = network.memory(layers)
    network.set_compute_dtype(torch.bfloat16)
    half = network.memory(layers)
    assert 0.4 < half.pixel / single.pixel < 0.6
    none = make_plan(Objective([TotalVariation()]), NETWORK, (64, 64), "auto", [(0, 0)], GIB)
    assert none.tile is None


@pytest.mark.parametrize("tile", [None, 512])
def test_regions_take_memory(tile):
    """Each has a mask of 4 bytes a pixel and more, and weighted features beside those of the network."""
    memory, tiles = [], []
    for regions in (0, 1, 3):
        objective = Objective(default_terms(), regions=regions)
        memory.append(make_plan(objective, NETWORK, (2048, 2048), tile, [(0, 0)], 24 * GIB).memory)
        tiles.append(make_plan(objective, NETWORK, (2048, 2048), "auto", [(0, 0)], 3 * GIB).tile)
    use, area = NETWORK.memory(objective.layers), (tile or 2048) ** 2
    copies = sum(use.values[layer] for layer in Gram().layers) * use.itemsize * area
    masks = 4 * 2048**2
    assert copies + masks < memory[1] - memory[0] < copies + 1.5 * masks
    assert memory[2] - memory[0] == pytest.approx(3 * (memory[1] - memory[0]), rel=1e-6)
    assert tiles[0] is None
    assert None not in tiles[1:]  # which do not fit at once


@pytest.mark.parametrize("tile", [None, 512])
def test_a_content_that_is_transparent_in_part_takes_memory(tile):
    """As much as one region: statistics are of what is seen."""
    asked = ((2048, 2048), tile, [(0, 0)], 24 * GIB)
    whole, seen, divided = (
        make_plan(Objective(default_terms(), regions=regions), NETWORK, *asked, transparent=transparent).memory
        for regions, transparent in ((0, False), (0, True), (1, False))
    )
    assert whole < seen == divided


def test_what_fits_with_regions_is_told(objective):
    divided = Objective(default_terms(), regions=4)
    found, settings = [], {"history_size": 3, "history_dtype": "bfloat16"}
    for one in (objective, divided):
        with pytest.raises(UserError, match=r"it fits with data\.size at") as info:
            make_plan(one, NETWORK, (16384, 16384), "auto", [optimizer_memory(16384, **settings)], 8 * GIB)
        found.append(int(str(info.value).split(" % of that")[0].split()[-1]))
    assert found[1] < found[0]
    size = 16384 * found[1] // 100 - 100
    make_plan(divided, NETWORK, (size, size), "auto", [optimizer_memory(size, **settings)], 8 * GIB)


def test_free_memory_is_some_and_less_than_all():
    assert 2**26 < free_memory("cpu") <= psutil.virtual_memory().total


def test_the_time_of_a_pixel_is_that_of_the_fastest_of_three_passes(objective, monkeypatch):
    clock = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(clock))
    speed = estimate.speed_of(NETWORK, objective.layers, torch.device("cpu"), 1024**2)
    assert speed == (pytest.approx(1.0 / 160**2), 0)


class Timed(Extractor):
    """A network whose passes take a while to launch, and longer where there are more pixels; the first of a size most.

    Time is what this clock says.
    """

    strides = {"one": 1}  # noqa: RUF012

    def __init__(self, launch: float, per_pixel: float) -> None:
        super().__init__()
        self.launch, self.per_pixel, self.now, self.seen = launch, per_pixel, 0.0, []

    def iterate(self, image, layers):
        pixels = image[0, 0].numel()
        self.now += self.launch + self.per_pixel * pixels + (0 if pixels in self.seen else 5.0)
        self.seen.append(pixels)
        yield "one", image


@pytest.mark.parametrize(("launch", "per_pixel"), [(0.004, 3e-9), (0.0, 2e-8), (0.02, 0.0)])
@pytest.mark.parametrize("pixels", [300 * 200, 4096**2, 100])
def test_an_accelerator_has_a_time_to_launch_and_one_for_each_pixel(monkeypatch, launch, per_pixel, pixels):
    network = Timed(launch, per_pixel)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: network.now)
    monkeypatch.setattr(estimate, "prefers_large_operations", lambda device: True)
    speed = estimate.speed_of(network, ["one"], torch.device("cpu"), pixels)
    assert speed.per_pixel == pytest.approx(per_pixel, abs=1e-15)
    assert speed.per_pass == pytest.approx(launch, abs=1e-9)
    assert max(network.seen) <= max(pixels, 64**2)  # the run will take more memory
    assert estimate.seconds_of_evaluation(speed, 10**6) == pytest.approx(2.5 * (launch + per_pixel * 10**6), abs=1e-8)
    tiled = estimate.seconds_of_evaluation(speed, 10**6, crops=2 * 10**6, tiles=4)
    assert tiled == pytest.approx(3.75 * (4 * launch + per_pixel * 2 * 10**6), abs=1e-8)


class Seen(Term):
    """A term that looks at the picture, and takes so long by this clock."""

    sees_image = True
    group = "content"

    def __init__(self, clock):
        super().__init__([])
        self.clock = clock

    def image_loss(self, image, content, weights):
        self.clock.now += 0.02 + 3e-7 * image[0, 0].numel()
        return image.square().mean()


def test_terms_that_look_at_the_picture_take_time_that_no_network_shows(monkeypatch):
    """Of a preset of such terms alone it was said that it takes no time, and twenty seconds were spent at 2048 px."""
    clock = Timed(0.0, 0.0)
    monkeypatch.setattr(picture_terms.time, "perf_counter", lambda: clock.now)
    alone = picture_terms.picture_speed(Objective([Seen(clock)]), NETWORK, torch.device("cpu"))
    assert alone == (pytest.approx(3e-7), pytest.approx(0.02))
    others = picture_terms.picture_speed(Objective([Seen(clock), Gram(["relu2_1"])]), NETWORK, torch.device("cpu"))
    assert others == (pytest.approx(3e-7), pytest.approx(0.02))
    assert estimate.seconds_of_picture_terms(alone, 10**6) == pytest.approx(1.25 * 0.32)
    divided = Objective([Wasserstein(["image"])], regions=3)
    assert [count for _, count in picture_terms._terms(divided)] == [3]
    assert not list(picture_terms._terms(Objective(default_terms())))
    switched_off = Objective([*default_terms(), Histogram(["image"], weight=0)])
    assert picture_terms.picture_speed(switched_off, NETWORK, torch.device("cpu")) == (0, 0)


def test_an_evaluation_is_two_passes_or_three_of_all_crops_and_a_quarter():
    speed = estimate.Speed(1e-6)
    assert estimate.seconds_of_evaluation(speed, 10**6) == pytest.approx(2.5)
    assert estimate.seconds_of_evaluation(speed, 10**6, crops=2 * 10**6) == pytest.approx(7.5)


def test_durations_in_words():
    assert [estimate.in_words(s) for s in (0.2, 40, 600, 9000)] == ["1 s", "40 s", "10 min", "2.5 h"]


def test_what_a_term_leaves_for_the_pass_back_takes_memory():
    """`Content` leaves half of its gradient, where features alone would do for `Gram`."""
    plain, leaving = (Objective([term, Gram(["relu5_1"])]) for term in (Gram(["relu2_1"]), Content(["relu2_1"])))
    sizes = [make_plan(one, CompactVGG19(), (1152, 1152), None, [(0, 0)], 24 * GIB).memory for one in (plain, leaving)]
    values = CompactVGG19().memory(plain.layers).values["relu2_1"]
    target = left = 4 * values * 1152**2
    assert sizes[1] - sizes[0] == pytest.approx(target + left, rel=1e-6)


def test_a_limit_holds_what_the_heap_does(objective):
    """All that a plan counts fits into the share of the limit that is to be used, whatever is chosen."""
    memories = [optimizer_memory(4096, history_size=n, history_dtype="bfloat16") for n in (20, 10, 5, 3)]
    for gib in (4, 5, 6, 8, 10, 14):
        plan = make_plan(objective, NETWORK, (4096, 4096), "auto", memories, gib * GIB)
        assert plan.memory <= 0.92 * gib * GIB


def test_a_short_stage_takes_memory_for_the_pairs_that_it_can_have(objective):
    optimizer = LBFGS([torch.zeros(1, 3, 8, 8)])
    image = 12 * 2048**2
    full, short = (sum(optimizer.memory_for(3 * 2048**2, evaluations=n)) for n in (None, 12))
    assert full - short == (20 - 11) * 2 * image
    planned = [
        make_plan(objective, NETWORK, (2048, 2048), None, [optimizer.memory_for(3 * 2048**2, evaluations=n)], 0).memory
        for n in (None, 12)
    ]
    assert planned[0] - planned[1] == (20 - 10) * 2 * image  # the last pair comes after the last evaluation


def test_networks_and_holes_that_stages_before_have_left_are_counted():
    objective = Objective([Gram()])
    alone, after = (
        make_plan(objective, NETWORK, (64, 64), None, [(0, 0)], 0, earlier=earlier)
        for earlier in (Earlier(), Earlier(networks=7 << 20, evaluation=5 << 20))
    )
    assert after.memory - alone.memory == 12 << 20
    assert after.evaluation == alone.evaluation > 0
    full = make_plan(objective, NETWORK, (64, 64), None, [(0, 0)], 0, earlier=Earlier(evaluation=9 << 30))
    assert full.memory - alone.memory < 650 << 20  # what is kept finds its place again


def test_a_run_of_two_networks_takes_more_than_the_last_stage_alone():
    objective, draft = Objective([Gram()]), CompactVGG19()
    last = Scope(4, (64, 64), NETWORK)
    planned = [
        Planner(objective, LBFGS, stages, None, 0).memory() for stages in ([last], [Scope(4, (64, 64), draft), last])
    ]
    assert planned[1] - planned[0] > sum(weight.numel() * weight.element_size() for weight in draft.parameters())


@pytest.mark.parametrize("tile", [None, 512])
def test_matrices_of_samples_take_memory(tile):
    """One lasts, two stay until the pass back and four come and go; beside what the network has kept by then."""
    small, large = (
        make_plan(Objective([SelfSimilarity(["relu2_1"], samples=n)]), NETWORK, (1024, 1024), tile, [(0, 0)], 24 * GIB)
        for n in (2, 6000)
    )
    square, use = 4 * 6000**2, NETWORK.memory(["relu2_1"])
    if tile is None:
        seen = 1024**2
        comes = use.kept * seen + 6 * square, use.pixel * seen
    else:
        seen = (512 + Traversal(Objective([SelfSimilarity(["relu2_1"])]), NETWORK, 512).halo) ** 2
        comes = 6 * square, use.part * seen
    heap = [min(taken, (600 if tile is None else 250) << 20) for taken in comes]
    assert large.memory - small.memory == pytest.approx(square + comes[0] - comes[1] + heap[0] - heap[1], rel=1e-3)


def test_matrices_of_the_usual_size_hide_behind_the_network():
    """A thousand samples in a large picture: the network's way back takes more, and the content's alone count."""
    small, usual = (
        make_plan(Objective([SelfSimilarity(samples=n)]), CompactVGG19(), (1024, 1024), None, [(0, 0)], 0).memory
        for n in (2, 1024)
    )
    assert 0 < usual - small <= 2 * 4 * 1024**2


def test_plans_for_a_cpu_stay_what_they_were():
    """To the byte, as measured on a CPU: what is said of accelerators changes none of them."""
    stages = [Scope(20, (384, 512), CompactVGG19("narrow")), Scope(30, (1152, 1536), CompactVGG19())]
    terms = [Content(["relu3_1"], 0.42), CosineContent(weight=0.57), Wasserstein(correlated=0.99), Grain(weight=3)]
    found = [
        [plan.memory for plan in Planner(Objective(made), LBFGS, stages, tile, 6 << 30).plans]
        for made in (default_terms(), terms)
        for tile in (None, 512)
    ]
    assert found == [
        [430487936, 2743215552],
        [440613248, 1732472256],
        [537835904, 3684574656],
        [522303872, 2062773696],
    ]
    pictures = [*default_terms(), Histogram(["image"]), Grain()]  # each leaves an image
    more = [plan.memory for plan in Planner(Objective(pictures), LBFGS, stages, None, 6 << 30).plans]
    areas = [width * height for _, (height, width), _ in stages]
    assert [a - b for a, b in zip(more, found[0], strict=True)] == [24 * area for area in areas]


def test_an_accelerator_has_no_holes_and_all_of_the_history():
    stages = [Scope(20, (384, 512), CompactVGG19())]
    supplies = [HEAP, HEAP._replace(heap=False), Supply(False, 0)]
    heap, other, nothing = (
        Planner(Objective(default_terms()), LBFGS, stages, None, 0, supply=one).memory() for one in supplies
    )
    assert heap > other > nothing == other - HEAP.working_space
    longer = Planner(
        Objective(default_terms()), LBFGS, [stages[0]._replace(evaluations=21)], None, 0, supply=supplies[2]
    )
    assert longer.memory() - nothing == 24 * 384 * 512  # one pair more
