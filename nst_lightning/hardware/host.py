"""How much memory there is, of the machine or of the container that the process runs in."""

import contextlib
from pathlib import Path

import psutil

# Where a container's limit stands, and what it uses, under cgroups of both versions.
_CONTAINERS = {
    "/sys/fs/cgroup/memory.max": "/sys/fs/cgroup/memory.current",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "/sys/fs/cgroup/memory/memory.usage_in_bytes",
}


def free_host_memory() -> int:
    """Bytes that can still be taken, container limits included."""
    sizes = [int(psutil.virtual_memory().available)]
    for limit, usage in _CONTAINERS.items():
        with contextlib.suppress(OSError, ValueError):
            most = int(Path(limit).read_text(encoding="ascii"))
            sizes.append(most - int(Path(usage).read_text(encoding="ascii")) + _file_cache(limit))
    return max(0, min(sizes))


def host_memory() -> int:
    """Physical memory or the container's limit, whichever is less, in bytes."""
    sizes = [int(psutil.virtual_memory().total)]
    for limit in _CONTAINERS:
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(Path(limit).read_text(encoding="ascii")))
    return min(sizes)


def _file_cache(limit: str) -> int:
    """Bytes of a container's usage that are copies of files, which give way."""
    with contextlib.suppress(OSError, ValueError):
        for line in (Path(limit).parent / "memory.stat").read_text(encoding="ascii").splitlines():
            name, value = line.split()
            if name in {"inactive_file", "total_inactive_file"}:
                return int(value)
    return 0
