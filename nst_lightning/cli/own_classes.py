"""Where classes of one's own are found: in the current folder and beside the configurations."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


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
    for arg, after in zip(args, [*args[1:], ""], strict=True):
        flag, equals, value = arg.partition("=")
        if flag in {"-c", "--config"}:
            path = Path(value if equals else after)
            if path.is_file():
                yield str(path.resolve().parent)
