"""The baseline in a process of its own, making an evaluation whenever a line comes in and answering with its seconds.

In the process of the project it would profit from the project's settings, such as memory that is kept when freed (a
tenth of its time); in a run before or after, from a machine that happens to be faster then.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def baseline_beside(size: int, accelerator: str) -> Iterator[Callable[[], float]]:
    """Start that process.

    Args:
        size: Long side in pixels.
        accelerator: cpu, cuda, mps or xpu.

    Yields:
        A function that lets it make an evaluation and returns the seconds this took.
    """
    command = [sys.executable, __file__, str(size), accelerator]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def step() -> float:
            requests.write("\n")
            requests.flush()
            return float(answers.readline())

        yield step
        requests.close()


def main() -> None:
    """Serve: one evaluation and one answer for each line."""
    from programs import baseline_step, synchronize  # noqa: PLC0415 - only the process itself needs them

    size, accelerator = int(sys.argv[1]), sys.argv[2]
    step, _ = baseline_step(size, accelerator)
    for _ in sys.stdin:
        begin = time.perf_counter()
        step()
        synchronize(accelerator)
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
