"""A folder of its own for every run."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from nst_lightning.errors import UserError
from nst_lightning.files.atomic import check_replaceable
from nst_lightning.files.folders import flush_folder, make_folder

# What lies in a run's folder.
CONFIGURATION = "config.yaml"
CHECKPOINTS = "checkpoints"
RECORD = "run.json"
LOCK = ".lock"
_PATIENCE = 1.0  # seconds: whoever only looks at a run is soon done


def check_folder(root: Path, argument: str = "trainer.default_root_dir") -> Path:
    """Find out before the run whether folders can be made below `root`, which need not exist yet.

    Raises:
        UserError: If they cannot.
    """
    existing = root
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is not a folder")
        check_replaceable(existing / RECORD)
    except OSError as error:
        raise UserError(
            f"{argument}: must be a folder that can be written, got '{root}' ({error}); choose another"
        ) from None
    return root


def create_run_folder(root: Path, name: str, ending: str = "") -> Path:
    """Create ``root/name_001``, or the next number that is free; safe against runs that start at the same time.

    Raises:
        UserError: If it cannot be made.
    """
    stem = (re.sub(r"[^\w.-]+", "-", name)[:80].strip("-.") or "run") + ending
    number = 1
    while True:
        folder = root / f"{stem}_{number:03d}"
        try:
            make_folder(root)
            folder.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(
                f"trainer.default_root_dir: must be a folder that can be written, got '{root}' ({folder}: "
                f"{error.strerror}); choose another, or make room there"
            ) from None
        else:
            flush_folder(root)
            return folder


def hold(folder: Path) -> BaseFileLock:
    """Lock a run folder for this process until it releases the lock or ends, in whatever way.

    Where the file system knows no locks, the run goes on without one.

    Raises:
        UserError: If another process works in it.
    """
    lock = FileLock(folder / LOCK)
    with contextlib.suppress(OSError, NotImplementedError):
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            raise UserError(
                f"ckpt_path: must be of a run that has ended, and that in '{folder}' is still going on; wait for it or "
                "start another without ckpt_path"
            ) from None
    return lock
