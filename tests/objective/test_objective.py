"""The weighted sum of terms."""

from __future__ import annotations

import pytest
import torch

from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, Extractor
from nst_lightning.losses import NNFM, Content, Gram, Histogram, Term, TotalVariation, Wasserstein
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms


class Brightness(Term):
    """A user's own term: mean brightness stays at the content's, as seen by no layer."""

    sees_image = True

    def __init__(self, weight=1.0):
        super().__init__([], weight)

    def image_loss(self, image, content, weights):
        return (image.mean() - 0.5).square()


class Blur(Extractor):
    """A user's own extractor: the image at two scales."""

    strides = {"fine": 1, "coarse": 4}  # noqa: RUF012

    def use_layers(self, layers):
        self.check_layers(layers, argument="layers")
        self.used = list(layers)

    def set_compute_dtype(self, dtype):
        pass

    def forward(self, image, layers):
        return {name: torch.nn.functional.avg_pool2d(image, self.strides[name]) for name in layers}


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 32, 40, generator=generator) for _ in range(3)]


def prepared(tiny_weights, pictures, terms, **options):
    evaluate = Evaluator(Objective(terms, **options), VGG19(str(tiny_weights)))
    evaluate.prepare(pictures[0], [(pictures[1], 1.0)])
    return evaluate


def test_layer_weights_scale_their_layer(tiny_weights, pictures):
    plain = prepared(tiny_weights, pictures, [Content(["relu1_1", "relu2_1"]), Gram(["relu1_1", "relu2_1"])])
    weights = {"relu1_1": 3.0, "relu2_1": 0.0}
    weighted = prepared(tiny_weights, pictures, [Content(weights), Gram(weights)])
    factors = torch.tensor([3.0, 0.0, 3.0, 0.0])
    torch.testing.assert_close(weighted(pictures[2]).parts, factors * plain(pictures[2]).parts)


def test_the_loss_is_the_sum_of_its_parts(tiny_weights, pictures):
    evaluate = prepared(tiny_weights, pictures, [*default_terms(), TotalVariation(0.3)])
    objective = evaluate.objective
    loss, parts = evaluate(pictures[2])
    assert len(parts) == len(objective.part_names) == len(objective.part_groups) == 7
    torch.testing.assert_close(loss, parts.sum())
    assert objective.part_names[0] == "content.relu4_2"
    assert objective.part_names[-1] == "totalvariation.image"


def test_balanced_default_is_five_at_the_content(tiny_weights, pictures):
    loss, parts = prepared(tiny_weights, pictures, default_terms())(pictures[0])
    assert float(loss) == pytest.approx(5, rel=1e-5)
    assert float(parts[0]) == 0


def test_strength_scales_style_alone(tiny_weights, pictures):
    plain = prepared(tiny_weights, pictures, default_terms())(pictures[2]).parts
    strong = prepared(tiny_weights, pictures, default_terms(), strength=3.0)(pictures[2]).parts
    torch.testing.assert_close(strong[1:], 3 * plain[1:])
    torch.testing.assert_close(strong[0], plain[0])


def test_two_terms_of_one_kind_have_names_of_their_own():
    objective = Objective([Gram(["relu1_1"]), Content(), Gram(["relu2_1"])])
    assert objective.part_names == ["gram1.relu1_1", "content.relu4_2", "gram2.relu2_1"]


def test_only_the_layers_needed_are_computed(tiny_weights):
    network = VGG19(str(tiny_weights))
    evaluate = Evaluator(Objective([Gram(["relu2_1"])]), network)
    assert evaluate.objective.layers == ["relu2_1"]
    assert len(network.convolutions) == 3
    assert network(torch.zeros(1, 3, 32, 32), ["relu5_1"])["relu5_1"].shape == (1, 16, 2, 2)  # whoever asks gets it


def test_a_users_term_and_extractor(pictures):
    evaluate = Evaluator(Objective([Brightness(2.0), Content(["coarse"]), Gram(["fine"])]), Blur())
    evaluate.prepare(pictures[0], [(pictures[1], 1.0)])
    assert evaluate.extractor.used == ["coarse", "fine"]
    loss, parts = evaluate(pictures[2])
    assert evaluate.objective.part_groups == ["other", "content", "style"]
    torch.testing.assert_close(parts[0], 2 * (pictures[2].mean() - 0.5).square())
    torch.testing.assert_close(loss, parts.sum())


def test_terms_without_layers_need_no_network(pictures):
    objective = Evaluator(Objective([TotalVariation()]), Blur())
    objective.prepare(pictures[0], [(pictures[1], 1.0)])
    assert float(objective(pictures[2]).loss) > 0


@pytest.mark.parametrize("terms", [[], [Gram(weight=0.0)]])
def test_there_must_be_something_to_optimise(terms):
    with pytest.raises(UserError, match="weight above 0"):
        Objective(terms)


def test_an_unknown_layer_comes_with_the_nearest():
    with pytest.raises(UserError, match=r"no layer 'fime' in Blur; did you mean fine\? valid: fine, coarse"):
        Evaluator(Objective([Gram(["fime"])]), Blur())


def test_too_small_an_image_is_told_both_numbers(tiny_weights):
    objective, network = Objective(default_terms()), VGG19(str(tiny_weights))
    objective.check_sizes({"data.size": (16, 16)}, network)
    with pytest.raises(
        UserError, match=r"data.size: the short side must be at least 16 px for layer relu5_1, got 40x15 px"
    ):
        objective.check_sizes({"data.size": (15, 40)}, network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_has_the_images_layout(tiny_weights, pictures, dtype):
    objective = prepared(tiny_weights, pictures, default_terms())
    objective.extractor.set_compute_dtype(dtype)
    objective.prepare(pictures[0], [(pictures[1], 1.0)])
    image = pictures[2].clone().requires_grad_()
    objective(image).loss.backward()
    assert image.grad.is_contiguous()
    assert image.grad.dtype == torch.float32
    (alone,) = torch.autograd.grad(objective(image).loss, image)  # where no accumulator copies it into place
    assert alone.is_contiguous()
    optimiser = torch.optim.LBFGS([image], max_iter=3)
    start = float(objective(image).loss.detach())

    def closure():
        optimiser.zero_grad()
        loss = objective(image).loss
        loss.backward()
        return loss

    optimiser.step(closure)
    assert float(objective(image).loss.detach()) < start


def test_bfloat16_comes_close_to_float32(tiny_weights, pictures):
    wide = prepared(tiny_weights, pictures, default_terms())(pictures[2]).parts
    objective = Evaluator(Objective(default_terms()), VGG19(str(tiny_weights)))
    objective.extractor.set_compute_dtype(torch.bfloat16)
    objective.prepare(pictures[0], [(pictures[1], 1.0)])
    narrow = objective(pictures[2])
    assert narrow.parts.dtype == torch.float32
    torch.testing.assert_close(narrow.parts, wide, rtol=0.05, atol=0.01)


def test_the_gradient_equals_finite_differences(tiny_weights, pictures):
    network = VGG19(str(tiny_weights)).double()
    network.set_compute_dtype(torch.float64)
    objective = Evaluator(Objective([*default_terms(), TotalVariation(0.1)]), network)
    content, style, image = (p.double() for p in pictures)
    objective.prepare(content, [(style, 1.0)])
    image = image.requires_grad_()
    objective(image).loss.backward()
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    h = 1e-7  # small, so that few rectifiers and maxima change their choice
    with torch.no_grad():
        slope = (objective(image + h * direction).loss - objective(image - h * direction).loss) / (2 * h)
    assert float(slope) == pytest.approx(float((image.grad * direction).sum()), rel=1e-5)


def test_targets_are_values_that_may_be_kept(tiny_weights, pictures):
    """The style's part for other contents, and all of them for another evaluator, to the last bit."""
    content, style, image = pictures
    kinds = [*default_terms(), Wasserstein(["relu2_1"]), Histogram(["relu1_1"]), NNFM(["relu3_1"]), Gram(["relu1_1"])]
    objective, network = Objective(kinds), VGG19(str(tiny_weights))
    first = Evaluator(objective, network)
    of_style = first.style_targets([(style, 1.0)])
    for other in (content, image):
        kept, own = Evaluator(objective, network), Evaluator(objective, network)
        kept.prepare(other, of_style)
        own.prepare(other, [(style, 1.0)])
        assert torch.equal(kept(image).parts, own(image).parts)
        again = Evaluator(objective, network)
        again.targets = own.targets
        assert torch.equal(again(image).parts, own(image).parts)


@pytest.mark.parametrize(("tile", "passes"), [(None, 1), (64, 1), (16, 2)])
def test_cells_are_counted_once_an_evaluation(tiny_weights, pictures, monkeypatch, tile, passes):
    """In a pass of its own only where there are several tiles."""
    counted, layers = [], ["relu1_1"]
    count = Histogram.count
    monkeypatch.setattr(Histogram, "count", lambda *given: counted.append(given[2].shape) or count(*given))
    network = VGG19(str(tiny_weights))
    evaluate = Evaluator(Objective([Histogram(layers)]), network, tile)
    evaluate.prepare(pictures[0], [(pictures[1], 1.0)])
    passed, iterate = [], network.iterate
    monkeypatch.setattr(network, "iterate", lambda crop, wanted: passed.append(crop.shape) or iterate(crop, wanted))
    with torch.no_grad():
        evaluate(pictures[2])
    assert sum(shape[-2] * shape[-1] for shape in counted) == 32 * 40
    assert len(passed) == passes * len(counted)


class Uneven(Blur):
    """Rounds its maps up."""

    def forward(self, image, layers):
        return {name: torch.nn.functional.avg_pool2d(image, self.strides[name], ceil_mode=True) for name in layers}


def test_maps_of_another_size_are_refused(pictures):
    evaluate = Evaluator(Objective([Gram(["coarse"])]), Uneven())
    with pytest.raises(UserError, match=r"Uneven must return 9x8 cells of layer coarse for 39x32 px .*, got 10x8"):
        evaluate.prepare(pictures[0][..., :39], [(pictures[1], 1.0)])
