"""Style as a set of colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.errors import check_at_least
from nst_lightning.losses.blocks import BlockMeans, BlockReference, Blocks
from nst_lightning.losses.reference import Window
from nst_lightning.losses.term import IMAGE, Layer, Matrices, Term, balance
from nst_lightning.losses.transport import relaxed_distance

_SOFT = 1e-3  # of colours in [0, 1]: below this a distance counts by its square, for a gradient at no distance


class StyleColours(NamedTuple):
    """Colours of one style."""

    colours: Tensor  # (m, 3)
    masses: Tensor  # (m,), with the sum 1
    share: float  # of the blend


class PaletteTarget(NamedTuple):
    """What `Palette` compares with."""

    styles: list[StyleColours]
    blocks: Blocks  # of the image
    total: float  # sum of the weights of all its pixels
    counting: Tensor  # (n,), indices of the blocks in which something counts
    scale: Tensor  # what to divide by, a scalar


class Palette(Term):
    """Take on the style's colours, all of them and no others, by the relaxed earth mover's distance.

    As `RelaxedEMD`, of colours in place of features and by their Euclidean distance (Kolkin, Salavon and Shakhnarovich
    2019, Style Transfer by Relaxed Optimal Transport and Self-Similarity, section 2.2, the colour matching loss, over
    its value at the content). They turn RGB so that the mean of the channels is an axis, which leaves distances as they
    are. Colours are means over equal rectangles of the picture, not of single pixels, which would become dots.

    It says nothing of where colours are; it is made to stand beside a term of features.

    Args:
        weight: Factor on the term.
        samples: Rectangles that the picture, and each style, is divided into, at most.
    """

    group = "style"
    weighs_cells = weighs_styles = balanced = True

    def __init__(self, weight: float = 1.0, samples: int = 1024) -> None:
        super().__init__([IMAGE], weight)
        check_at_least(f"{self.name}.samples", samples, 1)
        self.samples = samples

    def content_reference(self, layer: Layer) -> BlockReference:
        """Mean colours of rectangles."""
        return BlockReference(self.samples)

    style_reference = content_reference

    def style_target(self, layer: Layer, styles: Sequence[tuple[BlockMeans, float]]) -> list[StyleColours]:
        """The styles' colours."""
        found = [(means, blocks.weights, blocks.counting(), share) for (means, blocks, _), share in styles]
        return [StyleColours(means[counting], masses[counting], share) for means, masses, counting, share in found]

    def target(self, layer: Layer, content: BlockMeans, style: list[StyleColours]) -> PaletteTarget:
        """The same, with the blocks of the image and the distance of the content."""
        means, blocks, total = content
        target = PaletteTarget(style, blocks, total, blocks.counting(), means.new_ones(()))
        at_content = self._distance(means, target)
        return target._replace(scale=balance(at_content, torch.ones_like(at_content)))

    def matrices(self, cells: int) -> Matrices:
        """Of samples by samples, in float32: of each channel, their sum and its root."""
        one = 4 * min(self.samples, cells) ** 2
        return Matrices(left=5 * one, passing=4 * one)

    def measure(self, layer: Layer, features: Tensor, window: Window, target: PaletteTarget) -> Tensor:
        """Sums of colours over blocks of the picture, (1, 3, rows, columns) -> (n, 3)."""
        return target.blocks.sums(features, window)

    def loss(self, layer: Layer, mean: Tensor, target: PaletteTarget) -> Tensor:
        """Distance from the styles' colours over that of the content."""
        return self._distance(target.blocks.means(mean * target.total), target) / target.scale

    @staticmethod
    def _distance(means: Tensor, target: PaletteTarget) -> Tensor:
        colours, masses = means[target.counting], target.blocks.weights[target.counting]
        found = [
            style.share * relaxed_distance(colour_distances(colours, style.colours), masses, style.masses)
            for style in target.styles
        ]
        return torch.stack(found).sum()


def colour_distances(some: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances of (n, 3) and (m, 3) colours, rounded off below a thousandth: (n, m)."""
    squares = torch.stack([(one[:, None] - other).square() for one, other in zip(some.T, others.T, strict=True)]).sum(0)
    return (squares + _SOFT**2).sqrt() - _SOFT
