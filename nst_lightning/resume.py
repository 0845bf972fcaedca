"""Continuing a run: from the newest checkpoint or a given one, in its folder and with its configuration."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nst_lightning.checkpoint import FACTS, FOLDER, SETTINGS, find_last, fingerprint, read_checkpoint
from nst_lightning.data import StyleTransferData
from nst_lightning.errors import UserError
from nst_lightning.module import StyleTransfer
from nst_lightning.paths import expand

CONFIGURATION = "config.yaml"
_FLAG = "--ckpt_path"
# Where results go and what is read besides is not what a run is.
_INCIDENTAL = ("ckpt_path", "output", "trainer.default_root_dir", "snapshot_every", "checkpoint_", "fallback", "log")


class Resumed(NamedTuple):
    """What is to be continued.

    Attributes:
        path: The checkpoint.
        folder: The run's folder, or None if the checkpoint does not lie in one.
        configuration: The run's own configuration, flat, by dotted key.
    """

    path: Path
    folder: Path | None
    configuration: dict[str, Any]


@contextlib.contextmanager
def resume_arguments(args: Sequence[str]) -> Iterator[tuple[list[str], Resumed | None]]:
    """Put a resumed run's own configuration before the arguments, which win over it.

    That is what its checkpoint holds; a context, in which it lies in a file that can be parsed.

    Args:
        args: Command line after ``nst fit``.

    Yields:
        The arguments to parse, with ``last`` replaced by a file, and what is continued, if anything is.

    Raises:
        UserError: If there is no such checkpoint, or it is damaged.
    """
    given = _value(args, _FLAG)
    root = expand(_value(args, "--trainer.default_root_dir") or "runs", "trainer.default_root_dir")
    pictures = _value(args, "--data.content"), _styles(_value(args, "--data.style"))
    if given is None or given in {"null", ""}:
        path = find_requeued(root, *pictures)
        if path is None:
            yield list(args), None
            return
        args = [*args, _FLAG, str(path)]
        given = str(path)
    elif given == "last":
        path = find_last(root, *pictures)
    else:
        path = expand(given, "ckpt_path")
        if not path.is_file():
            raise UserError(f"ckpt_path: must be a file or last, got '{given}'; see the run folder's {FOLDER}")
    content = read_checkpoint(path, lazily=True)
    facts = content.get(FACTS, {})
    folder = next((f for f in (path.parent.parent, path.parent) if (f / CONFIGURATION).is_file()), None)
    text = str(content.get(SETTINGS, ""))
    own = ["--trainer.precision", str(facts["precision"])] if "precision" in facts else []  # what auto chose then
    rest = [str(path) if arg == given and flag == _FLAG else arg for flag, arg in zip(["", *args], args, strict=False)]
    rest = [f"{_FLAG}={path}" if arg == f"{_FLAG}={given}" else arg for arg in rest]
    resumed = Resumed(path, folder, dict(flatten(yaml.safe_load(text))) if text else {})
    with tempfile.TemporaryDirectory() as temporary:
        if text:
            file = Path(temporary) / CONFIGURATION
            file.write_text(text, encoding="utf-8")
            own = ["--config", str(file), *own]
        yield [*own, *rest], resumed


def job_name() -> str:
    """What the run folders of a SLURM job end with, so that it finds its own again after a requeue; else nothing."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
    return f"_job{job}" if job else ""


def find_requeued(root: Path, content: str | None, styles: Sequence[str] | None) -> Path | None:
    """The newest checkpoint of a SLURM job that was requeued and runs again; None elsewhere, or if it left none."""
    if not job_name() or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    try:
        return find_last(root, content, styles, job_name())
    except UserError:
        return None


def check_resumed(path: Path, model: StyleTransfer, data: StyleTransferData) -> None:
    """Find out before the run whether it can continue from a checkpoint; nothing in the file is executed.

    Raises:
        UserError: If it belongs to another optimiser, picture or size, or has nothing left to do.
    """
    content = read_checkpoint(path, lazily=True)
    step, epoch = content["global_step"], content["epoch"]
    saved = content["optimizer_states"][0]["param_groups"][0]
    if set(saved) != {"params", *model.configure_optimizers().param_groups[0]}:
        raise UserError(f"ckpt_path: '{path}' was made with another optimiser; give the same model.optimizer as then")
    if step >= model.total_evaluations:
        raise UserError(
            f"ckpt_path: '{path}' has {step} evaluations and the run {model.total_evaluations}, so nothing is left to "
            "do; give more evaluations"
        )
    facts = content.get(FACTS, {})
    ours = None if data.content_path is None else fingerprint(data.content_path)
    theirs = facts.get("content_sha256", ours)
    if theirs != ours:
        raise UserError(
            f"ckpt_path: '{path}' was made of {facts['content']} (sha256 {str(theirs)[:8]}), got "
            f"{data.content_path} ({str(ours)[:8]}); give the same content, or start from its picture with data.init"
        )
    height, width = content["state_dict"]["image"].shape[-2:]
    expected = data.stage_size(model.stages[min(epoch, len(model.stages) - 1)].scale)
    if (height, width) != expected:
        raise UserError(
            f"ckpt_path: '{path}' holds an image of {width}x{height} px, got {expected[1]}x{expected[0]} px for stage "
            f"{epoch + 1}; give the same data.size and model.stages, or start from its picture with data.init"
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as the checkpoint's run had it, as ``key: then -> now``."""
    keys = [key for key in dict.fromkeys([*before, *now]) if not key.startswith(_INCIDENTAL)]
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists with dotted keys."""
    if isinstance(tree, (dict, list)) and tree:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _value(args: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, given as two arguments or one."""
    found = None
    for index, arg in enumerate(args):
        if arg == flag and index + 1 < len(args):
            found = args[index + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.split("=", 1)[1]
    return found


def _styles(value: str | None) -> list[str] | None:
    """Paths that ``--data.style`` names."""
    if value is None:
        return None
    try:
        items = yaml.safe_load(value)
    except yaml.YAMLError:
        items = value
    items = items if isinstance(items, list) else [value]
    return [str(item.get("path")) if isinstance(item, dict) else str(item) for item in items]
