"""Pictures in tiles that a network sees with what lies around them, so that cells are those of the whole picture.

The largest maps of VGG-16 take a kilobyte a pixel. In tiles they are as large as a tile, whatever the picture.
"""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

from torch import Tensor

CORE = 1024  # px of a side at most; what a tile sees beyond it is computed twice
_STRIDE = 16  # px of a cell of the deepest layers; tiles begin where such a cell does
# A cell of the deepest layer sees 90 px more on each side than it stands for: a convolution sees a cell more, which is
# 1 px twice in the first block, 2 px twice in the second, then 4, 8 and 16 px three times each.
AROUND = 96


class Tile(NamedTuple):
    """A part of a picture, in pixels: what counts of it, and what is looked at."""

    rows: tuple[int, int]  # first, and the one after the last; the tiles' fill the picture
    columns: tuple[int, int]
    seen_rows: tuple[int, int]
    seen_columns: tuple[int, int]

    @property
    def area(self) -> int:
        """Pixels that are looked at."""
        (top, bottom), (left, right) = self.seen_rows, self.seen_columns
        return (bottom - top) * (right - left)

    def of(self, picture: Tensor) -> Tensor:
        """What is looked at, of a picture (1, 3, H, W)."""
        return picture[..., slice(*self.seen_rows), slice(*self.seen_columns)]

    def cells(self, features: Tensor, stride: int) -> Tensor:
        """What counts, of the features of what is looked at, (1, C, h, w), with cells of so many pixels a side."""
        for dim, part, seen in ((-2, self.rows, self.seen_rows), (-1, self.columns, self.seen_columns)):
            first, end = (edge // stride - seen[0] // stride for edge in part)
            features = features.narrow(dim, first, min(end, features.shape[dim]) - first)
        return features


def make_tiles(height: int, width: int) -> list[Tile]:
    """Tiles of about one size that fill a picture; a single one for a small picture."""
    rows, columns = _parts(height), _parts(width)
    return [Tile(down, along, _seen(down, height), _seen(along, width)) for down, along in product(rows, columns)]


def _parts(length: int) -> list[tuple[int, int]]:
    count = math.ceil(length / CORE)
    edges = [_STRIDE * (index * length // (count * _STRIDE)) for index in range(count)]
    return list(zip(edges, [*edges[1:], length], strict=True))


def _seen(part: tuple[int, int], length: int) -> tuple[int, int]:
    return max(0, part[0] - AROUND), min(length, part[1] + AROUND)
