"""What a run must leave in a process as it found it, in a program as in a notebook."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def surroundings() -> dict[str, Any]:
    """All that is compared, by name."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": dict(os.environ),
        "path": list(sys.path),
        "folder": Path.cwd(),
        "levels": {name: logging.getLogger(name).level for name in (None, "lightning.pytorch", "lightning.fabric")},
        "listeners": {name: logging.getLogger(name).handlers[:] for name in (None, "lightning.pytorch")},
        "warnings": (warnings.filters[:], warnings.showwarning),
        "threads": (torch.get_num_threads(), sorted(thread.name for thread in threading.enumerate())),
        "flags": (matmul.allow_tf32, cudnn.allow_tf32, matmul.allow_bf16_reduced_precision_reduction, cudnn.benchmark),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "chance": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
        "gradients": torch.is_grad_enabled(),
        "streams": (sys.stdout, sys.stderr),
    }


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    gc.collect()
    statm = Path("/proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
