"""A file that cannot be written costs itself, not the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nst_lightning.errors import UserError, notice


@contextlib.contextmanager
def only_the_file(path: str | Path, verb: str = "write") -> Iterator[None]:
    """Turn a failure to write, or to do something else with a file, into a warning that names it."""
    try:
        yield
    except (OSError, UserError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        notice(f"could not {verb} {path}: {reason}; the run goes on", stacklevel=3)
