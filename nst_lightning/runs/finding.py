"""Finding the newest checkpoint, of the pictures that are asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.runs.checkpoint import FACTS, FOLDER, SUFFIX, read_checkpoint
from nst_lightning.runs.facts import CONTENT, InputFile, files_of, styles_of

_NAMED = 5  # runs that a message names


class Pictures(NamedTuple):
    """The pictures of which a run is to be continued."""

    content: Sequence[str] | None = None  # its path, as a list of one; empty for a texture, None for any
    styles: Sequence[str] | None = None  # paths of the styles in their order, or None for any
    named: str = ""  # all of them as they were given, for messages

    def are(self, files: Mapping[str, InputFile]) -> bool:
        """Whether a run was made of these."""
        content = [files[CONTENT]] if CONTENT in files else []
        pairs = (self.content, content), (self.styles, styles_of(files))
        return all(paths is None or _are_same(paths, found) for paths, found in pairs)


def _are_same(paths: Sequence[str], files: Sequence[InputFile]) -> bool:
    return len(paths) == len(files) and all(file.is_same(path) for path, file in zip(paths, files, strict=True))


def job_name() -> str:
    """What the run folders of a SLURM job end with, so that it finds its own again after a requeue; else nothing."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
    return f"_job{job}" if job else ""


def was_requeued() -> bool:
    """Whether this is a SLURM job that runs again."""
    return bool(job_name()) and os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def find_requeued(root: Path, pictures: Pictures) -> Path | None:
    """The newest checkpoint of a SLURM job that was requeued and runs again; None elsewhere, or if it left none."""
    if not was_requeued():
        return None
    try:
        return find_last(root, pictures, job_name())
    except UserError:
        return None


def find_last(root: Path, pictures: Pictures, ending: str = "") -> Path:
    """The newest whole checkpoint below a folder of runs, of the same pictures if they are given.

    Names of run folders must end with `ending`, before their number.

    Raises:
        UserError: If there is none.
    """
    runs = f"*{ending}_[0-9]*" if ending else "*"
    # Lightning puts those that it writes for a cluster into the run folder itself.
    paths = [*root.glob(f"{runs}/{FOLDER}/*{SUFFIX}"), *root.glob(f"{runs}/hpc_ckpt_*{SUFFIX}")]
    others: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (_changed(path), path), reverse=True):
        try:
            files = files_of(read_checkpoint(path, lazily=True).get(FACTS, {}))
        except UserError:
            continue  # damaged by something else; the one before it is as good
        if pictures.are(files):
            return path
        made_of = [files[CONTENT]] if CONTENT in files else []
        run = path.relative_to(root).parts[0]
        others.setdefault(run, ", ".join(Path(file.given).name for file in [*made_of, *styles_of(files)]))
    which = f" of {pictures.named}" if pictures.named else ""
    there = "; ".join(f"{run} of {names}" for run, names in list(others.items())[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    raise UserError(
        f"ckpt_path: must be last only where a run left a checkpoint, got none{which} below '{root}'"
        + (f", where there are {there}{more}" if there else "")
        + "; leave it out to start anew"
    )


def _changed(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 if another run has just removed it."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
