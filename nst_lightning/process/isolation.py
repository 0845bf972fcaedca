"""What a run changes for its whole process, put back when it ends: programs and notebooks go on after it."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only


@contextlib.contextmanager
def process_as_before() -> Iterator[None]:
    """Leave environment, import path, current folder, chance, threads and warnings as they were.

    A seed for everything is for the run; the program's own random numbers go on where they were.
    """
    environment, path, folder = dict(os.environ), sys.path[:], _folder()
    chance, numbers, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, rank = torch.backends.cudnn.benchmark, getattr(rank_zero_only, "rank", None)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})
            sys.path[:] = path
            if folder is not None and _folder() != folder:
                os.chdir(folder)
            random.setstate(chance)
            np.random.set_state(numbers)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=only_warn)
            torch.backends.cudnn.benchmark = benchmark
            cast("Any", rank_zero_only).rank = rank


def _folder() -> str | None:
    with contextlib.suppress(OSError):  # somebody has removed it
        return os.getcwd()  # noqa: PTH109 - as chdir takes it
    return None
