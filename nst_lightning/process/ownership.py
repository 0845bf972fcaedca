"""Whether this process is the command's own, or that of a program or notebook that calls it.

To end a process, or to leave its settings changed, is the command's right only in its own.
"""

from __future__ import annotations

_own = False


def claim_process() -> None:
    """Say that this process is the command's own, as the console script does."""
    global _own  # noqa: PLW0603 - a fact about the process
    _own = True


def owns_process() -> bool:
    """Whether the command may do with this process what it likes."""
    return _own
