"""What the environment says of other processes that work on the same picture, and who started them."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from nst_lightning.errors import UserError

_EXTERNAL = ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID")  # set by whoever started this process
_MEETING_PLACES = ("MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_PROCID")  # of processes that know of each other


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


def leave_group() -> None:
    """Leave the other processes, if this one has joined any: another run of it may want a group of its own."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
