"""A student in closed form: channels chosen by pivoted factorisation, everything else by least squares.

Layer by layer from the image on. The channels of the teacher that best explain the others, in the sense of linear
regression on sampled positions, become the student's; the regression of all channels on the chosen ones folds into the
next convolution and is the map of a tapped layer. Each convolution is then fitted anew on the student's own inputs,
which makes up for part of what was lost before; the fit is used where it brings outputs nearer to the teacher's.

A convolution of low rank returns the leading principal components of what comes before ReLU. That loses far
less than leaving channels out: a quarter of the rank in all layers, without any training, does better than half of
the channels do after hours of it. One that sees few channels, too, sees those combinations of its inputs that change
its results most: with both the convolution is a Tucker decomposition (Kim et al., *Compression of Deep Convolutional
Neural Networks for Fast and Low Power Mobile Applications*, 2016), here in the metric of the inputs' second moments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nst_lightning.distillation.network import NAMES, CompactNetwork
from nst_lightning.distillation.sampling import LayerSamples

_RIDGE = 1e-4  # relative to the mean square of a regressor


@dataclass(frozen=True)
class LayerReport:
    """What a layer lost."""

    name: str  # the layer after its ReLU
    selection: float  # fraction of the teacher's energy that its chosen channels do not explain
    student: float  # fraction that the student's own channels do not explain


def choose_channels(features: Tensor, count: int) -> tuple[list[int], Tensor]:
    """Pivoted Cholesky factorisation of the second moments, which is pivoted QR of (N, C) features.

    Channels are weighed by the root of their size: between equal say for each, and a choice made by the few strongest.

    Returns:
        Indices in the order of choice, and the fraction of energy that is left after 1, 2, ... C of them.
    """
    exact = features.double()
    size = exact.square().mean(0).clamp(min=1e-12).sqrt()
    scaled = exact / size.sqrt()
    rest = scaled.T @ scaled / len(scaled)
    total, left = rest.trace(), []
    chosen: list[int] = []
    for _ in range(rest.shape[0]):
        spread = rest.diagonal().clone()
        spread[chosen] = -1  # rounding may leave more of them than of channels that nothing is left of
        pivot = int(spread.argmax())
        chosen.append(pivot)
        column = rest[:, pivot] / rest[pivot, pivot].clamp(min=1e-12).sqrt()
        rest = rest - torch.outer(column, column)
        left.append(rest.trace() / total)
    return sorted(chosen[:count]), torch.stack(left).clamp(min=0).float()


def regress(inputs: Tensor, targets: Tensor) -> Tensor:
    """Ridge regression without intercept: (N, k), (N, C) -> (C, k)."""
    x, y = inputs.double(), targets.double()
    moments = x.T @ x
    moments.diagonal().add_(_RIDGE * moments.diagonal().mean())
    solution: Tensor = torch.linalg.solve(moments, x.T @ y)
    return solution.T.float()


@torch.no_grad()
def compress(
    teacher: CompactNetwork,
    widths: Sequence[int],
    images: Sequence[Tensor],
    samples: int = 60_000,
    seed: int = 0,
    ranks: Sequence[int] = (),
    input_ranks: Sequence[int] = (),
) -> tuple[CompactNetwork, list[LayerReport]]:
    """Make a student.

    The deepest layer has one position for 256 pixels and some two thousand weights a channel: it takes hundreds of
    images of 224 px to fit those rather than learn the images by heart.

    For widths, ranks and input_ranks see `CompactNetwork`. Images are (1, 3, h, w), RGB in [0, 1]. About so many
    samples of a layer are looked at. Returns the student, and what each layer lost.
    """
    student = CompactNetwork(widths, teacher.widths, ranks, input_ranks)
    maps = LayerSamples(teacher, images, samples, seed)
    projection, reports = torch.eye(3), []
    for index, name in enumerate(NAMES):
        targets = maps.targets(index)
        all_channels = widths[index] == teacher.widths[index]
        chosen = list(range(widths[index])) if all_channels else choose_channels(targets.relu(), widths[index])[0]
        _fit_layer(student, teacher, index, maps, targets, chosen, projection)
        outputs, goal = maps.pass_on(index, partial(student.convolve, index)), targets.relu()
        projection = torch.eye(widths[index]) if all_channels else regress(outputs, goal)
        tap = name.replace("conv", "relu")
        if tap in student.maps:
            student.maps[tap].copy_(projection)
        energy = goal.square().sum()
        best = torch.zeros(()) if all_channels else goal - goal[:, chosen] @ regress(goal[:, chosen], goal).T
        left = goal - outputs @ projection.T
        reports.append(LayerReport(tap, float(best.square().sum() / energy), float(left.square().sum() / energy)))
    return student, reports


def _fit_layer(
    student: CompactNetwork,
    teacher: CompactNetwork,
    index: int,
    maps: LayerSamples,
    targets: Tensor,
    chosen: list[int],
    projection: Tensor,
) -> None:
    """Fill in the layer of an index, at which the maps are, of a student whose earlier layers are done.

    Targets (N, C) are the teacher's values before ReLU; the student has the channels chosen of them. The projection
    (C, c) is the map of the layer before, from the student's channels to the teacher's.
    """
    full = {name: values[chosen] for name, values in teacher.convolution(index).state_dict().items()}
    convolution = torch.nn.Conv2d(len(projection[0]), len(chosen), 3, padding=1)
    convolution.load_state_dict(full | {"weight": torch.einsum("oihw,ij->ojhw", full["weight"], projection)})
    if index:
        _refit(convolution, maps.patches(), targets[:, chosen])
    if not student.ranks[index]:
        student.convolution(index).load_state_dict(convolution.state_dict())
        return
    weight = _factorise(convolution, maps.responses(convolution), student, index)
    if student.input_ranks[index]:
        _reduce(weight, student, index, maps, targets[:, chosen])
    else:
        student.convolution(index).weight.copy_(weight)


def _factorise(convolution: torch.nn.Conv2d, responses: Tensor, student: CompactNetwork, index: int) -> Tensor:
    """Put a convolution into a layer of low rank: E Eᵀ (y - ȳ) + ȳ, E being leading principal components of y.

    Returns what comes before E, (r, C, 3, 3).
    """
    expansion = student.expansion(index)
    assert expansion is not None and convolution.bias is not None
    mean = responses.double().mean(0)
    centred = responses.double() - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    leading = vectors[:, -student.ranks[index] :]
    bias = leading @ (leading.T @ (convolution.bias.double() - mean)) + mean
    expansion.load_state_dict({"weight": leading[:, :, None, None], "bias": bias})
    return torch.einsum("or,oihw->rihw", leading.float(), convolution.weight)


def _reduce(weight: Tensor, student: CompactNetwork, index: int, maps: LayerSamples, targets: Tensor) -> None:
    """Let a convolution of low rank see few combinations of its inputs, and fit it to the targets on these."""
    convolution, reduction, expansion = student.convolution(index), student.reduction(index), student.expansion(index)
    assert reduction is not None and expansion is not None and expansion.bias is not None
    moments = second_moments(maps.responses(lambda x: x))
    narrow, matrix = leading_inputs(weight, moments, student.input_ranks[index])
    convolution.weight.copy_(narrow)
    reduction.weight.copy_(matrix[:, :, None, None])
    goal = (targets - expansion.bias) @ expansion.weight[:, :, 0, 0]  # the columns are orthonormal
    fitted = _fitted(convolution.weight.flatten(1), maps.patches(reduction), goal, lambda x: x)
    convolution.weight.copy_(fitted.view_as(convolution.weight))


def second_moments(inputs: Tensor) -> Tensor:
    """Second moments of (N, C) inputs, made positive definite: (C, C) in float64."""
    x = inputs.double()
    moments = x.T @ x / len(x)
    moments.diagonal().add_(_RIDGE * moments.diagonal().mean())
    return moments


def leading_inputs(weight: Tensor, moments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Write a convolution as one of few combinations of its inputs.

    Chosen are those whose part in the results has most energy, as if neighbouring positions were independent. With
    the inputs' second moments S and W's rows of all 3x3 taps, W S^½ = U D Qᵀ gives the combinations Qᵀ S^-½ x, whose
    own moments are the identity, and the filters W S^½ Q. The weight is (r, C, 3, 3), the moments are (C, C), positive
    definite and float64.

    Returns:
        Filters (r, q, 3, 3) and the matrix (q, C), in the weight's type, q being the count.
    """
    root, inverse = roots(moments)
    flat = weight.to(moments).permute(0, 2, 3, 1).flatten(0, 2) @ root
    leading = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -count:]
    narrow = (flat @ leading).view(len(weight), 3, 3, count).permute(0, 3, 1, 2)
    return narrow.to(weight), (leading.T @ inverse).to(weight)


def roots(moments: Tensor) -> tuple[Tensor, Tensor]:
    """S^½ and S^-½ of a symmetric, positive definite S."""
    values, vectors = torch.linalg.eigh(moments)
    return (vectors * values.sqrt()) @ vectors.T, (vectors * values.rsqrt()) @ vectors.T


def _fitted(old: Tensor, patches: Tensor, targets: Tensor, after: Callable[[Tensor], Tensor]) -> Tensor:
    """Weights (K, D) fitted anew, output by output where that brings what comes after nearer to the targets."""
    fit = len(patches) * 4 // 5  # the images of the last fifth judge
    new = old + regress(patches[:fit], targets[:fit] - patches[:fit] @ old.T)
    goal = after(targets[fit:])
    errors = [(after(patches[fit:] @ weights.T) - goal).square().sum(0) for weights in (old, new)]
    return torch.where((errors[1] < errors[0])[:, None], new, old)


def _refit(convolution: torch.nn.Conv2d, patches: Tensor, targets: Tensor) -> None:
    """Fit a convolution to the teacher's values before ReLU, channel by channel where that helps after it."""
    patches = torch.cat([patches, patches.new_ones(len(patches), 1)], dim=1)
    assert convolution.bias is not None
    old = torch.cat([convolution.weight.flatten(1), convolution.bias[:, None]], dim=1)
    better = _fitted(old, patches, targets, torch.relu)
    convolution.load_state_dict({"weight": better[:, :-1].view_as(convolution.weight), "bias": better[:, -1]})
