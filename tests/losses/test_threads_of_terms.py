"""Terms give the same bits with any number of threads."""

from __future__ import annotations

import pytest
import torch
from helpers import rand_image

from nst_lightning.features import CompactVGG19
from nst_lightning.losses import (
    Content,
    CosineContent,
    Grain,
    Gram,
    MattingLaplacian,
    MeanStd,
    NearestNeighbour,
    Palette,
    RelaxedEMD,
    SelfSimilarity,
    Tones,
    TotalVariation,
)
from nst_lightning.losses.tv import total_variation
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "term",
    [
        *(CosineContent, Grain, Gram, MattingLaplacian, MeanStd, NearestNeighbour, Palette, RelaxedEMD),
        *(SelfSimilarity, Tones, TotalVariation),
    ],
)
def test_bits_do_not_depend_on_threads(term, kind):
    content, image, style = (rand_image(196, 180, seed=seed) for seed in range(3))

    def computed(threads):
        torch.set_num_threads(threads)
        network = CompactVGG19()
        network.set_compute_dtype(kind)
        evaluate = Evaluator(Objective([term(), Content()]), network)
        evaluate.prepare(content, [(style, 1.0)])
        leaf = image.clone().requires_grad_()
        evaluation = evaluate(leaf)
        evaluation.loss.backward()
        return leaf.grad, evaluation.parts

    before = torch.get_num_threads()
    try:
        (gradient, parts), *others = (computed(threads) for threads in (1, 2, 3))
    finally:
        torch.set_num_threads(before)
    for other_gradient, other_parts in others:
        assert torch.equal(gradient, other_gradient)
        assert torch.equal(parts, other_parts)


@pytest.mark.parametrize("kind", ["squared", "absolute", "nine_point"])
def test_the_value_of_total_variation_does_not_depend_on_threads(kind):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append([float(total_variation(rand_image(196, 180, seed=seed), kind)) for seed in range(6)])
    finally:
        torch.set_num_threads(before)
    assert all(other == found[0] for other in found)
