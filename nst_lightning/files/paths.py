"""Paths as people write them: ``~`` is a home folder wherever a path is taken, as it is in a shell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nst_lightning.errors import UserError

PATHS_FROM = "paths_from"


def expand(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Put the home folder in place of a leading ``~`` or ``~user``.

    A shell does so only where a word begins, not in ``--output=~/x.png``, and nobody does in YAML. As in a shell, a
    name such as ``~x.png`` that is nobody's stays as it is, and ``./~`` means a file or folder of this name.

    Raises:
        UserError: If there is no such home folder, and no folder of that name either.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return Path(text)
    try:
        expanded = os.path.expanduser(text)  # noqa: PTH111 - pathlib's raises for ~x.png
    except ValueError:  # a NUL, which whoever opens the file says
        return Path(text)
    first, *rest = Path(text).parts
    if expanded == text and (rest or first == "~") and not Path(first).exists():
        raise UserError(
            f"{name}: must begin with a home folder that is known, got '{text}'; write the folder in full, or "
            f"./{first} for one of this name"
        )
    return Path(expanded)


def absolute(path: str | os.PathLike[str]) -> str:
    """A path from the root of the file system on; a link stays a link."""
    return os.path.abspath(path)  # noqa: PTH100 - pathlib's resolves links, or leaves .. in


def from_its_folder(configuration: dict[str, Any], *, outputs: bool = False, runs: bool = False) -> dict[str, Any]:
    """A run's configuration as it means from any folder.

    It keeps paths as they were typed, and under `PATHS_FROM` the folder that they begin at. What is no file there any
    more is looked for from the current folder. For a run that goes on, `outputs` also lead where the results went, and
    `runs` to the folder where it is looked for.
    """
    configuration = dict(configuration)
    folder = configuration.pop(PATHS_FROM, None)
    if not isinstance(folder, str) or not Path(folder).is_dir() or Path(folder).samefile(Path.cwd()):
        return configuration
    for key in ("data", "model"):
        configuration[key] = in_folder(configuration.get(key), Path(folder))
    for key in ("output", "fallback", "timelapse"):
        if outputs and configuration.get(key) is not None:
            configuration[key] = absolute(Path(folder) / expand(configuration[key], key))
    root = (configuration.get("trainer") or {}).get("default_root_dir")
    if runs and root is not None:
        root = absolute(Path(folder) / expand(root, "trainer.default_root_dir"))
        configuration["trainer"] = {**configuration["trainer"], "default_root_dir": root}
    return configuration


def in_folder(tree: Any, folder: Path) -> Any:
    """Make the relative paths of files in a configuration absolute, which begin at a folder.

    What is no file there is left as it is: it may be no path, or a file that was moved along with the current folder.
    Returns a copy of the tree, which is nested mappings and lists.
    """
    if isinstance(tree, Mapping):
        return {key: in_folder(value, folder) for key, value in tree.items()}
    if isinstance(tree, list):
        return [in_folder(value, folder) for value in tree]
    # A word alone, such as init: noise, is a choice before it is a file.
    if isinstance(tree, str) and ("." in tree or os.sep in tree) and not Path(tree).is_absolute():
        with contextlib.suppress(OSError, ValueError):  # a text that no file system takes for a path
            if (folder / tree).is_file():
                return absolute(folder / tree)
    return tree
