"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nst_lightning.files.folders import flush_folder

_UNFINISHED = ".nst-{}.tmp"


@dataclass
class Replacement:
    """A new file on its way to its place."""

    file: BinaryIO  # open for reading and writing
    aside: Path | None = None  # where the file that was in its place has gone; None while there is none


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the body ends without an exception.

    Until then it lies beside ``path`` under another name, since only within one file system is a rename
    atomic; on an exception it is removed and whatever ``path`` held stays. A link is written through. File and folder
    are on the disk when the context has ended, so that they outlive the machine, not only the process. The folder must
    exist; the new file's permissions are those that the umask gives.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    with keeping(path, None) as new:
        yield new.file


@contextlib.contextmanager
def keeping(path: Path, replaceable: Callable[[Path], bool] | None, owner: str = "") -> Iterator[Replacement]:
    """As ``replacing``, but a file that is there already is moved aside unless it may be lost.

    It goes to a number that is free: ``picture.png`` to ``picture_001.png``. At every moment each file is whole under
    one name, also if several processes do so at once. Whether it may be lost is asked of `replaceable` when the new one
    is written, None meaning always; who writes, in letters and digits, is told to `sweep`.

    Yields:
        The new file; when the context has ended, it says where the old one went, in the words that the path was given
        in, unless it is a link to another folder.

    Raises:
        OSError: As for ``replacing``.
    """
    temporary, target = _beside(path, owner)
    try:
        with temporary.open("x+b") as file:
            new = Replacement(file)
            yield new
            file.flush()
            os.fsync(file.fileno())
        aside = _put(temporary, target, replaceable)
        flush_folder(target.parent)
        if aside is not None:
            new.aside = path.with_name(aside.name) if path.with_name(aside.name).exists() else aside
    except BaseException:  # an interrupt must not leave the file behind either
        _remove(temporary)
        raise


def copy(source: Path, path: Path, replaceable: Callable[[Path], bool] | None, owner: str = "") -> Path | None:
    """Copy a file to a place where, as for ``keeping``, one that must not be lost is moved aside; returns whereto.

    Raises:
        OSError: As for ``replacing``, or the source cannot be read.
    """
    with source.open("rb") as file, keeping(path, replaceable, owner) as new:
        shutil.copyfileobj(file, new.file)
    return new.aside


def sweep(folder: Path, owner: str = "") -> None:
    """Remove what a process that was killed has left unfinished in a folder, not in those below it.

    By default that is everybody's and not one owner's, so nobody else may be writing there.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.glob(_UNFINISHED.format(f"{owner}*"))):
            _remove(path)


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
        _remove(temporary)  # the file is there; a second name of it that stays does no harm
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
            _remove(aside)
            return None
        except BaseException:
            _remove(aside)
            raise
        return aside


def _remove(path: Path) -> None:
    """Remove a file of ours; one that stays does no harm, and a network's disk may refuse once and not again."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            return


def check_replaceable(path: Path) -> None:
    """Try whether ``replacing`` could make its file; leaves nothing behind.

    Raises:
        OSError: The folder does not exist or cannot be written to.
    """
    temporary, _ = _beside(path)
    try:  # a file without a name, of which nothing stays if the process is killed; only some file systems can
        os.close(os.open(temporary.parent, getattr(os, "O_TMPFILE", os.O_CREAT) | os.O_WRONLY))
    except OSError:
        try:
            temporary.open("xb").close()
        finally:
            _remove(temporary)


def _beside(path: Path, owner: str = "") -> tuple[Path, Path]:
    target = Path(os.path.realpath(path))
    # Not tempfile.mkstemp, which makes files that only their owner may read.
    return target.with_name(_UNFINISHED.format(owner + secrets.token_hex(8))), target
