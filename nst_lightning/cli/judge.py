"""``nst judge``: says what judges that no objective here optimises think of pictures, made by whatever program."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_lightning.cli.plain import PlainParser, end_with_the_reader
from nst_lightning.console import log
from nst_lightning.demo import locate
from nst_lightning.errors import UserError, UserNotice, notice
from nst_lightning.files.paths import expand
from nst_lightning.process.loading import load

Size = tuple[int, int]  # height and width

# Of the panel, which needs torch; tests compare the two.
NAMES = ("lpips_alex", "lpips_vgg", "dists", "cfsd", "gram", "sliced", "colors", "hatching", "borders", "clipped")
_ARROWS = {"lower": "↓", "higher": "↑", "one": "→1"}
_PLAIN = {"lower": "(low)", "higher": "(high)", "one": "(1)"}  # where an arrow cannot be printed


def main(args: Sequence[str]) -> int:
    """Run ``nst judge`` with the command line after the subcommand; returns the exit code."""
    options = _parse(args)
    end_with_the_reader()
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserNotice)
        warnings.showwarning = lambda message, *_, **__: log.say("warning", " ".join(str(message).split()))
        _judge(options)
    return 0


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = PlainParser(
        prog="nst judge",
        description="Score pictures by judges that no objective here optimises; docs/judging.md says what each is. "
        "Content and style are brought to each result's size: the content to its height and width, the style to its "
        "longer side.",
        allow_abbrev=False,
    )
    parser.add_argument("content", metavar="CONTENT", help="the photograph that results were made from")
    parser.add_argument("style", metavar="STYLE", help="the painting")
    parser.add_argument("results", metavar="RESULT", nargs="+", help="pictures to judge, one a row")
    parser.add_argument("--judges", default=",".join(NAMES), metavar="A,B", help="these alone (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", metavar="cuda:1", help="cpu, cuda, mps, xpu; by default the fastest"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a result, a line each")
    options = parser.parse_args(list(args))
    options.judges = _judges(options.judges)
    options.content, options.style = str(locate(options.content, "CONTENT")), str(locate(options.style, "STYLE"))
    options.results = [str(locate(path, "RESULT")) for path in options.results]
    return options


def _judges(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"judges: {', '.join(NAMES)}"
            raise UserError(f"--judges: must be of the judges, got '{name}'; {hint}")
    return list(dict.fromkeys(names))


def _judge(options: argparse.Namespace) -> None:
    """Print what there is to print, a row as soon as it is known."""
    # Torch is loaded here, so that nst judge --help needs none of it.
    images = load("nst_lightning.images")
    content, style = (images.check_image(getattr(options, name.lower()), name=name) for name in ("CONTENT", "STYLE"))
    sizes = {path: images.check_image(path, name="RESULT") for path in options.results}
    panel, device = load("nst_lightning.judging.panel"), _device(options.device)
    pictures = load("nst_lightning.judging.pictures")
    for path, size in sizes.items():
        panel.check_sizes(options.judges, size, pictures.size_of_style(style, size), path)
    _check_memory(options.judges, sizes, content, style, device)
    table = _Table(options.judges, options.results, {name: judge.better for name, judge in panel.JUDGES.items()})
    for facts in _rows(options, panel.Panel(options.judges, device)):
        print(json.dumps(facts, ensure_ascii=False) if options.json else table.row(facts), flush=True)  # noqa: T201


def _rows(options: argparse.Namespace, panel: Any) -> Iterator[dict[str, Any]]:
    """What the judges say of each result, for programs."""
    images, pictures = load("nst_lightning.images"), load("nst_lightning.judging.pictures")
    content = images.read_image(options.content, name="CONTENT").pixels
    style = images.read_image(options.style, name="STYLE").pixels
    for path in options.results:
        result = images.read_image(path, name="RESULT").pixels
        if pictures.is_stretched(result, content):
            notice(
                f"RESULT: should have the shape of CONTENT ({_size(content)}), got {_size(result)} in '{path}'; the "
                "content is stretched, and what is judged beside it is of little worth"
            )
        sitting = pictures.seated(result, content, style)
        scores = panel.judge(*sitting)
        yield {
            "result": str(expand(path)),
            "size": _size(result),
            "content": str(expand(options.content)),
            "content_size": _size(content),
            "style": str(expand(options.style)),
            "style_size": _size(style),
            "style_judged_at": _size(sitting.style),
            "scores": {name: score if math.isfinite(score) else None for name, score in scores.items()},
        }


def _check_memory(judges: Sequence[str], results: Mapping[str, Size], content: Size, style: Size, device: str) -> None:
    """Refuse, before anything that takes time, what does not fit into the memory that is free."""
    free = load("nst_lightning.planning.memory").USE * load("nst_lightning.hardware.memory").free_memory(device)
    needed = load("nst_lightning.judging.memory").memory_needed
    path, size = max(results.items(), key=lambda item: needed(judges, item[1], content, style))
    taken = needed(judges, size, content, style)
    if taken <= free:
        return

    def fits(percent: int) -> bool:
        sizes = [tuple(max(1, length * percent // 100) for length in one) for one in (size, content, style)]
        return bool(needed(judges, *sizes) <= free)

    share = max(filter(fits, range(1, 100)), default=0)
    fewer = [name for name in judges if needed([name], size, content, style) <= free]
    advice = [f"judge copies of at most {share} % of the side"] if share else []
    advice += [f"ask --judges {','.join(fewer)} alone"] if fewer else []
    raise UserError(
        f"RESULT: needs {taken / 2**30:.1f} GiB to be judged at {size[1]}x{size[0]} px, got {free / 2**30:.1f} GiB of "
        f"free memory for '{path}'; {', or '.join(advice) or 'free some memory'}"
    )


def _device(name: str) -> str:
    """A device by its kind and its number.

    Raises:
        UserError: If it is not there.
    """
    hardware = load("nst_lightning.hardware.accelerator")
    kind, index = hardware.split_device(name, "--device")
    try:
        return str(hardware.name_device(hardware.choose_accelerator(kind).value, index))
    except UserError as error:
        raise UserError(f"--device: {str(error).partition(': ')[2]}") from None


def _size(picture: Any) -> str:
    height, width = picture.shape[-2:]
    return f"{width}x{height}"


class _Table:
    """Rows for people, with a heading before the first and which way is better in it."""

    def __init__(self, judges: Sequence[str], results: Sequence[str], better: Mapping[str, str]) -> None:
        names = [_name(path) for path in results]
        self._first = max(map(len, ("result", *names)))
        self._heading = [f"{name} {_arrow(better[name])}" for name in judges]
        self._begun = False

    def row(self, facts: Mapping[str, Any]) -> str:
        """A line for one result, and before it what there is to say once."""
        cells = ["-" if score is None else f"{score:.3f}" for score in facts["scores"].values()]
        lines = [self._line(_name(facts["result"]), facts["size"], cells)]
        if not self._begun:
            sizes = f"content {facts['content_size']} and style {facts['style_size']} px"
            said = f"{sizes} are judged at the size of each result, the style at its longer side"
            lines = [said, self._line("result", "px", self._heading), *lines]
        self._begun = True
        return "\n".join(lines)

    def _line(self, name: str, size: str, cells: Sequence[str]) -> str:
        columns = [f"{cell:>{len(heading)}}" for cell, heading in zip(cells, self._heading, strict=True)]
        return f"{name:<{self._first}}  {size:>9}  {'  '.join(columns)}"


def _name(path: str) -> str:
    return Path(path).name if len(path) > 40 else path


def _arrow(better: str) -> str:
    try:
        _ARROWS[better].encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return _PLAIN[better]
    return _ARROWS[better]
