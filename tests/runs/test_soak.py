"""A long run takes no more memory and no more files at its end than at its beginning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import theilslopes

CALLBACK = """
import os
from pathlib import Path
from lightning.pytorch import Callback

class Levels(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step % 50 == 25:  # between snapshots, whose file may be open while it is written
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            files = len(os.listdir("/proc/self/fd"))
            threads = len(os.listdir("/proc/self/task"))
            with Path("levels.txt").open("a") as file:
                file.write(f"{trainer.global_step} {pages * os.sysconf('SC_PAGE_SIZE')} {files} {threads}\\n")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_five_thousand_evaluations(tmp_path):
    (tmp_path / "mine_levels.py").write_text(CALLBACK, encoding="utf-8")
    command = [
        *(sys.executable, "-m", "nst_lightning", "fit", "--config", "quickstart", "--data.size", "256"),
        *("--model.stages", "[{evaluations: 5000}]", "--trainer.accelerator", "cpu"),
        *("--snapshot_every", "50", "--checkpoint_every", "100"),
        "--trainer.callbacks=[{class_path: mine_levels.Levels}]",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    steps, memory, files, threads = np.loadtxt(tmp_path / "levels.txt").T
    assert len(steps) == 100
    late = steps > 1000  # by then the first of everything has been written
    # The median of all slopes between two moments: what the allocator takes once, in one piece, does not tilt it.
    slope, _, low, high = (1000 * value for value in theilslopes(memory[late] / 2**20, steps[late]))
    level, spread = memory[late][-1] / 2**20, np.ptp(memory[late]) / 2**20
    print(
        f"memory {level:.1f} MiB, {slope:+.3f} MiB per 1000 evaluations ({low:+.3f} to {high:+.3f}), range {spread:.2f}"
    )
    assert slope < 0.1
    assert spread < 8
    assert files[late].max() == files[late].min()
    assert threads[late].max() == threads[late].min()
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(list((folder / "snapshots").iterdir())) == 100
    assert len(list((folder / "checkpoints").iterdir())) == 1
