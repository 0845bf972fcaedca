"""Files that grow: what they hold stays where it is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def append(path: Path, data: bytes, length: int) -> int:
    """Add to the end of a file, and wait until it is on the disk; returns its new length.

    Bytes beyond the length that it has are the rest of an attempt that failed, and are removed.

    Raises:
        OSError: The file cannot be written to, or the disk is full; then it holds what it held.
    """
    with path.open("r+b", buffering=0) as file:
        file.truncate(length)
        file.seek(length)
        try:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(length)
            raise
    return length + len(data)
