"""``nst gallery``: many pictures, or one pair in many settings."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nst_lightning.cli.own_classes import own_classes
from nst_lightning.cli.plain import PlainParser
from nst_lightning.console import log
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.process.forking import load_workers_ahead
from nst_lightning.process.loading import load

if TYPE_CHECKING:
    from nst_lightning.gallery import Engine

_DESCRIPTION = """\
Make every content in every style, into one folder with a contact sheet (index.html).

  nst gallery photos --styles paintings -o out               every picture of two folders
  nst gallery 'photos/**/*.jpg' --styles a.jpg b.jpg -o out  patterns and files
  nst gallery --manifest rows.csv -o out                     the rows of a table or a YAML list
  nst gallery --sheet photo.jpg --styles painting.jpg -o out --preset fast painterly --strength 0.5 1 2
                                                             one pair in many settings, to choose one

Run it again after Ctrl-C, a kill or a power failure: finished pictures are kept, the one under way goes on from its
checkpoint. Pictures that cannot be made are listed at the end, with exit code 1."""

_EPILOG = "Any option of nst fit may follow, such as --model.evaluations 200; nst fit --help all lists them."
_NAMES = ("preset", "strength", "stroke_size")  # which a sheet may vary


def parser() -> argparse.ArgumentParser:
    """The command's own words; all others are options of ``nst fit``."""
    words = PlainParser(
        prog="nst gallery",
        usage="nst gallery CONTENTS... --styles STYLES... -o FOLDER [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    add = words.add_argument
    add("contents", nargs="*", metavar="CONTENTS", help="folders, patterns and files; options come after them")
    add("--styles", nargs="+", default=[], metavar="STYLE", help="the same, for the styles")
    add("-o", "--output", metavar="FOLDER", help="where pictures go; it is made if it is not there")
    add("--manifest", metavar="FILE", help="rows (csv, tsv, yaml, json) with content, style and settings of their own")
    add("--pattern", metavar="NAME", help="names of pictures, by default '{content}_{style}'; there are also {preset}, "
        "{strength}, {stroke_size} and {index}; a suffix says the format, slashes make folders")  # fmt: skip
    add("--sheet", action="store_true", help="one pair in all presets by strengths by stroke sizes that are given")
    add("--preset", nargs="+", default=[], metavar="NAME", help="preset or configuration file; default: fast")
    add("--size", metavar="PIXELS", help="long side of the results, or content for each content's own")
    add("--strength", nargs="+", type=float, default=[], metavar="X", help="style against content, 1 is neutral")
    add("--likeness", type=float, metavar="X", help="how much is recognised of the contents, 0 to 1; 0.5 is neutral")
    add("--keep-colors", "--keep_colors", action="store_true", help="keep the contents' colours")
    add(
        "--protect-faces", "--protect_faces", action="store_true", help="faces in the contents stay clear (extra faces)"
    )
    add("--regions", type=int, metavar="N", help="so many regions of each content, each with the style of what is most "
        "like it")  # fmt: skip
    add("--stroke-size", "--stroke_size", nargs="+", type=float, default=[], metavar="X", help="2: twice as large")
    add("--seed", type=int, metavar="N", help="of all that is random")
    add("--engine", default="local", metavar="NAME", help="local: this machine; ray: the machines of a Ray cluster "
        "(extra ray)")  # fmt: skip
    add("--address", metavar="HOST:PORT", help="of the Ray cluster that this machine is part of, or auto")
    add("--cores", type=int, metavar="N", help="cores for each picture; so many are made at once that all cores have "
        "work. Default: one, where memory allows; with --engine ray all of a machine")  # fmt: skip
    add("--json", action="store_true", help="a JSON object a line on standard output for each event, for programs")
    add("--print_config", action="store_true", help="print the YAML of each kind of picture, and make none")
    return words


def main(args: Sequence[str]) -> int:
    """Run ``nst gallery`` with the command line after the subcommand; returns the exit code."""
    words = parser()
    if {"-h", "--help"} & set(args):
        print(words.format_help())  # noqa: T201
        return 0
    ours, fit = split(args, words)
    options = words.parse_args(ours)
    if options.output is None:
        raise UserError("--output: must be given, got nothing; for example -o gallery")
    fit.pop("log", None)  # heard already
    settings = _settings(options, fit)
    _check_engine(options)
    if options.engine == "local" and not options.print_config:
        load_workers_ahead()
    galleries, display = load("nst_lightning.gallery"), load("nst_lightning.cli.gallery_display").display

    with contextlib.ExitStack() as stack:
        files = [f"--config={preset}" for preset in options.preset]
        stack.enter_context(own_classes([*args, *files]))
        shown = stack.enter_context(display(as_json=options.json))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", UserNotice)
        warnings.showwarning = shown.warn
        gallery = galleries.Gallery(
            options.output,
            options.contents,
            options.styles,
            manifest=options.manifest,
            sheet=options.sheet,
            pattern=options.pattern,
            **settings,
        )
        if options.print_config:
            print("---\n".join(gallery.configurations()), end="")  # noqa: T201
            return 0
        summary = gallery.make(shown.tell, stack.enter_context(contextlib.closing(_engine(options))))
    if not options.json and log.kind() != "json":  # programs have heard of each
        for name, reason in summary.failed.items():
            log.say("error", f"{name}: {reason}")
    return 1 if summary.failed else 0


def _check_engine(options: argparse.Namespace) -> None:
    if options.engine not in {"local", "ray"}:
        raise UserError(f"--engine: must be local or ray, got {options.engine}; local is the default")
    if options.address is not None and options.engine != "ray":
        raise UserError(f"--address: must be left out without --engine ray, got {options.address}; add --engine ray")


def _engine(options: argparse.Namespace) -> Engine:
    """What makes the pictures."""
    galleries = load("nst_lightning.gallery")
    if options.engine == "local":
        made: Engine = galleries.LocalEngine(options.cores)
    else:
        made = galleries.RayEngine(options.address, options.cores)
    return made


def split(args: Sequence[str], parser: argparse.ArgumentParser) -> tuple[list[str], dict[str, str]]:
    """Part a command line into what a parser knows and options of ``nst fit``, each of which has one value."""
    known = {name for action in parser._actions for name in action.option_strings}
    ours: list[str] = []
    fit: dict[str, str] = {}
    position = 0
    while position < len(args):
        arg = args[position]
        position += 1
        flag, equals, value = arg.partition("=")
        if flag in known or not (flag.startswith("--") or flag == "-c"):
            ours.append(arg)
            continue
        if not equals:
            follows = position < len(args) and not args[position].startswith("--")
            value = args[position] if follows else "true"
            position += follows
        name = "config" if flag == "-c" else flag[2:]
        if name in fit and name != "config":
            raise UserError(f"--{name}: must be given once, got {fit[name]} and {value}; leave one out")
        fit[name] = f"{fit[name]},{value}" if name in fit else value
    return ours, fit


def _settings(options: argparse.Namespace, fit: dict[str, str]) -> dict[str, Any]:
    """What `Gallery` takes of the settings."""
    presets = list(options.preset)
    if "config" in fit:  # on top of each preset, or in place of the default one
        presets = [f"{preset},{fit['config']}" for preset in presets] or [fit["config"]]
        del fit["config"]
    given = {"preset": presets, "strength": options.strength, "stroke_size": options.stroke_size}
    found: dict[str, Any] = {"options": fit}
    found |= {name: getattr(options, name) for name in ("keep_colors", "likeness", "protect_faces", "regions")}
    if options.sheet:
        found |= {f"{name}s": values for name, values in given.items()}
    else:
        for name, values in given.items():
            if len(values) > 1:
                flag = f"--{name.replace('_', '-')}"
                several = ", ".join(map(str, values))
                raise UserError(f"{flag}: must be one without --sheet, got {several}; --sheet compares them")
            if values:
                found[name] = values[0]
    if options.size is not None:
        if not (options.size == "content" or options.size.isdecimal()):
            raise UserError(f"--size: must be a number of pixels, or content, got {options.size}; 512 is a good start")
        found["size"] = options.size if options.size == "content" else int(options.size)
    if options.seed is not None:
        found["seed"] = options.seed
    return found
