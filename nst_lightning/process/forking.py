"""Where worker processes come from: one that has loaded the program and done nothing else is forked for each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, SpawnContext

_LOADED = "nst_lightning.workers"


def worker_context() -> SpawnContext | ForkServerContext:
    """How processes are begun: by forking where that is safe, else as Python begins them there."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([_LOADED])
    return found


def load_workers_ahead(environment: Mapping[str, str] = os.environ) -> None:
    """Let the process that will be forked load the program while this one does, if there are cores for both.

    It ends with this one, if no worker is ever needed, too.
    """
    if environment.get("OMP_NUM_THREADS") == "1" or not isinstance(worker_context(), ForkServerContext):
        return
    if len(os.sched_getaffinity(0)) > 1:
        from multiprocessing import forkserver  # noqa: PLC0415 - Windows lacks what it needs

        forkserver.ensure_running()
