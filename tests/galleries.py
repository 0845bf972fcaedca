"""What becomes of a gallery, whoever makes its pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

from nst_lightning.errors import UserNotice


def make(gallery, engine=None, tell=None):
    """What became of a gallery, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserNotice)
        summary = gallery.make(tell, engine)
    return summary, sorted({str(notice.message) for notice in said})


def contents(folder):
    """Bytes of each picture in a folder by its name."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix in {".png", ".jpg"}}
