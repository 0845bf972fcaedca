"""The process from which a gallery's workers are forked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are spawned elsewhere")

AHEAD = """
import sys
from multiprocessing import forkserver
from nst_lightning.process.forking import load_workers_ahead, worker_context

def loaded():
    return "nst_lightning.gallery.local_worker" in sys.modules

def main():
    load_workers_ahead({"OMP_NUM_THREADS": sys.argv[1]})
    begun = forkserver._forkserver._forkserver_pid is not None
    with worker_context().Pool(1) as pool:
        print(begun, loaded(), pool.apply(loaded))

if __name__ == "__main__":
    main()
"""


def said(*command):
    return subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.parametrize("threads", [1, 2])
def test_workers_are_forked_from_a_process_that_has_loaded_what_this_one_has_not(tmp_path, threads):
    script = tmp_path / "script.py"
    script.write_text(AHEAD, encoding="utf-8")
    ahead = threads > 1 and len(os.sched_getaffinity(0)) > 1
    assert said(str(script), str(threads)) == f"{ahead} False True\n"


def test_what_they_have_loaded_is_not_searched_for_garbage_and_has_no_more_than_they_need():
    what = "import gc, sys, nst_lightning.workers; print(gc.get_freeze_count() > 100_000, 'scipy' in sys.modules)"
    assert said("-c", what) == "True False\n"
