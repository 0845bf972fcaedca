"""A content and a style picture to try the program with, shipped inside the package.

`CONTENT` is a photograph of an espresso in a red cup by Rachel Michetti, courtesy of Pikolo Espresso Bar; she
released it under CC0 and scikit-image distributes it. `STYLE` is this project's own work and has its licence:
`tools/paint_demo_style.py` paints it. `MASK` is white where cup and saucer are, with soft edges;
`tools/draw_demo_mask.py` draws it. `NOTICE.md` has the details.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nst_lightning.files.paths import expand

CONTENT: Final[Path] = Path(__file__).parent / "content.jpg"
STYLE: Final[Path] = Path(__file__).parent / "style.jpg"
MASK: Final[Path] = Path(__file__).parent / "mask.png"

__all__ = ["CONTENT", "MASK", "STYLE", "locate"]


def locate(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Find the pictures of the demo by their names, wherever the package lies; others by their paths.

    Args:
        path: A name or a path.
        name: Argument that gave it, for messages.

    Raises:
        UserError: If it begins with a home folder that is not there.
    """
    named = {"demo:content": CONTENT, "demo:style": STYLE, "demo:mask": MASK}.get(os.fspath(path))
    return expand(path, name) if named is None else named
