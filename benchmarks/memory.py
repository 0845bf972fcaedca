"""A process of its own that makes evaluations and prints, in bytes, how far memory rose above what imports took."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
from programs import baseline_step, our_step, synchronize

EVALUATIONS = 105  # the baseline's history of 100 is full


def resident() -> int:
    """Highest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands ru_maxrss on from the parent, which may have been the larger process
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    """Run what the arguments say: program, accelerator, precision, size, extractor."""
    program, accelerator, precision, size, extractor = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5]
    before = resident()
    if program == "baseline":
        step, _ = baseline_step(size, accelerator)
    else:
        step, _ = our_step(size, accelerator, precision, extractor=extractor)
    for _ in range(EVALUATIONS):
        step()
    synchronize(accelerator)
    if accelerator == "cpu":
        print(resident() - before)
    elif accelerator == "mps":
        print(torch.mps.driver_allocated_memory())
    else:
        print(torch.get_device_module(accelerator).max_memory_reserved())


if __name__ == "__main__":
    main()
