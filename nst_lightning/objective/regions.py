"""Regions of a content and the parts of styles that are most like them, from what a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.features import Extractor
from nst_lightning.features.kernels.pointwise import pointwise
from nst_lightning.hardware.numerics import one_thread
from nst_lightning.objective.clusters import k_means, memberships
from nst_lightning.objective.matching import transport

MOST = 8  # regions; more than anybody sees in a picture
_LAYERS = ("relu4_1", "relu5_1")
_FINER = 2  # clusters of a style for each of the content's
_SOFTNESS = 0.2  # of clusters' edges
_SHARPNESS, _FREEDOM = 20.0, 0.5  # of transport
# A region whose likeness to its part of the style, as a mean cosine, is below this takes from the rest as well.
_ALIKE = 0.15
_LEAST = 0.02  # of any place in any region: none is without cells
# Of the rest of the style in all regions: strokes of a small part alone cover what is fine in the content.
_REST = 0.1


class FoundRegions(NamedTuple):
    """Soft regions of a content and what belongs to them in styles; of any size, the pictures' parts are theirs."""

    content: Tensor  # (1, N, h, w), above 0, sums to 1 over regions
    styles: Sequence[Tensor]  # of each style how much its places count for each region, (1, N, h, w) in (0, 1]

    @classmethod
    def unknown(cls, count: int, styles: int) -> FoundRegions:
        """Regions that are all alike, before any have been looked for."""
        return cls(torch.full((1, count, 1, 1), 1 / count), [torch.ones(1, count, 1, 1)] * styles)


@torch.no_grad()
def find_regions(extractor: Extractor, content: Tensor, styles: Sequence[Tensor], count: int) -> FoundRegions:
    """Divide a content into regions, and match each to the parts of each style that are most like it.

    The content's cells are brought into `count` clusters of deep features, those of a style into twice as many.
    Features count relative to their mean and deviation in their own picture, as photographs and paintings differ in
    both. Clusters of the style go to regions by optimal transport of cosine distances, which need not use all of the
    style; a region that nothing there resembles takes from all of it.

    Args:
        extractor: The frozen network, on the pictures' device.
        content: (1, 3, H, W), RGB in [0, 1], of a size at which the network knows things.
        styles: Likewise.
        count: Number of regions, from 1 to the number of cells.

    Returns:
        The regions, on the CPU in float32. The same pictures and network give the same bits.
    """
    cells = _cells(extractor, content)
    found = [_cells(extractor, style) for style in styles]
    with one_thread():
        centres = k_means(_points(cells), count)
        belonging = memberships(_points(cells), centres, _SOFTNESS)
        parts = [_part(_points(style), centres, belonging.mean(0)) for style in found]
        masks = [_map(part, style) for part, style in zip(parts, found, strict=True)]
        return FoundRegions(_map(_floored(belonging), cells), masks)


def _part(points: Tensor, regions: Tensor, areas: Tensor) -> Tensor:
    """How much each of a style's points counts for each region: (n, N), at most 1."""
    clusters = k_means(points, min(len(points), _FINER * len(regions)))
    belonging = memberships(points, clusters, _SOFTNESS)
    sizes = belonging.mean(0)
    cost = 1 - F.normalize(regions, dim=1) @ F.normalize(clusters, dim=1).T
    plan = transport(cost, areas, sizes, _SHARPNESS, _FREEDOM)
    masks = belonging @ (plan / sizes).T
    masks = masks / masks.amax(0)
    likeness = ((plan * (1 - cost)).sum(1) / plan.sum(1)).clamp(min=0)
    unlike = (1 - likeness / _ALIKE).clamp(min=_REST)
    return unlike + (1 - unlike) * masks


def _floored(belonging: Tensor) -> Tensor:
    count = belonging.shape[1]
    return (1 - _LEAST) * belonging + _LEAST / count


def _cells(extractor: Extractor, picture: Tensor) -> Tensor:
    """Standardised features of deep layers, side by side on the first one's grid: (1, C, h, w), in double precision."""
    layers = [layer for layer in _LAYERS if layer in extractor.strides] or list(extractor.strides)[-1:]
    features = extractor(picture, layers)
    size = features[layers[0]].shape[-2:]
    return torch.cat([_standardised(extractor, layer, features[layer], size) for layer in layers], dim=1)


def _standardised(extractor: Extractor, layer: str, features: Tensor, size: torch.Size) -> Tensor:
    """A layer's features about their means, in units of their deviations, and with unit length at each place."""
    features = features.cpu().double()
    projection = extractor.projection(layer)
    if projection is not None:
        features = pointwise(features, projection.cpu().double())
    features = features - features.mean((2, 3), keepdim=True)
    deviation = features.square().mean((2, 3), keepdim=True).sqrt()
    features = features / (deviation + 1e-3 * deviation.mean()).clamp(min=1e-12)
    if features.shape[-2:] != size:
        features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    return F.normalize(features, dim=1)


def _points(cells: Tensor) -> Tensor:
    return cells[0].flatten(1).T.contiguous()


def _map(weights: Tensor, cells: Tensor) -> Tensor:
    return weights.T.reshape(1, weights.shape[1], *cells.shape[-2:]).float()
