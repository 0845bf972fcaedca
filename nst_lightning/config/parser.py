"""The command-line parser: presets by name, and one line for every error."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from nst_lightning import callbacks, features, losses, optim
from nst_lightning.config.habits import is_picture
from nst_lightning.config.presets import CONFIG_FLAGS, find_config
from nst_lightning.config.settings import nearest
from nst_lightning.data import module as data
from nst_lightning.data import schedule
from nst_lightning.errors import UserError
from nst_lightning.files.paths import PATHS_FROM, from_its_folder

_HELP = "nst fit --help all explains it"
_NO_SUCH_OPTION = "there is no such option"
_NOT_GIVEN = "must be given, got nothing"
_MOST_NODES, _DEEPEST = 20_000, 40  # no configuration comes near
# Words of other programs for values of ours.
_SYNONYMS = {
    **dict.fromkeys(("avg", "mean", "averaging"), "average"),
    **dict.fromkeys(("fp16", "float16", "half", "16bit", "bfloat16", "amp"), "bf16-mixed"),
    **dict.fromkeys(("fp32", "float32", "full", "single"), "32-true"),
    **dict.fromkeys(("keep", "original", "preserve", "content", "photo"), "luminance"),
    **dict.fromkeys(("on", "yes", "y", "t"), "true"),
    **dict.fromkeys(("off", "no", "n", "f"), "false"),
    **dict.fromkeys(("width", "longest", "max"), "long"),
    **dict.fromkeys(("height", "shortest", "min"), "short"),
    **dict.fromkeys(("quiet", "silent"), "none"),
    **dict.fromkeys(("text", "plain", "line"), "lines"),
}


def expand_presets(args: Sequence[str], *, goes_on: bool = False) -> list[str]:
    """Replace the value of every ``--config`` by a path, or by text in YAML where its paths begin at another folder.

    A run that goes on does so where it left its results; else it is made again here.

    Raises:
        UserError: If it is neither a file nor a preset, or not YAML.
    """
    expanded: list[str] = []
    after_flag = False
    for arg in args:
        flag, equals, value = arg.partition("=")
        if after_flag:
            expanded.append(_readable(arg, goes_on))
        elif flag in CONFIG_FLAGS and equals:
            expanded += [flag, _readable(value, goes_on)]
        else:
            expanded.append(arg)
        after_flag = arg in CONFIG_FLAGS
    if after_flag:
        raise UserError(f"{args[-1]}: must be followed by a file or a preset, got nothing; try --config gatys")
    return expanded


def _readable(name: str, goes_on: bool) -> str:
    path = find_config(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError) as error:
        if is_picture(name):
            raise UserError(
                f"--config: must be YAML, got the picture {path}; type --data.content {path} or --data.style {path}"
            ) from None
        reason = " ".join(str(error).split())[:200]
        if "'\\t'" in reason:
            raise UserError(
                f"--config: must be YAML, which takes no tabs, got one in {path}: {reason}; indent by two spaces"
            ) from None
        raise UserError(f"--config: must be YAML, got {path} with: {reason}; mend the file") from None
    except RecursionError:
        raise UserError(f"--config: must not be nested so deeply, got {path}; mend the file") from None
    if not isinstance(content, dict):
        raise UserError(
            f"--config: must hold keys such as model and data, got {path} with {type(content).__name__}; mend the file"
        )
    if not _is_modest(content):
        raise UserError(
            f"--config: must have at most {_MOST_NODES} values and {_DEEPEST} levels, references counted in full, got "
            f"more in {path}; mend the file"
        )
    if PATHS_FROM in content:
        content = from_its_folder(content, outputs=goes_on, runs=goes_on)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return str(path)


def mentions(args: Sequence[str], key: str) -> bool:
    """Whether a command line as `expand_presets` gave it, or a configuration that it names, says something of a key."""
    texts = [
        Path(arg).read_text(encoding="utf-8") if flag in CONFIG_FLAGS and "\n" not in arg else arg
        for flag, arg in zip(["", *args], args, strict=False)
    ]
    return any(key in text for text in texts)


def _is_modest(tree: Any) -> bool:
    """Whether a document stays small when its references are written out, which what reads it later will do."""
    sizes: dict[int, int] = {}
    pending: list[tuple[Any, int, bool]] = [(tree, 1, False)]
    while pending:
        node, depth, children_known = pending.pop()
        if depth > _DEEPEST:
            return False
        children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        if children_known:
            sizes[id(node)] = 1 + sum(sizes.get(id(child), 1) for child in children)
            if sizes[id(node)] > _MOST_NODES:
                return False
        elif id(node) not in sizes:
            pending.append((node, depth, True))
            pending += [(child, depth + 1, False) for child in children]
    return True


class ParseError(UserError, ValueError):
    """A value that does not fit; also a ValueError, since a type tried in a Union may fail where the next one fits."""


class OneLineParser(LightningArgumentParser):
    """A parser whose errors are one line that names argument, requirement and value, with the nearest valid key."""

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add arguments; the data module's values are pictures, never files to read settings from; see jsonargparse."""
        if "data" in args:
            kwargs["sub_configs"] = False
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        for action in self._actions:
            if action.dest == "data.content":  # null is a value of it; jsonargparse sees that in unions of two alone
                action.required = False
        return added

    def dump(self, namespace: Namespace, *args: Any, **kwargs: Any) -> str:
        """Write a configuration, with values of enumerations as the text they are; see jsonargparse."""
        return str(super().dump(_without_enumerations(namespace), *args, **kwargs))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing a page of usage and exiting; see jsonargparse.

        Raises:
            ParseError: Always.
        """
        raise ParseError(self._one_line(message)) from None

    def _one_line(self, message: str) -> str:
        inner = _inner_line(message)
        if inner is not None:
            missing = re.fullmatch(rf".+: (\w+): {_NOT_GIVEN}", inner)
            return f"{inner}; add it, as in init_args: {{{missing.group(1)}: VALUE}}" if missing else inner
        unknown = _unknown_key(message)
        if unknown is None:
            return _shorten(message)
        own = [action.dest for action in self._actions if action.dest != "help" and not action.dest.endswith(".help")]
        if "config" not in own:  # the arguments of a class
            return f"{unknown}: {_NO_SUCH_OPTION}; {nearest(unknown, own)}"
        near = difflib.get_close_matches(unknown, own, n=1, cutoff=0.6) or difflib.get_close_matches(
            unknown, self._known_keys(nested="." not in unknown), n=1, cutoff=0.6
        )
        hint = f"did you mean {near[0]}?" if near else "nst fit --help all lists the options"
        return f"{unknown}: {_NO_SUCH_OPTION}; {hint}"

    def check_nulls(self, config: Namespace) -> None:
        """Refuse null where the type has none, which jsonargparse lets pass; ``strength:`` in YAML is one.

        Raises:
            ParseError: With the first of them.
        """
        for action in self._actions:
            wanted = getattr(action, "_typehint", None)
            if wanted is None or action.default is None or config.get(action.dest, "") is not None:
                continue
            if type(None) not in get_args(wanted):
                name = _plain_type(str(wanted)).replace("typing.", "")
                raise ParseError(f"{action.dest}: must be {name}, got null; leave it out for {action.default}")

    def _known_keys(self, *, nested: bool) -> set[str]:
        """Keys of the command line and of YAML; with `nested` also the arguments of classes named by class_path."""
        keys = {action.dest for action in self._actions}
        keys |= {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 1)}
        if nested:
            keys |= {key.rsplit(".", 1)[-1] for key in keys}
            for package in (callbacks, data, features, losses, optim, schedule):
                for _, class_ in inspect.getmembers(package, inspect.isclass):
                    if class_.__module__.startswith("nst_lightning") and not issubclass(class_, BaseException):
                        keys |= set(inspect.signature(class_).parameters)
        return keys


def _without_enumerations(tree: Any) -> Any:
    """A configuration with text for members of enumerations that are text, which YAML has no form for."""
    if isinstance(tree, Namespace):
        return Namespace(**{key: _without_enumerations(value) for key, value in vars(tree).items()})  # type: ignore[no-untyped-call]
    if isinstance(tree, dict):
        return {key: _without_enumerations(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_enumerations(value) for value in tree]
    return str(tree.value) if isinstance(tree, Enum) and isinstance(tree, str) else tree


def _inner_line(message: str) -> str | None:
    """Find the line that a parser of a nested class made, in what the outer parser says of all types it tried."""
    for said in re.findall(r"^\s*- (.*)$", message, re.MULTILINE):
        nested = re.fullmatch(r'Parser key "([^"]+)": (.*)', said)
        line = ": ".join(nested.groups()) if nested else str(said)
        if nested or ": must be " in line or _NO_SUCH_OPTION in line:
            key = re.search(r'Parser key "([^"]+)"', message)
            return f"{key.group(1)}: {line}" if key else line
    whole = re.fullmatch(rf'Parser key "([^"]+)":\s+(.*{_NOT_GIVEN}.*)', message)
    return ": ".join(whole.groups()) if whole else None


def _unknown_key(message: str) -> str | None:
    """Find the key that a message of jsonargparse (or argparse) says is not known."""
    for pattern in (
        r"unrecognized arguments: -*([^\s=]+)",
        r"Group '(?P<group>[^']+)' does not accept option '(?P<key>[^']+)'",
        r"Option '([^']+)' is not accepted",
        r"Key '([^']+)' is not expected",
    ):
        match = re.search(pattern, message, re.IGNORECASE)
        if match:
            return ".".join(match.groups())
    return None


def _shorten(message: str) -> str:
    """Bring a message of jsonargparse, which may be a page, into the form argument, requirement, value."""
    required = re.search(r"arguments are required: (.*)", message)
    if required:
        first = required.group(1).split(",")[0].strip()
        example = f"; for example --{first} picture.jpg" if "." in first else ""  # others belong to a nested class
        return f"{required.group(1)}: {_NOT_GIVEN}{example}"
    key = re.search(r'Parser key "([^"]+)"', message)
    problem = re.search(r"Problem with given class_path '([^']+)':\s*(.*)", message)
    expected = [_plain_type(t) for t in re.findall(r"Expected an? (.*?)(?:\. Got value|$)", message, re.MULTILINE)]
    value = re.search(r"(?:Given value|Got value): (.*)", message)
    if problem:
        argument = key.group(1) if key else "class_path"
        return f"{argument}: must name a class, got {problem.group(1)} ({problem.group(2)}); mend the path"
    several = re.search(r"Multiple subclasses with name (\w+)\. .*?: (.*)\.", message)
    if key and several:
        name, paths = several.groups()
        first = paths.split(", ")[0]
        return f"{key.group(1)}: must name one class, got {name}, which are {paths}; did you mean {first}?"
    other = re.search(r"does not correspond to a subclass of (\w+)", message)
    if key and other and value:
        return f"{key.group(1)}: must name a class of the kind {other.group(1)}, got {value.group(1)[:80]}; {_HELP}"
    if key and expected and value:
        expected = [wanted for wanted in expected if not wanted.startswith(("path but", "dot import path"))] or expected
        wanted = " or ".join(dict.fromkeys(expected))
        return f"{key.group(1)}: must be {wanted}, got {value.group(1)[:80]}; {_meant(wanted, value.group(1))}"
    return re.sub(r"\s+", " ", re.sub(r'Parser key "([^"]+)"', r"\1", message))[:400]


def _meant(wanted: str, value: str) -> str:
    """What to type instead of a value that is nearly of the type, else where it is explained."""
    choices = re.findall(r"[\w.-]+", wanted.partition("one of ")[2])
    plain = value.strip("'\"").lower()
    near = [_SYNONYMS[plain]] if _SYNONYMS.get(plain) in choices else []
    near = near or [choice for choice in choices if choice.lower() == plain]
    near = near or difflib.get_close_matches(plain, choices, n=1, cutoff=0.6)
    if "bool" in wanted and not near:
        near = difflib.get_close_matches(plain, ["true", "false"], n=1, cutoff=0.6)
    number = _number_meant(plain)
    if not near and number is not None and re.search(r"\b(int|float)\b", wanted):
        near = [str(number) if "float" in wanted and number != round(number) else str(round(number))]
    return f"did you mean {near[0]}?" if near else _HELP


def _number_meant(text: str) -> float | None:
    """The number in ``512px``, ``1e3``, ``1,5``, ``640x480`` or ``half``."""
    found = re.match(r"[+-]?\d+([.,]\d+)?(e[+-]?\d+)?", text)
    try:
        return float(found.group().replace(",", ".")) if found else None
    except ValueError:
        return None


def _plain_type(text: str) -> str:
    """``<class 'int'>`` -> int, ``typing.Literal['a', 'b']`` -> one of a, b."""
    literal = re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", text)
    if literal:
        return "one of " + literal.group(1).replace("'", "")
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text).replace("NoneType", "null")
