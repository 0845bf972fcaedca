"""How OpenMP's threads wait for each other, so that a busy machine does not make a run collapse.

Between two parallel loops a thread looks for its next work in a busy loop, which is the fastest way as long as each
thread has a core to itself. GCC's runtime, which PyTorch's wheels for Linux use, does so 300 000 times, ten
milliseconds and more, before it sleeps; where other programs want the cores, it is the thread that is waited for which
does not run meanwhile, and an evaluation has hundreds of such loops.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# Of some 50 ns each. Sleeping and waking costs an idle machine a tenth of the time of an evaluation if it comes after
# each loop; after 5 ms it does not show, and with one more program a core a run still has its share.
SPINS = 100_000
# With several programs a core even that is too long: a run then takes a quarter of the time with this.
SPINS_IF_BUSY = 1000
_BUSY = 1.5  # programs that want a core, for each core
_ASKED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_briefly(environment: MutableMapping[str, str] = os.environ, load: float | None = None) -> None:
    """Let threads that wait sleep sooner, unless the environment says how they shall wait.

    The runtimes read these variables once, when they are loaded: before PyTorch is imported, or it has no effect.

    Args:
        environment: Variables of this process, and of those that it starts.
        load: Programs that want a core, for each core; by default those of the last minute.
    """
    if any(name in environment for name in _ASKED):
        return
    busy = (_load() if load is None else load) > _BUSY
    environment["GOMP_SPINCOUNT"] = str(SPINS_IF_BUSY if busy else SPINS)  # GCC's runtime
    environment["KMP_BLOCKTIME"] = "0" if busy else "5"  # LLVM's and Intel's, in milliseconds; theirs is 200


def _load() -> float:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (OSError, AttributeError):  # not on Windows
        return 0.0
