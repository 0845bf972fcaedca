"""How OpenMP's threads wait for each other, so that a busy machine does not make a run collapse.

Between two parallel loops a thread looks for its next work in a busy loop, which is the fastest way as long as each
thread has a core to itself. GCC's runtime, which PyTorch's wheels for Linux use, does so 300 000 times, ten
milliseconds and more, before it sleeps; where another program wants the core, it is the thread that is waited for which
does not run meanwhile, and an evaluation has hundreds of such loops.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# A loop of some 40 ns, and 0.1 ms of them: longer than an idle core takes to come, and than sleeping and waking costs.
SPINS = 3000
_ASKED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_SETTINGS = {
    "GOMP_SPINCOUNT": str(SPINS),  # GCC's runtime
    "KMP_BLOCKTIME": "1",  # LLVM's and Intel's (conda, macOS), in milliseconds; theirs is 200
}


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait sleep soon, unless the environment says how they shall wait.

    The runtimes read these variables once, when they are loaded: before PyTorch is imported, or it has no effect.

    Args:
        environment: Variables of this process, and of those that it starts.
    """
    if not any(name in environment for name in _ASKED):
        environment.update(_SETTINGS)
