"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass
class Replacement:
    """A new file on its way to its place.

    Attributes:
        file: Open for reading and writing.
        aside: Where the file that was in its place has gone; None while there is none.
    """

    file: BinaryIO
    aside: Path | None = None


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
    with keeping(path, None, durable=durable) as new:
        yield new.file


@contextlib.contextmanager
def keeping(path: Path, replaceable: Callable[[Path], bool] | None, *, durable: bool = True) -> Iterator[Replacement]:
    """As ``replacing``, but a file that is there already is moved aside unless it may be lost.

    It goes to a number that is free: ``picture.png`` to ``picture_001.png``. At every moment each file is whole under
    one name, also if several processes do so at once.

    Args:
        path: The file to write; its folder must exist.
        replaceable: Says of the file that is there whether it may be lost; asked when the new one is written. None
            for always.
        durable: As for ``replacing``.

    Yields:
        The new file; when the context has ended, it says where the old one went.

    Raises:
        OSError: As for ``replacing``.
    """
    temporary, target = _beside(path)
    try:
        with temporary.open("x+b") as file:
            new = Replacement(file)
            yield new
            file.flush()
            if durable:
                os.fsync(file.fileno())
        new.aside = _put(temporary, target, replaceable)
        if durable:
            _flush_folder(target.parent)
    except BaseException:  # an interrupt must not leave the file behind either
        temporary.unlink(missing_ok=True)
        raise


def _put(temporary: Path, target: Path, replaceable: Callable[[Path], bool] | None) -> Path | None:
    """Give a new file its name; returns where the file that had it has gone."""
    aside = None
    while replaceable is not None:
        if target.exists():
            if replaceable(target):
                break
            aside = _move_aside(target) or aside
        try:
            os.link(temporary, target)  # unlike a rename never replaces what another process put there meanwhile
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            break
        with contextlib.suppress(OSError):  # the file is there; a second name of it that stays does no harm
            temporary.unlink()
        return aside
    os.replace(temporary, target)  # noqa: PTH105 - what pathlib calls differs between versions of Python
    return aside


def _move_aside(path: Path) -> Path | None:
    """Rename a file to the first free number; returns None if somebody else has just done so."""
    number = 1
    while True:
        aside = path.with_name(f"{path.stem}_{number:03d}{path.suffix}")
        try:
            aside.open("xb").close()  # the name is ours now
        except FileExistsError:
            number += 1
            continue
        try:
            os.replace(path, aside)  # noqa: PTH105
        except FileNotFoundError:
            aside.unlink()
            return None
        except BaseException:
            aside.unlink()
            raise
        return aside


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
