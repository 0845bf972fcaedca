"""The settings of a picture as YAML for people: with the names of their files, and nothing of the server's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import yaml

from nst_lightning.data.request import FACES, Start
from nst_lightning.files.paths import PATHS_FROM
from nst_lightning.files.yaml_text import load_yaml
from nst_lightning.studio.asked import Asked
from nst_lightning.studio.options import check_options
from nst_lightning.studio.refusals import RefusedError
from nst_lightning.studio.uploads import DEMO, plain_name

_OURS = (
    *("output", "fallback", "ckpt_path", "log", "timelapse", "report", "preview_seconds", "snapshot_every"),
    *("checkpoint_every", "checkpoint_seconds", "checkpoint_keep", "checkpoint_finished", PATHS_FROM),
)
_IGNORED = ("bits", "quality", "color_space", "keep_location")  # of files, which are chosen when they are fetched
_FIELDS = {
    "data.size": "size",
    "model.strength": "strength",
    "model.likeness": "likeness",
    "data.regions": "regions",
    "model.evaluations": "evaluations",
}
# Where a file has none, the preset that is chosen on the page may have one. A file as nst fit writes it has all of
# _WHOLE, and leaves out what is none.
_MEANT = ("model.draft", "model.stages")
_WHOLE = {"model.terms", "model.extractor", "model.optimizer"}
# What such a file says by leaving it out, so that nothing of another request is left beside it.
_UNSAID = {"evaluations": None, "seconds": None, "stroke_size": 1.0, "keep_colors": False, "protect_faces": False}
_OF_STYLES = {"path", "weight", "mask", "scale"}  # what a request can say of a style; its scale as stroke_size
BEGINNING = "beginning.tif"  # what a picture that began with another one calls that


def published(configuration: str, asked: Asked, names: Mapping[str, str]) -> str:
    """A configuration that ``nst fit --config`` takes where the files lie.

    Args:
        configuration: As the run had it.
        asked: What was asked for.
        names: What each image is called.
    """
    tree: dict[str, Any] = {key: value for key, value in load_yaml(configuration).items() if key not in _OURS}
    tree["trainer"] = {"precision": (tree.get("trainer") or {}).get("precision", "auto")}
    data = tree["data"]
    data["content"] = None if asked.content is None else names[asked.content]
    if data.get("content_mask") != FACES:
        data["content_mask"] = None if asked.content_mask is None else names[asked.content_mask]
    items = data["style"] if isinstance(data["style"], list) else [data["style"]]
    data["style"] = [_style(item, style, names) for item, style in zip(items, asked.styles, strict=True)]
    if data.get("init") not in {None, *get_args(Start)}:
        data["init"] = BEGINNING
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _style(item: Any, asked: Any, names: Mapping[str, str]) -> dict[str, Any]:
    known = dict(item) if isinstance(item, dict) else {}
    known["path"] = names[asked.image]
    known["mask"] = None if asked.mask is None else names[asked.mask]
    return {name: value for name, value in known.items() if value is not None}


def asked_of(text: str) -> dict[str, Any]:
    """From YAML from outside to the fields of a request, without its pictures.

    Returns:
        ``asked``, with the fields that the YAML speaks of, and ``pictures``, with the names of the files that it names
        for content, styles, masks and the start; only the last part of a path. No field takes the last, ``init``.

    Raises:
        UserError: If it says anything that may not come from outside.
        yaml.YAMLError: If it is no YAML.
    """
    try:
        tree = yaml.safe_load(text)
    except RecursionError:
        raise RefusedError(
            "body: must be a configuration, got one of very many levels; mend it", field="body"
        ) from None
    if not isinstance(tree, dict):
        raise RefusedError(
            "body: must be a configuration as nst fit writes it, got something else; see docs", field="body"
        )
    flat = {f"{group}.{key}": value for group in ("data", "model") for key, value in _mapping(tree, group).items()}
    asked: dict[str, Any] = {}
    if flat.get("data.size") == "content":
        raise RefusedError("data.size: must be a number of pixels here, got content; give one, such as 512")
    for name, field in _FIELDS.items():
        if flat.get(name) is not None:
            asked[field] = flat[name]
        flat.pop(name, None)
    if isinstance(tree.get("seed_everything"), int) and not isinstance(tree["seed_everything"], bool):
        asked["seed"] = tree["seed_everything"]
    if flat.get("data.color") == "luminance":
        asked["keep_colors"] = True
        del flat["data.color"]
    pictures = _pictures(flat, asked)
    precision = _mapping(tree, "trainer").get("precision")
    if precision not in {None, "auto"}:
        flat["trainer.precision"] = precision
    known = {*_IGNORED, *_OURS, "data", "model", "trainer", "seed_everything"}
    strange = [str(key) for key in tree if key not in known]
    if strange:
        raise RefusedError(
            f"body: must have no settings but data and model, got {strange[0][:60]}; leave it out", field="body"
        )
    if flat.keys() >= _WHOLE:
        flat = {**dict.fromkeys(_MEANT), **flat}
        asked = {**_UNSAID, **asked}
    options = {name: value for name, value in flat.items() if value is not None or name in _MEANT}
    check_options(options)
    return {"asked": {**asked, "options": options}, "pictures": pictures}


def _mapping(tree: Mapping[str, Any], group: str) -> dict[str, Any]:
    held = tree.get(group) or {}
    if not isinstance(held, dict):
        raise RefusedError(f"{group}: must hold keys, each with a value, got something else; mend it", field="body")
    return {str(key): value for key, value in held.items()}


def _pictures(flat: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Take what names files out of the settings; returns the names alone."""
    given = flat.pop("data.style", None)
    items = given if isinstance(given, list) else [] if given is None else [given]
    known = [item if isinstance(item, dict) else {"path": item} for item in items]
    styles = []
    for about in known:
        style: dict[str, Any] = {"name": _file_name(about.get("path")), "mask": _file_name(about.get("mask"))}
        style["weight"] = about["weight"] if isinstance(about.get("weight"), (int, float)) else 1.0
        styles.append(style)
    scale = _scale_of(known)
    if scale != 1:
        asked["stroke_size"] = scale
    found: dict[str, Any] = {"content": _file_name(flat.pop("data.content", None)), "styles": styles}
    mask = flat.pop("data.content_mask", None)
    if mask == FACES:
        asked["protect_faces"], mask = True, None
    found["content_mask"] = _file_name(mask)
    if isinstance(flat.get("data.init"), str) and flat["data.init"] not in get_args(Start):
        found["init"] = _file_name(flat.pop("data.init"))
    return found


def _scale_of(styles: Sequence[Mapping[str, Any]]) -> float:
    """The scale that all styles have.

    Raises:
        RefusedError: If they differ in it, or say what a request cannot, which would be lost without a word.
    """
    for style in styles:
        strange = [str(key) for key, value in style.items() if key not in _OF_STYLES and value is not None]
        if strange:
            raise RefusedError(
                f"data.style: must say no more of a style than {', '.join(sorted(_OF_STYLES))} here, got "
                f"{strange[0][:60]}; leave it out, or use nst fit"
            )
    scales = [1.0 if style.get("scale") is None else style["scale"] for style in styles]
    if any(scale != scales[0] for scale in scales):
        raise RefusedError(
            f"data.style: must have one scale for all styles here, got {' and '.join(map(str, scales))[:60]}; "
            "make them the same, or use nst fit"
        )
    return scales[0] if scales and isinstance(scales[0], (int, float)) else 1.0


def _file_name(path: Any) -> str | None:
    if not isinstance(path, str):
        return None
    return path if path in DEMO else plain_name(path)
