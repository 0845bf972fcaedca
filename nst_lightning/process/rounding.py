"""The same bits whatever the number of threads, from the library that multiplies matrices in single precision.

A picture is to be the same in one process with two threads and in two with one each. MKL shares work out among threads
in another way for another number of them, unless it is told not to: sums on Intel's own processors, rows on AMD's,
where the rows at the end of a part are added up in another order.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

_VARIABLE = "MKL_CBWR"  # conditional bitwise reproducibility: the instructions, and STRICT for any number of threads


def round_alike(environment: MutableMapping[str, str] = os.environ, processor: str | None = None) -> None:
    """Ask MKL for the same bits with any number of threads, unless the environment asks it for something.

    It costs some 3 % of an evaluation on Intel's processors, and nothing on AMD's. MKL reads it once, so before
    PyTorch is imported.

    Args:
        environment: Variables of this process, and of those that it starts.
        processor: What Linux says of the processor; by default it is asked.
    """
    if _VARIABLE in environment:
        return
    said = _processor() if processor is None else processor
    flags = set(said.split())
    if flags & {"GenuineIntel", "AuthenticAMD"} and "avx2" in flags:
        environment[_VARIABLE] = f"{'AVX512' if 'avx512f' in flags else 'AVX2'},STRICT"


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
