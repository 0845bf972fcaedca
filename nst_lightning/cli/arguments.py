"""``nst fit`` before anything that takes time is imported: help, words of other programs, classes of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from nst_lightning import __version__
from nst_lightning.cli.own_classes import own_classes
from nst_lightning.cli.page import PAGE, help_asked_for
from nst_lightning.config.habits import check_words
from nst_lightning.process.loading import load


def main(args: Sequence[str]) -> int:
    """Run ``nst fit`` with the command line after the subcommand; returns the exit code."""
    if "--version" in args:
        print(f"nst_lightning {__version__}")  # noqa: T201
        return 0
    topic = help_asked_for(args)
    if topic == "":
        print(PAGE)  # noqa: T201
        return 0
    with own_classes(args):
        if topic is not None:
            load("nst_lightning.cli.reference").show(topic)
            return 0
        check_words(args)
        return int(load("nst_lightning.cli.fit").main(args))
