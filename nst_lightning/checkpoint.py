"""Checkpoints: files that are whole at every moment, what they say of their run, and finding the newest.

A checkpoint is Lightning's, loaded with ``weights_only=True``; under ``nst_lightning`` it also holds the facts that a
resumed run is checked against and the choices that ``auto`` made, and beside it the run's whole configuration.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from nst_lightning.demo import locate
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images.atomic import replacing

FOLDER = "checkpoints"
SUFFIX = ".ckpt"
FACTS = "nst_lightning"
RANDOM = "random_state"
SETTINGS = "configuration"


class WholeFiles(CheckpointIO):
    """Write a checkpoint beside its place, flush it to the disk, and only then put it there.

    Tensors go from memory to the file; no copy of the state is made. A checkpoint that cannot be written costs itself,
    not the run, and then the one before it is kept.
    """

    def __init__(self) -> None:
        self._newest: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write; see CheckpointIO."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check_room(checkpoint, path)
            with replacing(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch wraps what a full disk says
            reason = getattr(error, "strerror", None) or str(error).split("\n")[0][:150]
            warnings.warn(f"no checkpoint {path}: {reason}; the run goes on", UserNotice, stacklevel=2)
        else:
            self._newest = path

    @staticmethod
    def _check_room(checkpoint: Mapping[str, Any], path: Path) -> None:
        """Leave room for the final picture, which is worth more than a checkpoint.

        Raises:
            OSError: If the disk has too little.
        """
        image = checkpoint["state_dict"]["image"] if "state_dict" in checkpoint else None
        picture = image.nbytes if image is not None else 0  # more than any format takes
        needed = sum(tensor.nbytes for tensor in _tensors(checkpoint)) + picture
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"it and the picture need {needed} bytes, and the disk has {free} left")

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Read, without executing anything; see CheckpointIO.

        Tensors stay on the disk: each is copied once into its place, so that going on takes no more memory than the
        run itself.
        """
        return read_checkpoint(Path(path), lazily=True)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove, unless it is the newest that is whole; see CheckpointIO."""
        if Path(path) != self._newest:
            Path(path).unlink(missing_ok=True)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested mappings and lists."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (Mapping, list, tuple)):
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _tensors(item)


def read_checkpoint(path: Path, *, lazily: bool = False) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing in the file is executed.

    Args:
        path: The file.
        lazily: Leave tensors on the disk until they are used.

    Raises:
        UserError: If it is damaged or something else.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily or None)
        _ = content["global_step"], content["epoch"], content["state_dict"]["image"].shape
        _ = content["optimizer_states"][0]["param_groups"][0]
        _ = content["pytorch-lightning_version"], content["loops"]
    except Exception as error:  # what torch.load raises for damaged files is of half a dozen types
        reason = str(error).split("\n")[0].split(". ")[0][:100] or type(error).__name__
        raise UserError(
            f"ckpt_path: must be a checkpoint of nst fit, got '{path}' ({type(error).__name__}: {reason}); "
            "see the run folder's checkpoints"
        ) from None
    return content


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    total = hashlib.sha256()
    while block := file.read(1 << 20):
        total.update(block)
    return total.hexdigest()


def make_facts(
    content: str | None, styles: Sequence[str], plans: Sequence[Sequence[Any]], precision: str
) -> dict[str, Any]:
    """What a checkpoint says of its run.

    Args:
        content: The content picture's file, or None for a texture.
        styles: The styles' files.
        plans: For each stage: tile, tiles kept, and which of the optimiser's settings.
        precision: What the trainer ran in.
    """
    return {
        "content": content,
        "content_sha256": None if content is None else fingerprint(content),
        "styles": list(styles),
        "plans": [list(plan) for plan in plans],
        "precision": precision,
    }


def fit_progress(checkpoint: dict[str, Any], evaluations: Sequence[int]) -> None:
    """Make Lightning's count of a stage fit the stages that are to be run, in place.

    Args:
        checkpoint: As Lightning loads it.
        evaluations: Of each stage.
    """
    index = checkpoint["epoch"]
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"] if "loops" in checkpoint else {}
    if not progress.get("is_last_batch") or index >= len(evaluations):
        return
    # It was the last of its stage then; it need not be in a longer run that continues it.
    current = progress["current"]
    progress["is_last_batch"] = current["processed"] >= evaluations[index]
    if progress["is_last_batch"] and index + 1 < len(evaluations):
        # Lightning takes the stage for ended, and counts anew, only if as many are done as the following one has.
        for key, lag in (("ready", 0), ("started", 0), ("processed", 0), ("completed", 1)):
            current[key] = max(current[key], evaluations[index + 1] - lag)


def find_last(root: Path, content: str | None, styles: Sequence[str] | None, ending: str = "") -> Path:
    """The newest whole checkpoint below a folder of runs, of the same pictures if they are given.

    Args:
        root: Folder of runs.
        content: The content picture's file, or None for any.
        styles: The styles' files, or None for any.
        ending: What names of run folders must end with, before their number.

    Raises:
        UserError: If there is none.
    """
    runs = f"*{ending}_[0-9]*" if ending else "*"
    # Lightning puts those that it writes for a cluster into the run folder itself.
    files = [*root.glob(f"{runs}/{FOLDER}/*{SUFFIX}"), *root.glob(f"{runs}/hpc_ckpt_*{SUFFIX}")]
    found = sorted(((_changed(path), path) for path in files), reverse=True)
    wanted = [_absolute(path) for path in (content, *(styles or [])) if path is not None]
    for _, path in found:
        try:
            facts: Mapping[str, Any] = read_checkpoint(path, lazily=True).get(FACTS, {})
        except UserError:
            continue  # damaged by something else; the one before it is as good
        pictures = [facts.get("content"), *facts.get("styles", [])]
        if not wanted or wanted == [_absolute(p) for p in pictures if p]:
            return path
    pair = f" of {', '.join(wanted)}" if wanted else ""
    raise UserError(
        f"ckpt_path: must be last only where a run left a checkpoint, got none{pair} below '{root}'; leave it out to "
        "start anew"
    )


def _changed(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 if another run has just removed it."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _absolute(path: str) -> str:
    return str(locate(path).resolve())
