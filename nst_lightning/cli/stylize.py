"""``nst stylize``: a picture in one line, from files or pipes to a file or a pipe."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nst_lightning import __version__
from nst_lightning.cli.own_classes import own_classes
from nst_lightning.cli.plain import PlainParser
from nst_lightning.config.habits import OURS
from nst_lightning.config.short import PRESET, Short
from nst_lightning.errors import UserError
from nst_lightning.process.loading import load

_PIPE = "-"
_DEFAULT_FORMAT = "png"

PAGE = f"""\
Make a picture from a content and a style image.

  nst stylize photo.jpg painting.jpg -o out.png
  nst stylize photo.jpg painting.jpg:2 other.jpg -o out.jpg     two styles, the first counts twice
  curl -s URL | nst stylize - painting.jpg -o png:- | display   from a pipe, to a pipe

-o, --output FILE      where the result goes; its suffix says the format; png:- writes it to standard output
--preset NAME          {PRESET} by default; painterly is the best; see nst presets
--size 512             long side in pixels, or content for the content's own
--strength 2           style against content, 1 is neutral
--likeness 0.8         how much a stranger recognises of the photograph, 0 to 1; 0.5 is neutral
--keep-colors          keep the photograph's colours
--protect-faces        faces in the photograph stay clear (extra faces)
--regions 3            sky as the painting's sky: so many regions, each with the style of what is most like it
--stroke-size 1.5      larger or smaller strokes
--seconds 30           the best picture in about that time on this machine
--seed 7               another noise
--device cuda:1        cpu, cuda, mps, xpu; by default the fastest that is there
--precision 32-true    by default what suits the device
--timelapse film.mp4   a film of the picture as it grows; also .webp and .gif
--json                 an event a line on standard output, for programs: plan, progress, wrote, error
--print_config         show the YAML that this stands for; nst fit --config takes it

Every option of nst fit may follow: nst fit --help. Many pictures: nst gallery. From Python: nst_lightning.stylize."""


def parser() -> argparse.ArgumentParser:
    """The command's own words; all others are options of ``nst fit``."""
    words = PlainParser(prog="nst stylize", allow_abbrev=False, add_help=False)
    words.add_argument("pictures", nargs="*", metavar="CONTENT STYLE", help="a content, then styles; - is a pipe")
    words.add_argument("-o", "--output", metavar="FILE")
    add_short_words(words)
    words.add_argument("--seconds", type=float)
    words.add_argument("--device")
    words.add_argument("--precision")
    words.add_argument("--timelapse", metavar="FILE")
    words.add_argument("--json", action="store_true")
    return words


def add_short_words(words: argparse.ArgumentParser) -> None:
    """Add what changes how a picture looks, as `Short` has it."""
    words.add_argument("--preset")
    words.add_argument("--size")
    words.add_argument("--strength", type=float)
    words.add_argument("--likeness", type=float)
    words.add_argument("--keep-colors", "--keep_colors", action="store_true")
    words.add_argument("--protect-faces", "--protect_faces", action="store_true")
    words.add_argument("--regions", type=int)
    words.add_argument("--stroke-size", "--stroke_size", type=float)
    words.add_argument("--seed", type=int)


def split(args: Sequence[str], words: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """The command's own words, and the options of ``nst fit`` with their values.

    Raises:
        UserError: If a word has a value that makes no sense.
    """
    flags = {flag: action.nargs == 0 for action in words._actions for flag in action.option_strings}
    own: list[str] = []
    others: list[str] = []
    pending = list(args)
    while pending:
        word = pending.pop(0)
        name = word.partition("=")[0]
        if name in flags:
            own.append(word)
            if name == word and not flags[name] and pending:
                own.append(pending.pop(0))
        elif word.startswith("-") and word != _PIPE and len(word) > 1:
            _refuse_slip(name, flags)
            others.append(word)
            takes_one = "=" not in word and not word.startswith("--print_config")
            if takes_one and pending and not pending[0].startswith("--"):
                others.append(pending.pop(0))
        else:
            own.append(word)
    return words.parse_intermixed_args(own), others


def _refuse_slip(name: str, flags: Iterable[str]) -> None:
    """Refuse what is nearly a word of the command's own and no option of ``nst fit``."""
    near = difflib.get_close_matches(name, flags, n=1, cutoff=0.75)
    if near and "." not in name and name.lstrip("-") not in OURS[""].split():
        raise UserError(f"{name}: there is no such option, got {name}; did you mean {near[0]}?")


def main(args: Sequence[str]) -> int:
    """Run ``nst stylize`` with the command line after the subcommand; returns the exit code."""
    begin = time.perf_counter()
    if {"-h", "--help"} & set(args):
        print(PAGE)  # noqa: T201
        return 0
    if "--version" in args:
        print(f"nst_lightning {__version__}")  # noqa: T201
        return 0
    given, others = split(args, parser())
    content, styles = _pictures(given.pictures)
    kind = _piped(given.output)
    if kind is not None and given.json:
        raise UserError("output: must be a file with --json, which writes to standard output, got -; name one")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nst_")))
        if content == _PIPE:
            content = _read_pipe("content", folder)
        styles = [_read_pipe("style", folder) if style == _PIPE else style for style in styles]
        output = given.output if kind is None else str(folder / f"picture.{kind}")
        if kind is not None:
            stack.enter_context(_to_pipe(Path(str(output))))
        fit = short_of(given, others, output).arguments(content, styles) + _machine(given) + others
        if given.seconds is not None:
            asked = [word for word in fit if word.partition("=")[0] != "--print_config"]  # of what is chosen, too
            fit += _within(asked, given.seconds, begin)
        return int(load("nst_lightning.cli.arguments").main(fit))


def _within(fit: Sequence[str], seconds: float, begin: float) -> list[str]:
    running, budget = (load(f"nst_lightning.{name}") for name in ("config.running", "session.budget"))
    with running.unheard(), own_classes(fit):
        passed = time.perf_counter() - begin
        return list(budget.within(fit, seconds, passed))


def short_of(given: argparse.Namespace, others: Sequence[str], output: str | None = None) -> Short:
    """What is asked for in short words; a configuration takes the place of the preset by default."""
    has_config = any(word.partition("=")[0] in {"-c", "--config"} for word in others)
    preset = given.preset or ("" if has_config else PRESET)
    return Short(
        preset,
        given.size,
        given.strength,
        given.likeness,
        given.keep_colors,
        given.protect_faces,
        given.regions,
        given.stroke_size,
        output=output,
        seed=given.seed,
    )


def _machine(given: argparse.Namespace) -> list[str]:
    kind, _, index = (given.device or "").partition(":")
    told: dict[str, Any] = {"accelerator": kind, "devices": f"[{index}]" if index else "", "precision": given.precision}
    film = [f"--timelapse={given.timelapse}"] if given.timelapse else []
    return film + [f"--trainer.{name}={value}" for name, value in told.items() if value]


def _pictures(named: Sequence[str]) -> tuple[str, list[str]]:
    if len(named) < 2:
        got = f"only {named[0]}" if named else "none"
        raise UserError(
            f"pictures: must be a content and at least one style, got {got}; "
            "type: nst stylize photo.jpg painting.jpg -o out.png"
        )
    if list(named).count(_PIPE) > 1:
        raise UserError("pictures: must name standard input once, got - twice; give the others as files")
    for argument, name in zip(("content", *("style" for _ in named[1:])), named, strict=True):
        if Path(name).is_dir():
            raise UserError(
                f"{argument}: must be a picture file, got the folder '{name}'; nst gallery makes pictures of folders"
            )
    return named[0], list(named[1:])


def _piped(output: str | None) -> str | None:
    """The format of a picture for standard output; None if it goes to a file.

    Raises:
        UserError: If standard output is a terminal.
    """
    if output != _PIPE and not (output or "").endswith(":-"):
        return None
    if sys.stdout is not None and sys.stdout.isatty():
        raise UserError(f"output: must not be a terminal, got {output}; name a file, or send it into a pipe")
    return str(output).partition(":")[0] if output != _PIPE else _DEFAULT_FORMAT


def _read_pipe(argument: str, folder: Path) -> str:
    """Put what standard input holds into a file."""
    content = sys.stdin.buffer.read()
    if not content:
        raise UserError(f"{argument}: must be a picture on standard input, got nothing; send one into the pipe")
    path = folder / f"{argument}_from_pipe"
    path.write_bytes(content)
    return str(path)


@contextlib.contextmanager
def _to_pipe(path: Path) -> Iterator[None]:
    """Write the picture to standard output when the run has ended, in whatever way, and nothing else."""
    try:
        yield
    finally:
        if path.is_file():
            try:
                sys.stdout.buffer.write(path.read_bytes())
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                raise UserError(
                    "output: must be read to its end, got a closed pipe; the run's folder has the picture"
                ) from None
