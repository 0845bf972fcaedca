"""How OpenMP's threads wait for each other, so that a busy machine does not make a run collapse.

Between two parallel loops a thread looks for its next work in a busy loop, which is the fastest way as long as each
thread has a core to itself. GCC's runtime, which PyTorch's wheels for Linux use, does so 300 000 times, ten
milliseconds and more, before it sleeps; where other programs want the cores, it is the thread that is waited for which
does not run meanwhile, and an evaluation has hundreds of such loops. A core whose thread sleeps takes over what waits
for another core.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

# Of some 20 to 50 ns each. Sleeping and waking costs an idle machine a tenth of the time of an evaluation if it comes
# after each loop; after a tenth of a millisecond it does not show. Beside other programs, which may begin later than
# the run, an evaluation takes three to four times its time with this, with 100 000 up to forty times.
SPINS = 3000
# Where others are at work already, each loop is a wait: with this a run has about its fair share, half of the cores.
SPINS_IF_BUSY = 1000
_BUSY = 0.5  # programs that want a core
_ASKED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_SAMPLES, _APART = 5, 0.002  # looks at the machine, and seconds between them


def wait_briefly(environment: MutableMapping[str, str] = os.environ, others: float | None = None) -> None:
    """Let threads that wait sleep sooner, unless the environment says how they shall wait.

    The runtimes read these variables once, when they are loaded: before PyTorch is imported, or it has no effect.

    Args:
        environment: Variables of this process, and of those that it starts.
        others: Threads of other programs that want a core; by default those of this moment.
    """
    if any(name in environment for name in _ASKED):
        return
    busy = (_others() if others is None else others) > _BUSY
    environment["GOMP_SPINCOUNT"] = str(SPINS_IF_BUSY if busy else SPINS)  # GCC's runtime
    environment["KMP_BLOCKTIME"] = "0" if busy else "1"  # LLVM's and Intel's, in milliseconds; theirs is 200


def _others() -> float:
    """Threads that run or want to, but this one: the mean of a few looks; 0 where the system does not say (proc(5))."""
    found = []
    for _ in range(_SAMPLES):
        try:
            running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return 0.0
        found.append(running - 1)
        time.sleep(_APART)
    return sum(found) / len(found)
