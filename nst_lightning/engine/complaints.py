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

# Where in Lightning's two packages the complaint is -> the argument that is meant.
_PLACE = re.compile(r"lightning\.(?:pytorch|fabric)\.(\w+)")
_ARGUMENTS = {
    "callbacks": "trainer.callbacks",
    "loggers": "trainer.logger",
    "profilers": "trainer.profiler",
    "accelerators": "trainer.accelerator",
    "strategies": "trainer.strategy",
}


def complaint(error: BaseException) -> UserError | None:
    """Turn what Lightning says of a setting into one line.

    It is None if the error comes from the program or from a user's own class, whose traceback is needed.
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
    """The same, from all that a parser says of the types that it tried: of a class that could not be built."""
    found = re.search(r"Problem with given class_path '([\w.]+)':\s*(\S.*(?:\n {8,}\S.*)*)", text)
    if found is None:
        return None
    path, reason = found.groups()
    return UserError(f"{_argument(path, 'class_path')}: {path.rsplit('.', 1)[-1]}: {reason}"[:600])


def _is_users_own(frame: FrameType) -> bool:
    """Whether code runs that is neither installed nor the program's."""
    module, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
    if module.split(".", maxsplit=1)[0] == "nst_lightning" or file.startswith("<"):
        return False
    return not str(Path(file).resolve()).startswith(_LIBRARIES)


def _argument(path: str, otherwise: str) -> str:
    """The argument that a module or class of Lightning's belongs to."""
    place = _PLACE.match(path)
    return otherwise if place is None else _ARGUMENTS.get(place.group(1), otherwise)


def _line(error: Exception, frame: FrameType, module: str) -> str:
    argument = _argument(module, "trainer")
    owner = frame.f_locals.get("self")
    about = "" if owner is None or argument == "trainer" else f"{type(owner).__name__}: "
    reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
    return f"{argument}: {about}{reason or type(error).__name__}"[:600]
