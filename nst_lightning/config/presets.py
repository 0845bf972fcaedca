"""Where configuration files lie: a path, or the bare name of a preset that the package carries."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from nst_lightning.errors import UserError
from nst_lightning.files.paths import expand

CONFIG_FLAGS = ("-c", "--config")
_PACKAGE = Path(__file__).parent.parent


def beside_package(name: str) -> Path:
    """A folder that lies inside an installed package, and beside it in a checkout."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def presets_folder() -> Path:
    """The folder of presets."""
    return beside_package("configs")


def preset_names() -> list[str]:
    """Names of all presets, such as ``gatys`` and ``hardware/cpu``."""
    folder = presets_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


class Preset(NamedTuple):
    """What a preset's file says of itself."""

    name: str  # as --config takes it
    gives: str  # the first line of its comment: what one gets
    takes: str  # the second: time, memory, and what must be there
    notes: str  # the rest of that comment, in one line
    path: Path


def read_presets() -> list[Preset]:
    """All presets by name, overlays last."""
    return [_read(name) for name in sorted(preset_names(), key=lambda name: ("/" in name, name))]


def _read(name: str) -> Preset:
    path = presets_folder() / f"{name}.yaml"
    with path.open(encoding="utf-8") as file:
        lines = [line.lstrip("#").strip() for line in takewhile(lambda line: line.startswith("#"), file)]
    gives, takes, *notes = [*lines, "", ""]
    return Preset(name, gives, takes, " ".join(filter(None, notes)), path)


def find_config(name: str) -> Path:
    """Find a configuration by the path of a file or the bare name of a preset.

    Raises:
        UserError: If it is neither.
    """
    path = expand(name, "--config")
    if path.is_file():
        return path
    preset = presets_folder() / f"{name}.yaml"
    if not Path(name).suffix and preset.is_file():
        return preset
    near = difflib.get_close_matches(Path(name).stem, preset_names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"--config: must be a file or a preset, got '{name}'; {hint}presets: {', '.join(preset_names())}")


def options_in(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word of a command line up to its =, with what follows there or, without one, with the next word."""
    for arg, after in zip(args, [*args[1:], ""], strict=True):
        flag, equals, value = arg.partition("=")
        yield flag, value if equals else after
