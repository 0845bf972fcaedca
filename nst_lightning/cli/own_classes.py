"""Where classes of one's own are found: in the current folder and beside the configurations."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nst_lightning.config.presets import CONFIG_FLAGS, options_in


@contextlib.contextmanager
def own_classes(args: Sequence[str]) -> Iterator[None]:
    """Find modules in the current folder and beside the configurations, after all that is installed.

    They come last, so that a ``random.py`` among one's pictures takes nobody's place.
    """
    added = [folder for folder in dict.fromkeys(_folders(args)) if folder not in sys.path]
    sys.path += added
    importlib.invalidate_caches()  # a file may be newer than the last look at its folder
    try:
        yield
    finally:
        for folder in added:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)


def _folders(args: Sequence[str]) -> Iterator[str]:
    with contextlib.suppress(OSError):  # it may have been removed
        yield str(Path.cwd())
    for flag, value in options_in(args):
        if flag in CONFIG_FLAGS and Path(value).is_file():
            yield str(Path(value).resolve().parent)
