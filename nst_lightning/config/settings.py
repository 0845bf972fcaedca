"""What is wrong with classes and lists in settings, found before the parser, which can only say that no type fits.

A class is named by a word or a path, or by a mapping of class_path and init_args; a list has such items, or mappings
with the fields of `Style` or `Stage`.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import torch.optim
import yaml

from nst_lightning import callbacks, features, losses, optim
from nst_lightning.config.presets import CONFIG_FLAGS, options_in
from nst_lightning.data.schedule import Stage
from nst_lightning.data.styles import Style
from nst_lightning.errors import UserError


class _Place(NamedTuple):
    """Where classes may be named."""

    base: type  # what they are
    packages: tuple[ModuleType, ...]  # what knows them by a word
    many: bool = False  # whether a list is meant; one alone is then no list
    bare: bool = True  # whether one alone does, too


CLASSES = {
    "model.extractor": _Place(features.Extractor, (features,)),
    "model.draft": _Place(features.Extractor, (features,)),
    "model.optimizer": _Place(torch.optim.Optimizer, (optim, torch.optim)),
    "model.terms": _Place(losses.Term, (losses,), many=True, bare=False),
    "trainer.callbacks": _Place(lightning.pytorch.Callback, (callbacks, lightning.pytorch.callbacks), many=True),
    "trainer.logger": _Place(lightning.pytorch.loggers.Logger, (lightning.pytorch.loggers,), many=True),
}
ITEMS: dict[str, tuple[type, str]] = {
    "data.style": (Style, "[a.jpg, {path: b.jpg, weight: 2}]"),
    "model.stages": (Stage, "[{evaluations: 150, scale: 0.5}, {evaluations: 80}]"),
}
_SYNONYMS = {  # of other programs, for keys of ours
    **dict.fromkeys(("file", "image", "img", "name", "picture", "filename", "style"), "path"),
    **dict.fromkeys(("learning_rate", "step_size"), "lr"),
    **dict.fromkeys(("iterations", "steps", "epochs"), "evaluations"),
    **dict.fromkeys(("factor", "share", "strength"), "weight"),
}
_SPEC = frozenset(("class_path", "init_args", "dict_kwargs"))


def check_settings(args: Sequence[str]) -> None:
    """Look at the values of options, and into configurations, for what can be said better here than by the parser.

    Raises:
        UserError: With the nearest name that would do, or the form of a list.
    """
    for key, value in _given(args):
        if key in CLASSES:
            _check_classes(key, value, CLASSES[key])
        elif key in ITEMS:
            _check_items(key, value, *ITEMS[key])


def _given(args: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Keys and values, of options and of configurations."""
    for flag, text in options_in(args):
        if flag in CONFIG_FLAGS:
            yield from _of_configuration(text)
        elif flag.startswith("--") and flag[2:] in {*CLASSES, *ITEMS}:
            yield flag[2:], _value(text, flag[2:])


def _of_configuration(given: str) -> Iterator[tuple[str, Any]]:
    """Of a file, or of text in YAML where its paths begin at another folder."""
    tree = tree_of(given)
    for group in ("data", "model", "trainer"):
        held = tree.get(group) if isinstance(tree, dict) else None
        if not isinstance(held, (dict, type(None))) and not is_file(str(held)):
            raise UserError(f"{group}: must hold keys, each with a value, got {_short(held)}; mend {given}")
    for key in (*CLASSES, *ITEMS):
        group, _, name = key.partition(".")
        if isinstance(tree, dict) and isinstance(tree.get(group), dict) and name in tree[group]:
            yield key, tree[group][name]


def tree_of(given: str) -> Any:
    """What a configuration holds, a file or text in YAML; None if it cannot be read, as the parser will say."""
    try:
        return yaml.safe_load(given if "\n" in given else Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def is_file(text: str) -> bool:
    """Whether a value is the path of a file; a long one in YAML is no name that a disk takes, which is no error."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _value(text: str, key: str) -> Any:
    if text[:1] not in {"[", "{"} or is_file(text):
        return None if text == "null" else {"true": True, "false": False}.get(text, text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        form = ITEMS[key][1] if key in ITEMS else "[{class_path: Name, init_args: {weight: 2}}]"
        raise UserError(
            f"{key}: must be a list or mapping in YAML, got {text}; type it as --{key} '{form}', in quotation marks"
        ) from None


def _check_classes(key: str, value: Any, place: _Place) -> None:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and is_file(value)):
        return
    items = value if isinstance(value, list) else [value]
    names = _names(place)
    wholes = [_check_class(key, item, names) for item in items]
    if place.many and not place.bare and not isinstance(value, list):
        raise UserError(f"{key}: must be a list, got {_short(value)}; type: --{key} '[{', '.join(wholes)}]'")


def _check_class(key: str, item: Any, names: Mapping[str, type]) -> str:
    """Check one class; returns it in YAML."""
    if isinstance(item, str):
        _find(key, item, names)
        return item
    if not isinstance(item, dict):
        raise UserError(f"{key}: must name classes, got {_short(item)}; there are {', '.join(names)}")
    has_one = not _SPEC.isdisjoint(item)
    for unknown, value in item.items() if item else [("", None)]:
        if unknown in _SPEC:
            continue
        near = difflib.get_close_matches(str(unknown), _SPEC, n=1, cutoff=0.7 if has_one else 0.6)
        if near or has_one:
            hint = f"did you mean {near[0]}?" if near else f"type: init_args: {{{unknown}: {_flow(value)}}}"
            raise UserError(f"{key}: {unknown}: must be class_path or init_args, got {unknown}; {hint}")
        inner = f", init_args: {_flow(value)}" if isinstance(value, dict) else ""
        name = str(unknown) if str(unknown) in names else next(iter(names))
        raise UserError(
            f"{key}: must be a class_path, with init_args, got {_short(item)}; type: {{class_path: {name}{inner}}}"
        )
    class_ = _find(key, item.get("class_path"), names)
    arguments = item.get("init_args") or {}
    if class_ is not None and isinstance(arguments, dict):
        _check_arguments(key, class_, arguments)
    return _flow(item)


def _check_arguments(key: str, class_: type, arguments: Mapping[str, Any]) -> None:
    known = inspect.signature(class_).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for name in arguments:
        if name not in known:
            raise UserError(f"{key}: {name}: there is no such option of {class_.__name__}; {nearest(name, known)}")


def _find(key: str, name: Any, names: Mapping[str, type]) -> type | None:
    """The class of a name, or None for one that only an import could tell."""
    module, _, word = str(name).rpartition(".")
    packages = {package.__name__: package for package in CLASSES[key].packages}
    if not module and word in names:
        return names[word]
    if module and module not in packages:
        return None
    if module and inspect.isclass(getattr(packages[module], word, None)):
        class_: type = getattr(packages[module], word)
        return class_
    raise UserError(f"{key}: must name a class, got {name}; {nearest(word, names)} (one of your own: my_file.MyClass)")


def nearest(word: str, names: Mapping[str, Any] | Sequence[str]) -> str:
    """The name that was meant, or all that there are."""
    lower = {str(name).lower(): str(name) for name in names}
    meant = _SYNONYMS.get(str(word).lower(), str(word).lower())
    near = [meant] if meant in lower else difflib.get_close_matches(meant, lower, n=1, cutoff=0.5)
    return f"did you mean {lower[near[0]]}?" if near else f"there are {', '.join(lower.values())}"


def _names(place: _Place) -> dict[str, type]:
    """What may be named by a word; bases for one's own are called after what they are of."""
    found: dict[str, type] = {}
    for package in place.packages:
        for name, class_ in inspect.getmembers(package, inspect.isclass):
            if issubclass(class_, place.base) and class_ is not place.base and not name.endswith("Term"):
                found.setdefault(name, class_)
    return found


def _check_items(key: str, value: Any, class_: type, form: str) -> None:
    known = [field.name for field in fields(class_)]
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            for name in item:
                if name not in known:
                    raise UserError(f"{key}: {name}: there is no such key; {nearest(name, known)} the form is {form}")
        elif class_ is Stage and value is not None and not (isinstance(value, str) and is_file(value)):
            raise UserError(f"{key}: must be a list of mappings, got {_short(value)}; type: --{key} '{form}'")


def _flow(value: Any) -> str:
    """A value in YAML, on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_flow(inner)}' for name, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _short(value: Any) -> str:
    text = _flow(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
