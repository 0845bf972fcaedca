"""Libraries read some settings once, when they are loaded: what a program that calls has to gain from them, too."""

from __future__ import annotations

import importlib
import os
import sys

from nst_lightning.process.rounding import round_alike
from nst_lightning.process.waiting import wait_briefly


def import_torch() -> None:
    """Import PyTorch with the settings of the command ``nst``, unless it is there; the environment is as before then.

    So a program's pictures are those of the command to the last bit, and its threads wait as the command's do.
    """
    if "torch" in sys.modules:
        return
    before = dict(os.environ)
    wait_briefly()
    round_alike()
    try:
        torch = importlib.import_module("torch")
        torch.mm(torch.ones(2, 2), torch.ones(2, 2))  # the library that multiplies matrices reads its own now
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
