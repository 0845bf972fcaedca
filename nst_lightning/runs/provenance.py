"""Which state of the source something was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path


def source_commit() -> str | None:
    """Git's name of the checkout that the package runs from, ``-dirty`` if files differ; None outside of one."""
    checkout = Path(__file__).parent.parent.parent
    if not (checkout / ".git").exists():  # an installed package may lie in somebody else's checkout
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:  # no git
        return None
    return found.stdout.strip() or None
