"""How far a student is from its teacher: features, Gram matrices, and the gradients that an image gets from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.distillation.network import CompactNetwork
from nst_lightning.features.compact import TAPS
from nst_lightning.features.extractor import Extractor, Features
from nst_lightning.losses.gram import gram_matrix

STYLE_TAPS = tuple(tap for tap in TAPS if tap != "relu4_2")
INNER_TAPS = ("relu3_1", "relu4_1", "relu4_2")  # layers at which gradients on their way to the image are compared

Grams = Mapping[str, Tensor]


class _Outputs(NamedTuple):
    """What a network computes of a picture and a style."""

    image: Tensor  # the picture, a leaf of the graph where gradients are asked for
    features: Features  # of the picture
    of_style: Features  # the same of the style
    grams: Grams  # of the picture, (1, C, C) a style tap, in the teacher's channels
    targets: Grams  # the same of the style


def style_distances(grams: Grams, targets: Grams) -> dict[str, Tensor]:
    """Squared Frobenius distance of each layer's Gram matrix, a scalar a layer."""
    return {tap: (grams[tap] - targets[tap]).square().sum() for tap in STYLE_TAPS}


def teacher_grams(features: Features) -> dict[str, Tensor]:
    """The teacher's Gram matrices of the style taps, (1, C, C) each."""
    return {tap: gram_matrix(features[tap])[None] for tap in STYLE_TAPS}


def compare(
    teacher: Extractor,
    student: CompactNetwork,
    image: Tensor,
    style: Tensor,
    start: Grams | None = None,
    *,
    gradients: bool,
) -> dict[str, Tensor]:
    """The parts of the loss on one pair of (1, 3, H, W), RGB, nominally in [0, 1], each a scalar.

    The gap's error is relative to the style distances at the start, by default those of the image itself. Without
    gradients their parts are 0.

    Returns:
        Relative errors ``features``, ``gram`` and ``gap`` (of differences of Gram matrices), and one minus the cosine
        of gradients as ``gradient`` (of the image) and ``inner_gradient`` (of features).
    """
    theirs = _of_teacher(teacher, image, style, gradients)
    ours = _of_student(student, image, style, gradients)
    features = [
        _relative_error(student.project(tap, found[tap]), wanted[tap].detach())
        for found, wanted in ((ours.features, theirs.features), (ours.of_style, theirs.of_style))
        for tap in TAPS
    ]
    gram = [
        _relative_error(found[tap], wanted[tap].detach())
        for found, wanted in ((ours.grams, theirs.grams), (ours.targets, theirs.targets))
        for tap in STYLE_TAPS
    ]
    now = {tap: value.detach() for tap, value in style_distances(theirs.grams, theirs.targets).items()}
    gap = [
        (ours.grams[tap] - ours.targets[tap] - (theirs.grams[tap] - theirs.targets[tap]).detach()).square().sum()
        / ((start or now)[tap] + (0.01 * theirs.targets[tap]).square().sum()).clamp(min=1e-12)
        for tap in STYLE_TAPS
    ]
    parts = {name: torch.stack(found).mean() for name, found in (("features", features), ("gram", gram), ("gap", gap))}
    zero = torch.zeros((), device=image.device)
    gradient, inner = _gradient_errors(student, ours, theirs, now) if gradients else (zero, zero)
    return {**parts, "gradient": gradient, "inner_gradient": inner}


def _of_teacher(teacher: Extractor, image: Tensor, style: Tensor, gradients: bool) -> _Outputs:
    x = image.detach().requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        features = teacher(x, TAPS)
        grams = teacher_grams(features)
    with torch.no_grad():
        of_style = teacher(style, TAPS)
        return _Outputs(x, features, of_style, grams, teacher_grams(of_style))


def _of_student(student: CompactNetwork, image: Tensor, style: Tensor, gradients: bool) -> _Outputs:
    x = image.detach().requires_grad_(gradients)
    features, of_style = student(x), student(style)
    grams = {tap: student.projected_gram(tap, features[tap]) for tap in STYLE_TAPS}
    targets = {tap: student.projected_gram(tap, of_style[tap]) for tap in STYLE_TAPS}
    return _Outputs(x, features, of_style, grams, targets)


def _gradient_errors(student: CompactNetwork, ours: _Outputs, theirs: _Outputs, scales: Grams) -> tuple[Tensor, Tensor]:
    """One minus the cosine of gradients of a style loss with random layer weights: of the image, and of features."""
    weights = torch.rand(len(STYLE_TAPS), device=ours.image.device).log().neg()  # all mixtures are as likely
    mixture = dict(zip(STYLE_TAPS, weights / weights.sum(), strict=True))

    def gradients(outputs: _Outputs, create_graph: bool) -> tuple[Tensor, ...]:
        distances = style_distances(outputs.grams, outputs.targets)
        terms = [mixture[tap] * distances[tap] / scales[tap].clamp(min=1e-12) for tap in STYLE_TAPS]
        inputs = [outputs.image, *(outputs.features[tap] for tap in INNER_TAPS)]
        return torch.autograd.grad(torch.stack(terms).sum(), inputs, create_graph=create_graph)

    of_image, *of_features = gradients(theirs, create_graph=False)
    wanted = [of_image, *(student.backproject(tap, g) for tap, g in zip(INNER_TAPS, of_features, strict=True))]
    wrong = [
        1 - F.cosine_similarity(m.flatten(1), w.flatten(1), eps=1e-20).mean()
        for m, w in zip(gradients(ours, create_graph=True), wanted, strict=True)
    ]
    return wrong[0], torch.stack(wrong[1:]).mean()


def _relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error over the square of what was wanted, both summed."""
    return (found - wanted).square().sum() / wanted.square().sum().clamp(min=1e-12)
