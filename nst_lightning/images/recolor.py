"""Colours of one picture for another: by luma, by mean and covariance, or by the whole distribution of colours."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Rec. ITU-R BT.601-7, section 2.5.1: the luma of JPEG's and Pillow's YCbCr.
_LUMA = (0.299, 0.587, 0.114)
_SMALLEST_VARIANCE = 1e-6  # a quarter of an 8-bit step, squared: a grey picture's chroma has no direction to stretch
_ROTATIONS = 16  # with more of them the distance between distributions hardly falls
_SAMPLES = 1 << 18  # pixels sampled from a distribution: ranks to a thousandth, and tables that fit a cache
_KNOTS = 1 << 14  # entries of the table of a map of values
_BLOCK = 1 << 20  # pixels moved at a time
_ROUNDING = 2.5 / 255  # largest difference between channels of a grey picture, after JPEG's chroma and a profile
_ROWS = 256  # rows searched for colour at a time: most pictures have some in the first ones


def luma(picture: Tensor) -> Tensor:
    """Y' of gamma-encoded RGB: (1, 3, H, W) in [0, 1] -> (1, 1, H, W) in [0, 1]."""
    weights = picture.new_tensor(_LUMA).view(1, 3, 1, 1)
    return (picture * weights).sum(1, keepdim=True)


def is_grey(picture: Tensor) -> bool:
    """Whether red, green and blue of (1, 3, H, W) in [0, 1] are the same everywhere, but for rounding."""
    strips = torch.split(picture, _ROWS, dim=-2)
    return all(bool((rows.amax(1) - rows.amin(1) <= _ROUNDING).all()) for rows in strips)


def as_grey(picture: Tensor) -> Tensor:
    """Luma in all three channels: (1, 3, H, W) -> (1, 3, H, W), the channels equal to the last bit."""
    return luma(picture).repeat(1, 3, 1, 1)


def with_luma(picture: Tensor, wanted: Tensor) -> Tensor:
    """Give a picture another luma and leave its chroma as it is.

    The same number added to R, G and B changes Y' and neither Cb nor Cr, nor I and Q (Gatys et al. 2016, Preserving
    Color in Neural Artistic Style Transfer, transfers luminance so). Luma stops where a channel would leave [0, 1];
    clamping channels one by one would change the colour. The picture is (1, 3, H, W), RGB in [0, 1], and the wanted
    luma (1, 1, H, W); a colour that is beyond gets no farther beyond.
    """
    low, high = picture.amin(1, keepdim=True), picture.amax(1, keepdim=True)
    change = wanted - luma(picture)
    change = change.clamp(min=-low.clamp(min=0), max=1 - high.clamp(max=1))
    return torch.clamp(picture + change, low.clamp(max=0), high.clamp(min=1))  # but for rounding


def match_luma(
    picture: Tensor, reference: Tensor, weights: Tensor | None = None, reference_weights: Tensor | None = None
) -> Tensor:
    """Bring the mean and deviation of luma (1, 1, h, w) to those of another picture (Gatys et al. 2016, as above).

    Weights of the same shapes say how much each pixel counts, None that all count alike. The result is in [0, 1].
    """
    mean, variance = _mean_and_variance(picture, weights)
    wanted, target = _mean_and_variance(reference, reference_weights)
    scale = (target / variance.clamp(min=_SMALLEST_VARIANCE)).sqrt()
    return (scale * (picture - mean) + wanted).clamp(0, 1)


def _mean_and_variance(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    weight = torch.full_like(values, 1 / values.numel()) if weights is None else weights / weights.sum()
    mean = (values * weight).sum()
    return mean, ((values - mean).square() * weight).sum()


def match_colors(
    picture: Tensor,
    reference: Tensor,
    weights: Tensor | None = None,
    reference_weights: Tensor | None = None,
    clamp: bool = True,
) -> Tensor:
    """Bring mean and covariance of colours to those of another picture, moving colours as little as can be.

    The optimal transport between Gaussians (Pitié and Kokaram 2007, The Linear Monge-Kantorovitch Linear Colour
    Mapping), on gamma-encoded values, whose steps are about equal to the eye; in linear light a few highlights would
    make up the covariance. Pictures are (1, 3, h, w), RGB in [0, 1], and weights, which say how much each pixel counts,
    (1, 1, h, w), or None where all count alike; all pixels are moved, and clamped to [0, 1] if asked for.
    """
    mean, covariance = _moments(picture, weights)
    wanted, target = _moments(reference, reference_weights)
    root, inverse = _root(covariance), _root(covariance, -0.5)
    transport = (inverse @ _root(root @ target @ root) @ inverse).to(picture)
    moved = torch.einsum("ij,njhw->nihw", transport, picture - mean.to(picture).view(1, 3, 1, 1))
    moved = moved + wanted.to(picture).view(1, 3, 1, 1)
    return moved.clamp(0, 1) if clamp else moved


def match_histogram(
    picture: Tensor, reference: Tensor, weights: Tensor | None = None, reference_weights: Tensor | None = None
) -> Tensor:
    """Bring the distribution of colours to that of another picture.

    Iterative distribution transfer (Pitié, Kokaram and Dahyot 2007, Automated Colour Grading Using Colour Distribution
    Transfer, section 3): in turn along the axes of random rotations, values become the reference's quantiles of their
    rank. It sees palettes of separate colours, which mean and covariance do not. The last axes are the
    channels themselves, whose histograms thus become the reference's. Equal colours stay equal, and rotations are the
    same in each call. The paper's second step, against enlarged grain, is left out.

    Shapes are as in `match_colors`. Of a large picture each map is made from pixels on a regular grid, and applied to
    all; pixels with more than half of the largest weight count. The result is clamped to [0, 1].
    """
    moved = list(picture[0])
    counted, wanted_ones = _counted(picture, weights), _counted(reference, reference_weights)
    wanted = [_sampled(channel)[wanted_ones] for channel in reference[0]]
    for rotation in _rotations():
        moved = _combined(rotation, moved)
        for axis, target in enumerate(_combined(rotation, wanted)):
            moved[axis] = _with_distribution(moved[axis], _sampled(moved[axis])[counted], target)
        moved = _combined(rotation.T, moved)
    return torch.stack(moved)[None].clamp(0, 1)


def _counted(picture: Tensor, weights: Tensor | None) -> Tensor:
    """Which of the sampled pixels count, (h, w)."""
    sampled = torch.ones_like(_sampled(picture[0, 0])) if weights is None else _sampled(weights[0, 0])
    return (sampled > 0.5 * sampled.max()) | (sampled.max() == 0)


def _rotations() -> Tensor:
    """Random orthogonal matrices, the same each time, and then the identity: (n, 3, 3), float64."""
    drawn = torch.randn(_ROTATIONS, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotations: Tensor = torch.linalg.qr(drawn).Q
    return torch.cat([rotations, torch.eye(3, dtype=torch.float64)[None]])


def _combined(matrix: Tensor, channels: list[Tensor]) -> list[Tensor]:
    """A (3, 3) matrix times colours, pixel by pixel: a matrix product may round equal colours differently."""
    red, green, blue = channels
    return [a * red + b * green + c * blue for a, b, c in matrix.tolist()]


def _with_distribution(values: Tensor, sample: Tensor, target: Tensor) -> Tensor:
    """Move values (h, w) to the quantiles of `target` (m,) that have their rank.

    Ranks are those in `sample` (n,), which are some of the values; equal values get the middle one of theirs.
    """
    knots, counts = torch.unique_consecutive(sample.sort().values, return_counts=True)
    levels = (counts.cumsum(0).double() - counts / 2) / len(sample)
    ordered = target.sort().values
    position = (levels * len(ordered) - 0.5).clamp(0, len(ordered) - 1)
    moved = torch.lerp(ordered[position.floor().long()], ordered[position.ceil().long()], position.frac().to(ordered))
    if len(knots) == 1:
        return moved.expand_as(values)
    if len(knots) > _KNOTS:  # a table that stays in the cache, and still far finer than 8 bits
        chosen = torch.linspace(0, len(knots) - 1, _KNOTS).round().long()
        knots, moved = knots[chosen], moved[chosen]
    rows = max(1, _BLOCK // values.shape[1])
    return torch.cat([_interpolated(block, knots, moved) for block in torch.split(values, rows)])


def _interpolated(values: Tensor, knots: Tensor, at_knots: Tensor) -> Tensor:
    """A function that is linear between knots (n,), ascending, and constant beyond, of values of any shape."""
    upper = torch.searchsorted(knots, values.contiguous()).clamp(1, len(knots) - 1)
    left = knots[upper - 1]
    fraction = ((values - left) / (knots[upper] - left)).clamp(0, 1)
    return torch.lerp(at_knots[upper - 1], at_knots[upper], fraction)


def _sampled(picture: Tensor) -> Tensor:
    """Pixels of (..., H, W) on a regular grid, no more than enough."""
    step = max(1, math.ceil(math.sqrt(picture.shape[-2] * picture.shape[-1] / _SAMPLES)))
    return picture[..., ::step, ::step]


def _moments(picture: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of colours, in float64 on the CPU: three numbers a picture."""
    pixels = picture.detach().cpu().double()[0].flatten(1)
    counts = None if weights is None else weights.detach().cpu().double().flatten()
    covariance = torch.cov(pixels, correction=0, aweights=counts)
    covariance += _SMALLEST_VARIANCE * torch.eye(3, dtype=torch.float64)
    return (pixels.mean(1) if counts is None else pixels @ (counts / counts.sum())), covariance


def _root(matrix: Tensor, power: float = 0.5) -> Tensor:
    """A power of a symmetric positive matrix (3, 3)."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    powered: Tensor = (vectors * values.clamp(min=torch.finfo(values.dtype).tiny) ** power) @ vectors.T
    return powered
