"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the body ends without an exception.

    Until then it lies beside ``path`` under another name, since only within one file system is a rename
    atomic; on an exception it is removed and whatever ``path`` held stays. A link is written through.

    Args:
        path: The file to write; its folder must exist.
        durable: Wait until file and folder are on the disk, so that they outlive the machine, not only the process.

    Yields:
        The new file, open for reading and writing; its permissions are those that the umask gives.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    temporary, target = _beside(path)
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, target)  # noqa: PTH105 - what pathlib calls differs between versions of Python
        if durable:
            _flush_folder(target.parent)
    except BaseException:  # an interrupt must not leave the file behind either
        temporary.unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """Make a rename last; systems that cannot open folders do so themselves."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def check_replaceable(path: Path) -> None:
    """Try whether ``replacing`` could make its file; leaves nothing behind.

    Raises:
        OSError: The folder does not exist or cannot be written to.
    """
    temporary, _ = _beside(path)
    try:
        temporary.open("xb").close()
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> tuple[Path, Path]:
    target = Path(os.path.realpath(path))
    # Not tempfile.mkstemp, which makes files that only their owner may read.
    return target.with_name(f".nst-{secrets.token_hex(8)}.tmp"), target
