"""What of a command line a later part of it replaces.

jsonargparse merges: an item of a list takes over arguments of the item that stood at its place before, if both lists
have as many, and a class those of another class that it has by the same name. So one term would get the weight of
another one, a style the mask of another picture, and VGG-19 the file of another network. Here a list replaces a list,
and a class another class; the same class again keeps its arguments, so that a preset's network can be given one more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from nst_lightning.config.presets import CONFIG_FLAGS
from nst_lightning.config.settings import CLASSES, ITEMS, is_file, tree_of

_KEYS = (*CLASSES, *ITEMS, "model.lr_scheduler", "trainer.plugins", "trainer.profiler", "trainer.strategy")
# Each is a class whose arguments can be given without naming it. As defaults of the parser they would hand theirs on.
_DEFAULTS = {"model.extractor": "nst_lightning.features.VGG19", "model.optimizer": "nst_lightning.optim.LBFGS"}


def drop_replaced(args: Sequence[str]) -> list[str]:
    """Take out what is given once more later on, and name the classes that are there by default where none is named.

    Args:
        args: As `nst_lightning.config.parser.expand_presets` gives them.
    """
    later = _Later()
    kept: list[list[str]] = []
    for words in reversed(list(_sources(args))):
        if words[0] in CONFIG_FLAGS:
            kept.append([words[0], _configuration(words[1], later)])
            continue
        flag, _, value = words[0].partition("=") if len(words) == 1 else (words[0], "", words[1])
        if flag[2:] not in _KEYS:
            later.has_argument(flag[2:])
        elif later.replaces(flag[2:], _loaded(value)):
            continue
        kept.append(words)
    kept += [[f"--{key}", name] for key, name in later.unnamed.items()]
    return [word for words in reversed(kept) for word in words]


class _Later:
    """What comes later on a command line than the part that is looked at."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self.unnamed = dict(_DEFAULTS)  # classes that are to be named before all of this

    def replaces(self, key: str, value: Any) -> bool:
        """Whether a value is replaced; else it is noted."""
        if key in self._values and _is_replaced(value, self._values[key]):
            return True
        self._values[key] = value
        name = _class(value)
        if name is not None or value is None:
            self.unnamed.pop(key, None)
        if name is not None:
            self._names[key] = name
        return False

    def has_argument(self, option: str) -> None:
        """Note an option; an argument of a class needs its class, which may be named behind it."""
        key = ".".join(option.split(".")[:2])
        if key in _DEFAULTS and key != option:
            self.unnamed[key] = self._names.get(key, _DEFAULTS[key])


def _sources(args: Sequence[str]) -> Iterator[list[str]]:
    """Options that may be replaced and configurations, each with its value; all other words one by one."""
    words = iter(args)
    for word in words:
        takes_next = word in CONFIG_FLAGS or (word.startswith("--") and word[2:] in _KEYS)
        value = next(words, None) if takes_next else None
        yield [word] if value is None else [word, value]


def _configuration(given: str, later: _Later) -> str:
    """A configuration without what is replaced: a file, or text in YAML."""
    tree, changed = tree_of(given), False
    for key in _KEYS:
        group, _, name = key.partition(".")
        held = tree.get(group) if isinstance(tree, dict) else None
        if isinstance(held, dict) and name in held and later.replaces(key, held[name]):
            del held[name]
            changed = True
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True) if changed else given


def _is_replaced(value: Any, by: Any) -> bool:
    """Whether one value shall leave nothing to another that comes after it."""
    if isinstance(value, list):
        return isinstance(by, list)
    if isinstance(by, dict) and "path" in by:  # a style
        return isinstance(value, dict)
    before, after = _class(value), _class(by)
    return before is not None and after is not None and not _is_same(before, after)


def _class(value: Any) -> str | None:
    """The name of a class, as far as a value has one."""
    name = value.get("class_path") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None


def _is_same(one: str, other: str) -> bool:
    """Whether two names mean one class, which may have a word alone, or several paths in one package."""
    packages = {name.partition(".")[0] for name in (one, other) if "." in name}
    return one.rpartition(".")[2] == other.rpartition(".")[2] and len(packages) < 2


def _loaded(text: str) -> Any:
    """The value of an option: a word, a list or mapping in YAML, or what a file holds."""
    try:
        if is_file(text) and Path(text).suffix in {".yaml", ".yml", ".json"}:
            return yaml.safe_load(Path(text).read_text(encoding="utf-8"))
        return yaml.safe_load(text) if text[:1] in {"[", "{"} else None if text == "null" else text
    except (OSError, ValueError, yaml.YAMLError):  # the parser's to say
        return text
