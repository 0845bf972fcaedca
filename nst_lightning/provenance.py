"""Which state of the source something was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit() -> str | None:
    """Git's name of the checkout that the package runs from, ``-dirty`` if files differ; None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:  # no git
        return None
    return found.stdout.strip() or None
