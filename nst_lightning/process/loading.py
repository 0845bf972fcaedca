"""Imports without the search for garbage that Python makes every few hundred objects.

PyTorch and Lightning make half a million objects that all stay, and Python looks through them again and again while
they are made: a fifth of the time that importing them takes.
"""

from __future__ import annotations

import gc
from importlib import import_module
from types import ModuleType

from nst_lightning.process.ownership import owns_process
from nst_lightning.process.parts import parts_alone


def load(name: str, *, ours: bool | None = None) -> ModuleType:
    """Import a module; where the process is ours, what is there afterwards is never searched for garbage again.

    By default it is ours if it is the command's own.
    """
    with parts_alone():
        if not (owns_process() if ours is None else ours) or not gc.isenabled():
            return import_module(name)
        gc.disable()
        try:
            return import_module(name)
        finally:
            gc.freeze()
            gc.enable()
