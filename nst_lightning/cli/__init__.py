"""The command ``nst``: finds the subcommand, and turns every user's error into one line and exit code 2."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from nst_lightning import __version__
from nst_lightning.console import log
from nst_lightning.errors import UserError
from nst_lightning.process.launched import join_launcher
from nst_lightning.process.loading import load
from nst_lightning.process.numbers import check_numbers
from nst_lightning.process.ownership import claim_process
from nst_lightning.process.rounding import round_alike
from nst_lightning.process.waiting import wait_briefly

# Subcommand -> module whose `main(args)` runs it and returns the exit code, and what it does. Modules are imported when
# they are run. Each raises UserError if something asked for cannot be done, and what `main` below raises for signals.
SUBCOMMANDS = {
    "stylize": ("nst_lightning.cli.stylize", "make a picture from a photograph and a painting, in one line"),
    "fit": ("nst_lightning.cli.arguments", "the same with every option, and YAML"),
    "gallery": ("nst_lightning.cli.gallery", "make every content in every style, or one pair in many settings"),
    "studio": ("nst_lightning.cli.studio", "serve a page where pictures are made, and the same over HTTP"),
    "presets": ("nst_lightning.cli.presets", "list the presets: what each gives, and what it takes"),
    "info": ("nst_lightning.cli.info", "say what is here: devices, precision, memory, versions, weights"),
    "runs": ("nst_lightning.cli.runs", "list runs, and free the disk of what finished ones no longer need"),
    "distill": ("nst_lightning.distillation.command", "train the compact encoder"),
    "judge": ("nst_lightning.cli.judge", "compare pictures by judges that no objective here optimises"),
    "score": ("nst_lightning.distillation.score", "judge the compact encoder by VGG-19"),
    "benchmark": ("nst_lightning.cli.benchmark", "measure speed and memory against plain PyTorch on this machine"),
    "completion": ("nst_lightning.cli.completion", "print the script by which a shell completes these words"),
}

_WITH_EVENTS = {"stylize", "gallery"}  # where --json is for programs that watch


USAGE = "\n".join(
    [
        "usage: nst SUBCOMMAND [options]",
        "",
        "Neural style transfer by optimisation.",
        "",
        "subcommands:",
        *(f"  {name:<11}{text}" for name, (_, text) in SUBCOMMANDS.items()),
        "",
        "nst stylize photo.jpg painting.jpg -o out.png makes a picture.",
        "nst SUBCOMMAND --help explains the options; nst --version says which version this is.",
    ]
)


def main(args: Sequence[str] | None = None) -> int:
    """Run a subcommand; programs and notebooks may call this, and find their process as it was.

    Args:
        args: Command line without the program's name; by default that of the process.

    Returns:
        The exit code: 0, or 2 for a user's error.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when everything is written.
        SystemExit: After SIGTERM, with 143, likewise.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help", *arguments[2:]]
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(USAGE)  # noqa: T201
        return 0 if arguments else 2
    if arguments[0] in {"--version", "-V", "version"}:
        print(f"nst_lightning {__version__}")  # noqa: T201
        return 0
    with log.speaking(arguments, events=arguments[0] in _WITH_EVENTS and "--json" in arguments):
        try:
            return _subcommand(arguments)(arguments[1:])
        except UserError as error:
            log.say("error", str(error), code=2)
            return 2
        except OSError as error:
            if isinstance(error, ConnectionError) or not error.strerror:
                raise
            named = error.filename or "a file"
            log.say("error", f"{named}: {error.strerror}; see that it is there, and that the disk is well", code=2)
            return 2
        except Exception as error:
            if log.kind() != "json":
                raise
            log.say("error", f"{type(error).__name__}: {error}", code=1, traceback=traceback.format_exc())
            return 1


def _subcommand(arguments: Sequence[str]) -> Callable[[Sequence[str]], int]:
    name = arguments[0]
    if name not in SUBCOMMANDS:
        from nst_lightning.config.habits import suggested  # noqa: PLC0415 - for this line alone

        near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"did you mean {near[0]}? see nst --help" if near else f"type: {suggested(arguments)}"
        raise UserError(f"subcommand: must be one of {', '.join(SUBCOMMANDS)}, got '{name}'; {hint}")
    _check_current_folder()
    check_numbers()
    run: Callable[[Sequence[str]], int] = load(SUBCOMMANDS[name][0]).main
    return run


def _check_current_folder() -> None:
    """Refuse a current folder that is gone: relative paths lead nowhere, and libraries end the process over it."""
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(
            f"current folder: must be there, got one that cannot be found ({error.strerror}); change to another"
        ) from None


def entry_point() -> None:
    """Console script: the process is ours, so its threads may wait and round as suits us."""
    join_launcher()
    claim_process()
    wait_briefly()
    round_alike()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
