"""What a picture needs on another machine: its settings, and the bytes of the files that they name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from nst_lightning.data.request import FACES, Start
from nst_lightning.demo import locate
from nst_lightning.errors import UserError
from nst_lightning.features.weights import vgg19_source
from nst_lightning.files.digest import sha256_of
from nst_lightning.files.paths import expand
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.session_engine import own_settings

CONFIGURATION = "config.yaml"
_WORDS = {"init": get_args(Start), "content_mask": (FACES,)}  # that are no files


@dataclass(frozen=True)
class Parcel:
    """A task that can be made where none of its files are.

    Attributes:
        name: Of the picture's file.
        configuration: Its settings, as in a run's ``config.yaml``, whatever files they came from.
        files: By the path that the settings name: the file's name, and its bytes or what stands for them.
    """

    name: str
    configuration: dict[str, Any] = field(repr=False)
    files: Mapping[str, tuple[str, Any]] = field(repr=False)


def pack(task: Task, send: Callable[[Path], Any]) -> Parcel:
    """Make a parcel of a task.

    Args:
        task: The task.
        send: Gives what stands for a file's bytes.

    Raises:
        OSError: If a file is no longer there.
    """
    files: dict[str, tuple[str, Any]] = {}

    def take(text: str) -> str:
        path = locate(text)
        files[text] = path.name, send(path)
        return text

    _moved(task.configuration["data"], take)
    return Parcel(Path(task.row.name).name, {**task.configuration, **own_settings(task)}, files)


def unpack(parcel: Parcel, folder: Path, read: Callable[[Any], bytes]) -> tuple[Path, dict[str, str]]:
    """Write a parcel's files and settings into a folder.

    Args:
        parcel: The parcel.
        folder: An empty one.
        read: Gives the bytes that something stands for.

    Returns:
        Path of the settings, and where each file that they name is now.
    """
    places: dict[str, str] = {}
    for index, (text, (name, stand_in)) in enumerate(parcel.files.items()):
        path = folder / str(index) / name  # which counts among the settings
        path.parent.mkdir()
        path.write_bytes(read(stand_in))
        places[text] = str(path)
    configuration = {**parcel.configuration, "data": _moved(parcel.configuration["data"], places.__getitem__)}
    file = folder / CONFIGURATION
    file.write_text(yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file, places


def _moved(data: Mapping[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    """Settings of the data module with other paths of pictures and masks."""
    moved = copy.deepcopy(dict(data))
    styles: list[dict[str, Any]] = moved["style"]
    named = [(moved, ("content", "content_mask", "init"))]
    named += [(style, ("path", "mask", "style_mask")) for style in styles]
    for holder, names in named:
        for name in names:
            text = holder.get(name)
            if text is not None and text not in _WORDS.get(name, ()):
                holder[name] = move(str(text))
    return moved


def weights_named(model: Any) -> Iterator[str | None]:
    """Files of weights that the settings of a model need; None for VGG-19's where a machine keeps them."""
    if isinstance(model, dict):
        given = model.get("init_args")
        weights = given.get("weights") if isinstance(given, dict) else None
        is_vgg = str(model.get("class_path", "")).endswith(".VGG19")
        if (is_vgg and weights is None) or (weights is not None and Path(weights).suffix):
            yield weights
        for value in model.values():
            yield from weights_named(value)
    elif isinstance(model, list):
        for value in model:
            yield from weights_named(value)


def looks_for_faces(task: Task) -> bool:
    """Whether a machine needs the detector's weights, which are files of a package that is not always there."""
    return bool(task.configuration["data"].get("content_mask") == FACES)


def digest_of_weights(weights: str | None) -> str:
    """SHA-256 of a file of weights as this machine finds it; empty if it finds none, or would have to download it."""
    try:
        if weights is not None:
            return sha256_of(expand(weights))
        source = vgg19_source()
        return "" if source.url else sha256_of(source.fetch())
    except (OSError, UserError):
        return ""
