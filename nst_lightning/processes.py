"""Several processes on one picture: starting them, and noticing when one of them ends.

Lightning would start them, too, but kills all as soon as one dies. Here whoever is left writes the picture first. It
finds the variables of the environment set, as if a launcher such as torchrun had started it, and starts none.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any

import torch

_EXTERNAL = ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID")  # set by whoever started this process
_PATIENCE = 10.0  # seconds


def count_devices(accelerator: str, devices: Any) -> int:
    """How many processes a machine needs for what ``trainer.devices`` asks for."""
    if isinstance(devices, (list, tuple)):
        return len(devices)
    if str(devices) in {"auto", "-1"}:
        return torch.cuda.device_count() if accelerator == "cuda" else 1
    try:
        return max(1, int(devices))
    except ValueError:
        return max(1, len([part for part in str(devices).split(",") if part.strip()]))


def started_by_another(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this process and will have started the others."""
    return any(name in environment for name in _EXTERNAL)


def is_first() -> bool:
    """Whether this is the process that writes and speaks: the only one, or that of rank 0."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


class Workers:
    """The other processes of this machine; a context in which they run.

    Args:
        args: Command line after ``nst``.
        count: Processes on this machine, this one included; with 1 nothing is started.
        threads: Threads of each process.
    """

    def __init__(self, args: Sequence[str], count: int, threads: int) -> None:
        self._args, self._count, self._threads = list(args), count, threads
        self._processes: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self._set: list[str] = []

    def __enter__(self) -> Workers:
        """Start them."""
        if self._count == 1:
            return self
        settings = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "NODE_RANK": "0",
            "LOCAL_RANK": "0",
        }
        for name, value in settings.items():
            if name not in os.environ:  # several machines: the user says where the first one is
                os.environ[name] = value
                self._set.append(name)
        torch.set_num_threads(self._threads)
        for rank in range(1, self._count):
            environment = os.environ | {"LOCAL_RANK": str(rank), "OMP_NUM_THREADS": str(self._threads)}
            messages = tempfile.TemporaryFile()
            command = [sys.executable, "-m", "nst_lightning", *self._args]
            process = subprocess.Popen(command, env=environment, stdout=messages, stderr=messages)
            self._processes.append((process, messages))
        return self

    def failure(self) -> str | None:
        """Which of them ended with an error and what it said last, if one did; waits a moment for those that fall."""
        for rank, (process, messages) in enumerate(self._processes, start=1):
            try:
                code = process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                continue
            if code:
                messages.seek(0)
                said = messages.read().decode(errors="replace").strip().splitlines()
                last = f": {said[-1][:200]}" if said else ""
                return f"process {rank} of {self._count} ended with code {code}{last}"
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for them, or end them if this one failed."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # another run of this process may want one of its own
        for process, messages in self._processes:
            if error is not None:
                process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            messages.close()
        for name in self._set:
            os.environ.pop(name, None)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
