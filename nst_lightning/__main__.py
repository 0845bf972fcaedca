"""``python -m nst_lightning`` is the command ``nst``."""

import contextlib
import os
import sys

# `python -m` puts the current folder first, where a random.py among one's pictures would take the library's place.
with contextlib.suppress(OSError):  # a folder that is gone, which the command says in a line
    if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109 - pathlib is not imported yet
        sys.path.append(sys.path.pop(0))

from nst_lightning.cli import entry_point

entry_point()
