"""How an image is cut into tiles. Pure arithmetic, no tensors.

A tile has a core, and a crop around it that holds what the network needs to see. Cores cover the image once; they begin
on multiples of the deepest layer's stride, so that each cell of each layer belongs to the core of one tile only. A crop
ends a halo beyond its core, or at the border of the image, where the network pads as it does for the whole.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from nst_lightning.losses.reference import Window

_NEXT_TO_NOTHING = 1.03  # times the pixels of the best grid


class Box(NamedTuple):
    """Rows from `top` up to and without `bottom`, columns from `left` up to and without `right`, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


class Tile(NamedTuple):
    """One tile of an image of a height and width."""

    core: Box  # pixels whose cells are counted here
    crop: Box  # pixels that the network sees
    height: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> Tile:
        """The one tile of an image that is evaluated at once."""
        box = Box(0, height, 0, width)
        return cls(box, box, height, width)

    @property
    def is_whole(self) -> bool:
        """Whether this is all of the image."""
        return self.core == (0, self.height, 0, self.width)

    def window(self, stride: int) -> Window:
        """The core's cells at a layer; pooling leaves incomplete cells at the lower and right border out."""
        height, width = self.height // stride, self.width // stride
        rows = slice(self.core.top // stride, min(self.core.bottom // stride, height))
        columns = slice(self.core.left // stride, min(self.core.right // stride, width))
        return Window(rows, columns, height, width)

    def inside(self, stride: int) -> tuple[slice, slice]:
        """Where the cells of `window` lie in the feature map of the crop."""
        window = self.window(stride)
        top, left = self.crop.top // stride, self.crop.left // stride
        return (
            slice(window.rows.start - top, window.rows.stop - top),
            slice(window.columns.start - left, window.columns.stop - left),
        )


def make_grid(size: tuple[int, int], tile: int, halo: int, stride: int, shares: int = 1) -> list[Tile]:
    """Cut an image into the fewest pixels of crops.

    Args:
        size: Height and width of the image.
        tile: Longest side of a core; the last one also owns what is left over from multiples of the stride.
        halo: Pixels that a crop reaches beyond its core, a multiple of the stride.
        stride: Cores begin on its multiples.
        shares: Number of equal shares that the tiles are to be divided into; where the image is too small for that,
            there are fewer tiles. Where it costs next to nothing the tiles are those of one share, since only then are
            the results its to the last bit.

    Returns:
        Tiles row by row.
    """
    fewest = [max(1, -(-(length // stride * stride) // tile)) for length in size]
    most = [max(1, length // stride) for length in size]

    def cost(counts: tuple[int, int]) -> tuple[int, int]:
        tiles = _tiles(size, counts, halo, stride)
        crops = sorted((t.crop.area for t in tiles), reverse=True)
        return sum(crops[::shares]), sum(crops)  # the largest share, as tiles are dealt out

    choices = [
        (down, across)
        for down in range(fewest[0], min(fewest[0] + shares, most[0] + 1))
        for across in range(fewest[1], min(fewest[1] + shares, most[1] + 1))
        if down * across % shares == 0
    ]
    alone = fewest[0], fewest[1]
    best = min(choices, key=cost) if choices else alone
    enough = alone[0] * alone[1] >= shares and cost(alone)[0] <= _NEXT_TO_NOTHING * cost(best)[0]
    return _tiles(size, alone if enough else best, halo, stride)


def _tiles(size: tuple[int, int], counts: tuple[int, int], halo: int, stride: int) -> list[Tile]:
    down, across = (_cuts(length, count, stride) for length, count in zip(size, counts, strict=True))
    height, width = size
    return [
        Tile(
            Box(top, bottom, left, right),
            Box(max(0, top - halo), min(height, bottom + halo), max(0, left - halo), min(width, right + halo)),
            height,
            width,
        )
        for top, bottom in pairwise(down)
        for left, right in pairwise(across)
    ]


def _cuts(length: int, count: int, stride: int) -> list[int]:
    cells = length // stride
    return [*(stride * (cells * i // count) for i in range(count)), length]
