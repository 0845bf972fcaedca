"""What Lightning raises over a part of the trainer, as one line; errors in a user's own code keep their traceback."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

from nst_lightning.errors import UserError

_LIGHTNING = ("lightning", "lightning_utilities")
_HOOKS = "lightning.pytorch.trainer.call"  # whatever this module calls is somebody's hook
_LIBRARIES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platlib", "purelib"))

# Where Lightning complains -> the argument that is meant.
_ARGUMENTS = {
    "lightning.pytorch.callbacks": "trainer.callbacks",
    "lightning.fabric.loggers": "trainer.logger",
    "lightning.pytorch.loggers": "trainer.logger",
    "lightning.pytorch.profilers": "trainer.profiler",
    "lightning.pytorch.accelerators": "trainer.accelerator",
    "lightning.fabric.accelerators": "trainer.accelerator",
    "lightning.pytorch.strategies": "trainer.strategy",
    "lightning.fabric.strategies": "trainer.strategy",
}


def complaint(error: BaseException) -> UserError | None:
    """Turn what Lightning says of a setting into one line.

    Args:
        error: As it was caught.

    Returns:
        The line; None if the error comes from the program or from a user's own class, whose traceback is needed.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not isinstance(error, Exception) or any(_is_users_own(frame) for frame in frames):
        return None
    inner: FrameType | None = None  # that of what Lightning called
    for frame in reversed(frames):
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".", maxsplit=1)[0] == "nst_lightning":
            return None
        if module.split(".", maxsplit=1)[0] in _LIGHTNING:
            return None if inner is not None and module == _HOOKS else UserError(_line(error, frame, module))
        inner = frame
    return None


def complaint_in(text: str) -> UserError | None:
    """The same, where only a parser's text of it is left: of a class that could not be built.

    Args:
        text: All that the parser says of the types that it tried.
    """
    found = re.search(r"Problem with given class_path '([\w.]+)':\s*(\S.*(?:\n {8,}\S.*)*)", text)
    if found is None:
        return None
    path, reason = found.groups()
    argument = next((name for place, name in _ARGUMENTS.items() if path.startswith(place)), "class_path")
    return UserError(f"{argument}: {path.rsplit('.', 1)[-1]}: {reason}"[:600])


def _is_users_own(frame: FrameType) -> bool:
    """Whether code runs that is neither installed nor the program's."""
    module, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
    if module.split(".", maxsplit=1)[0] == "nst_lightning" or file.startswith("<"):
        return False
    return not str(Path(file).resolve()).startswith(_LIBRARIES)


def _line(error: Exception, frame: FrameType, module: str) -> str:
    argument = next((name for place, name in _ARGUMENTS.items() if module.startswith(place)), "trainer")
    owner = frame.f_locals.get("self")
    about = "" if owner is None or argument == "trainer" else f"{type(owner).__name__}: "
    reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
    return f"{argument}: {about}{reason or type(error).__name__}"[:600]
