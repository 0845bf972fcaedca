"""CFSD, the content feature structural distance of Chung, Hyun and Heo (2024, Style Injection in Diffusion)."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_lightning.images.resize import resize, target_size
from nst_lightning.judging.backbones import Weights, vgg16

LAYER = "relu3_1"
_SIDE = 512  # px; the authors judge pictures of 512x512
_CELLS = (_SIDE // 4) ** 2  # of the layer, in such a picture
_ROWS = 128  # number of cells whose similarities are held at a time; more leave a CPU's caches


def structure_distance(weights: Weights, result: Tensor, content: Tensor) -> float:
    """CFSD of a result to its content: whether cells are as alike to each other as they are in the content.

    Pictures with a side above 512 px are reduced to that.

    Args:
        weights: As `backbone_weights` gives those of VGG-16.
        result: (1, 3, H, W), RGB in [0, 1].
        content: The same shape.

    Returns:
        0 for the content itself; results of style transfer have about 0.1 to 1.
    """
    height, width = result.shape[-2:]
    if max(height, width) > _SIDE:
        size = target_size(height, width, _SIDE)
        result, content = (resize(image, size).clamp(0, 1) for image in (result, content))
    ours, theirs = (_cells(weights, image) for image in (result, content))
    return self_similarity_divergence(ours, theirs)


def self_similarity_divergence(ours: Tensor, theirs: Tensor) -> float:
    """Kullback-Leibler divergence of self-similarities, D(theirs || ours), summed over as many rows as at 512x512 px.

    The similarity of two cells is their product over C², and a row of them, for one cell, becomes a distribution by
    softmax. That is the authors' program, which adds rows up (``batchmean`` of a batch of one); here their mean is
    taken, times the 16,384 rows of a picture of 512x512 px, so that pictures of other sizes can be compared.

    Args:
        ours: Cells of a layer, (n, C).
        theirs: The same shape.
    """
    cells, channels = ours.shape
    ours, theirs = ours / channels, theirs / channels
    total = torch.zeros((), dtype=torch.float64)
    for mine, their in zip(torch.split(ours, _ROWS), torch.split(theirs, _ROWS), strict=True):
        total += _divergences(their @ theirs.T, mine @ ours.T).sum(dtype=torch.float32).cpu()
    return float(total) * _CELLS / cells


def _divergences(logits: Tensor, others: Tensor) -> Tensor:
    """D(softmax(logits) || softmax(others)) of rows, (k, n) -> (k,).

    The distributions are nearly uniform, and their logarithms near -log n: what tells them apart would be lost in the
    last digits of these, so that only differences from uniform are computed.
    """
    logits, others = (rows - rows.amax(1, keepdim=True) for rows in (logits, others))
    differences, above = logits - others, torch.expm1(logits)
    mean, other_mean = above.mean(1), torch.expm1(others).mean(1)  # of a uniform one 0
    expected = (differences.mean(1) + (above * differences).mean(1)) / (1 + mean)
    return expected + torch.log1p(other_mean) - torch.log1p(mean)


def _cells(weights: Weights, image: Tensor) -> Tensor:
    """Cells of the layer, (n, C)."""
    features = next(x for layer, x in vgg16(weights, image) if layer == LAYER)
    return features[0].flatten(1).T.contiguous()
