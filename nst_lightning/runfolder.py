"""A folder of its own for every run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from nst_lightning.errors import UserError


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
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{argument}: must be a folder that can be written, got '{root}' ({error}); choose another"
        ) from None
    return root


def create_run_folder(root: Path, name: str) -> Path:
    """Create ``root/name_001``, or the next number that is free; safe against runs that start at the same time."""
    stem = re.sub(r"[^\w.-]+", "-", name)[:80].strip("-.") or "run"
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = root / f"{stem}_{number:03d}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
