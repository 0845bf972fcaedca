"""``nst fit --help all``: every option, and those of the classes that options name."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer

from nst_lightning import callbacks, features, losses, optim
from nst_lightning.config.options import FitCLI

# Where a class may be named, how its arguments are then given, and our own classes that may be named there.
_CLASSES: list[tuple[str, str, Any, type]] = [
    ("model", "model.extractor", features, features.Extractor),
    ("model", "model.optimizer", optim, Optimizer),
    ("model", "model.terms", losses, losses.Term),
    ("trainer", "trainer.callbacks", callbacks, Callback),
]
_LISTS = {"model.terms", "trainer.callbacks"}  # arguments of an item are given as init_args


def show(topic: str) -> None:
    """Print what there is about a topic: all, data, model, trainer or output."""
    classes = [
        _class_help(key, class_)
        for group, key, package, base in _CLASSES
        if topic in {"all", group}
        for class_ in _own(package, base)
    ]
    print("\n".join([_options(_Reference([]).parser, topic), *classes]))  # noqa: T201


class _Reference(FitCLI):
    """Parses nothing; has the parser that ``nst fit`` would parse with."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = Namespace(seed_everything=False)  # type: ignore[no-untyped-call]  # LightningCLI sets the seed next


def _options(parser: ArgumentParser, topic: str) -> str:
    """The parser's own help, of one of its groups or all of them; the page of usage in front says nothing more."""
    parser.usage = argparse.SUPPRESS
    for group in parser._action_groups:
        named = [action.dest for action in group._group_actions]
        if named and topic not in {"all", named[0] if named[0] in {"data", "model", "trainer"} else "output"}:
            group._group_actions.clear()  # there is no public way to leave a group out
            group.title = group.description = None
    return parser.format_help()


def _class_help(key: str, class_: type) -> str:
    name = class_.__name__
    if key in _LISTS:
        heading, key = f"--{key} '[{{class_path: {name}, init_args: {{...}}}}]'", "init_args"
    else:
        heading = f"--{key} {name}"
    parser = ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    parser.add_class_arguments(class_, key, skip={"params"}, fail_untyped=False, sub_configs=False)
    for group in parser._action_groups:  # the whole class from a file: for the outer option
        group._group_actions[:] = [action for action in group._group_actions if action.dest != key]
    return f"{heading}\n{parser.format_help()}"


def _own(package: Any, base: type) -> list[type]:
    """Classes of a package that a configuration may name; bases for one's own are called after what they are of."""
    found = (getattr(package, name) for name in package.__all__)
    return [
        class_
        for class_ in found
        if inspect.isclass(class_) and issubclass(class_, base) and not class_.__name__.endswith(base.__name__)
    ]
