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
from typing import IO

import torch

from nst_lightning.errors import UserError

_EXTERNAL = ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID")  # set by whoever started this process
_MEETING_PLACES = ("MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_PROCID")  # of processes that know of each other
_PATIENCE = 10.0  # seconds


def started_by_another(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this process and will have started the others."""
    return any(name in environment for name in _EXTERNAL)


def is_first(processes: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the process that writes and speaks: the only one, or that of rank 0.

    Args:
        processes: How many work on the picture, on all machines.
        environment: Says which of them this is, and may say so of something else, where there is but one.
    """
    return processes == 1 or all(environment.get(name, "0") == "0" for name in _ranks(environment))


def _ranks(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The variables by which Lightning knows a process from the others."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return ("RANK",)
    return ("SLURM_PROCID",) if "SLURM_PROCID" in environment else ("NODE_RANK", "LOCAL_RANK")


def check_launcher(processes: int, nodes: int, environment: Mapping[str, str] = os.environ) -> str | None:
    """Find out whether the environment speaks of other processes than those that were asked for.

    Args:
        processes: How many are to work on the picture, on all machines.
        nodes: On how many machines.
        environment: The environment.

    Returns:
        The variables that something else left there, and that mean nothing here; None if there are none.

    Raises:
        UserError: If a launcher has started another number of processes, or this machine is none of those asked for.
    """
    size = environment.get("WORLD_SIZE", "")
    if "LOCAL_RANK" in environment and size.isdigit() and int(size) > 1 and int(size) != processes:
        raise UserError(
            f"trainer.devices: must be as many as a launcher has started, which WORLD_SIZE={size} and LOCAL_RANK say "
            f"one has, got {processes}; give trainer.devices and trainer.num_nodes, or unset WORLD_SIZE and LOCAL_RANK"
        )
    if processes > 1 and "LOCAL_RANK" in environment and not any(name in environment for name in _MEETING_PLACES):
        raise UserError(
            f"trainer.devices: must be 1 where LOCAL_RANK={environment['LOCAL_RANK']} is all that a launcher has set, "
            f"got {processes} processes; unset LOCAL_RANK, or let torchrun start them"
        )
    node = environment.get("NODE_RANK", "0")
    if processes > 1 and node.isdigit() and int(node) >= nodes:
        raise UserError(
            f"trainer.num_nodes: must be above NODE_RANK={node}, got {nodes}; give the number of machines, or unset "
            "NODE_RANK"
        )
    names = ("RANK", "LOCAL_RANK", "NODE_RANK") if processes == 1 else ("RANK",)
    left = [f"{name}={environment[name]}" for name in names if environment.get(name, "0") != "0"]
    if not left or (processes > 1 and "TORCHELASTIC_RUN_ID" in environment):
        return None
    return ", ".join(left)


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
            for name in ("RANK", "WORLD_SIZE"):  # of something else, or there would have been nothing to start
                environment.pop(name, None)
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
            if isinstance(error, Exception):  # after a signal all stop by themselves
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
