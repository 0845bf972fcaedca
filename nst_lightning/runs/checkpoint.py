"""Checkpoints: files that are whole at every moment.

A checkpoint is Lightning's, loaded with ``weights_only=True``; under ``nst_lightning`` it also holds the facts that a
resumed run is checked against and the choices that ``auto`` made, and beside it the run's whole configuration.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from nst_lightning.errors import UserError, notice
from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder
from nst_lightning.files.lenient import only_the_file
from nst_lightning.runs.folder import CHECKPOINTS

FOLDER = CHECKPOINTS
SUFFIX = ".ckpt"
FACTS = "nst_lightning"
RANDOM = "random_state"
SETTINGS = "configuration"
LOSSES = "losses"  # of the last evaluation, by name
ENDED = "ended"  # whether a callback ended the run there, for good


class WholeFiles(CheckpointIO):
    """Write a checkpoint beside its place, flush it to the disk, and only then put it there.

    Tensors go from memory to the file; no copy of the state is made. A checkpoint that cannot be written costs itself,
    not the run, and then the one before it is kept.
    """

    def __init__(self) -> None:
        self._newest = ""  # that is whole

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write."""
        path = Path(path)
        try:
            make_folder(path.parent)
            self._check_room(checkpoint, path)
            with replacing(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch wraps what a full disk says
            notice(f"no checkpoint {path}: {_reason(error)}; the run goes on")
        else:
            self._newest = os.path.realpath(path)

    @staticmethod
    def _check_room(checkpoint: Mapping[str, Any], path: Path) -> None:
        """Leave room for the final picture, which is worth more than a checkpoint; else it is an OSError."""
        image = checkpoint["state_dict"]["image"] if "state_dict" in checkpoint else None
        picture = image.nbytes if image is not None else 0  # more than any format needs
        needed = sum(tensor.nbytes for tensor in _tensors(checkpoint)) + picture
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"it and the picture need {needed} bytes, and the disk has {free} left")

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Read, without executing anything; see CheckpointIO.

        Tensors stay on the disk: each is copied once into its place, so that going on needs no more memory than the
        run itself.
        """
        content = read_checkpoint(Path(path), lazily=True)
        self._newest = os.path.realpath(path)
        return content

    def remove_checkpoint(self, path: Any) -> None:
        """Remove, unless it is the newest that is whole."""
        if os.path.realpath(path) != self._newest:
            with only_the_file(path, "remove"):
                Path(path).unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """What the system said, also where torch has only noticed that its file is shorter than it should be."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.strerror:
            return behind.strerror
        behind = behind.__cause__ or behind.__context__
    return str(error).split("\n")[0][:150]


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested mappings and lists."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (Mapping, list, tuple)):
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _tensors(item)


def read_checkpoint(path: Path, *, lazily: bool = False) -> dict[str, Any]:
    """Read a checkpoint on the CPU, lazily with tensors left on the disk until they are used; nothing is executed.

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


_BEFORE = {"opponent_colors": False}  # what was done before there was a setting, where that is not today's default


def add_new_settings(checkpoint: dict[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Give the optimiser in a checkpoint the settings that its version did not have, as the groups say, in place."""
    for state in checkpoint.get("optimizer_states", [])[:1]:  # one of weights alone has none
        for saved, group in zip(state["param_groups"], groups, strict=False):
            saved.update({**group, **{name: old for name, old in _BEFORE.items() if name in group}, **saved})
