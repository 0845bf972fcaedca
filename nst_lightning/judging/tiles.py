"""Large pictures in tiles that VGG-16 sees with what lies around them, so that cells are those of the whole picture.

Its largest maps take a kilobyte a pixel. In tiles they are as large as a tile, whatever the picture.
"""

from __future__ import annotations

from torch import Tensor

from nst_lightning.losses.grid import Tile, make_grid

CORE = 1024  # px of a side that counts, at most; what a tile sees beyond it is computed twice
_STRIDE = 16  # px of a cell of the deepest layers
# A cell of the deepest layer sees 90 px more on each side than it stands for: a convolution sees a cell more, which is
# 1 px twice in the first block, 2 px twice in the second, then 4, 8 and 16 px three times each.
AROUND = 96


def make_tiles(height: int, width: int) -> list[Tile]:
    """Tiles of about one size that fill a picture; a single one for a small picture."""
    return make_grid((height, width), CORE, AROUND, _STRIDE)


def cells(tile: Tile, features: Tensor, stride: int) -> Tensor:
    """What counts, of the features of a tile's crop, (1, C, h, w), with cells of so many pixels a side."""
    rows, columns = tile.inside(stride)
    return features[..., rows, columns]
