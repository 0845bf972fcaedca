"""Whether a picture that is there already may give its place to a new one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_lightning.errors import UserError
from nst_lightning.files.digest import sha256_of
from nst_lightning.files.paths import expand
from nst_lightning.files.yaml_text import load_yaml
from nst_lightning.images.io import read_metadata
from nst_lightning.images.metadata import without_folders

FINGERPRINT = "Fingerprint"
EVALUATIONS = "Evaluations"
_SHOWING = ("timelapse", "preview", "report")
# Where a run's files go, and which besides the picture, and what it says: all this makes no other picture.
_INCIDENTAL = ("ckpt_path", "output", "fallback", "snapshot_every", "checkpoint_", "log", *_SHOWING)


def run_fingerprint(configuration: str, inputs: Sequence[Path], version: str) -> str:
    """A name for a run's settings in YAML and the pictures' bytes: equal for runs that make the same picture.

    Another version of the program may make another one.

    Raises:
        OSError: A picture is no longer there.
    """
    return fingerprint_of(load_yaml(configuration), [sha256_of(path) for path in inputs], version)


def fingerprint_of(settings: Mapping[str, Any], pictures: Sequence[str], version: str) -> str:
    """The same of settings as a tree and of the pictures' SHA-256; of their paths only the files' names count."""
    telling = {key: value for key, value in settings.items() if not key.startswith(_INCIDENTAL)}
    if isinstance(telling.get("trainer"), dict):
        telling["trainer"] = {key: value for key, value in telling["trainer"].items() if key != "default_root_dir"}
    telling["data"] = without_folders(telling.get("data"), files=True)
    text = json.dumps([version, telling, list(pictures)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def refuse_inputs(output: str | Path | None, inputs: Sequence[Path], name: str = "output") -> None:
    """Refuse to write a result, which an argument of this name asks for, over a picture that it is made from.

    Raises:
        UserError: If that would happen.
    """
    if output is None or not expand(output).exists():
        return
    for path in inputs:
        if expand(output).samefile(path):
            raise UserError(f"{name}: must not be a picture that the run reads, got '{output}'; choose another name")


def may_be_replaced(path: Path, settings: dict[str, str]) -> bool:
    """Whether a file is an earlier result of the new picture's settings that has come no further."""
    try:
        earlier = read_metadata(path)
    except UserError:
        return False
    if not settings.get(FINGERPRINT) or earlier.get(FINGERPRINT) != settings[FINGERPRINT]:
        return False
    return int(earlier.get(EVALUATIONS, 0)) <= int(settings[EVALUATIONS])
