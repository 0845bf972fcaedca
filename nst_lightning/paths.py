"""Paths as people write them: ``~`` is a home folder wherever a path is taken, as it is in a shell."""

from __future__ import annotations

import os
from pathlib import Path

from nst_lightning.errors import UserError


def expand(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Put the home folder in place of a leading ``~`` or ``~user``.

    A shell does so only where a word begins, not in ``--output=~/x.png``, and nobody does in YAML. As in a shell, a
    name such as ``~x.png`` that is nobody's stays as it is, and ``./~`` means a file or folder of this name.

    Args:
        path: As it was given.
        name: Argument that gave it, for messages.

    Raises:
        UserError: If there is no such home folder, and no folder of that name either.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return Path(text)
    try:
        expanded = os.path.expanduser(text)  # noqa: PTH111 - pathlib's raises for ~x.png
    except ValueError:  # a NUL, which whoever opens the file says
        return Path(text)
    first, *rest = Path(text).parts
    if expanded == text and (rest or first == "~") and not Path(first).exists():
        raise UserError(
            f"{name}: must begin with a home folder that is known, got '{text}'; write the folder in full, or "
            f"./{first} for one of this name"
        )
    return Path(expanded)
