"""Folders that outlive the machine, not only the process."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, unless it is there; returns it.

    A file that is flushed to the disk is lost all the same if the entry of the folder that it lies in is not there.

    Raises:
        OSError: If that cannot be done, or something else is in the way.
    """
    missing = []
    above = path
    while not above.is_dir() and above != above.parent:
        missing.append(above)
        above = above.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process is doing the same, or the next line says so
            folder.mkdir()
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        flush_folder(folder.parent)
    return path


def flush_folder(folder: Path) -> None:
    """Make what was named, renamed or removed in a folder last; systems that cannot open folders do so themselves."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
