"""What the command says on standard error: lines for people, or a JSON object a line for programs."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

Kind = Literal["auto", "bar", "lines", "json", "none"]

_PREFIX = {"error": "nst: error: ", "warning": "nst: warning: ", "resumed": "nst: ", "stopped": "nst: "}
_kind: Kind = "auto"
_on_standard_output = False
_silenced = 0  # contexts of `silent` that are open
_said = 0


@contextlib.contextmanager
def speaking(args: Sequence[str], *, events: bool = False) -> Iterator[None]:
    """Speak as a command line asks for, even where it turns out to be wrong; as before when the context ends.

    Args:
        args: The command line.
        events: Make everything an event on standard output, for a program that reads there.
    """
    global _on_standard_output  # noqa: PLW0603 - standard output is the process's own
    before = _kind
    asked = [arg.partition("=")[2] for arg in args if arg.startswith("--log=")]
    asked += [after for arg, after in pairwise(args) if arg == "--log"]
    choose("json" if events else asked[-1] if asked else "auto")
    _on_standard_output = events
    try:
        yield
    finally:
        _on_standard_output = False
        choose(before)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Say nothing but warnings and errors, whatever is chosen, as long as a program makes pictures for itself."""
    global _silenced  # noqa: PLW0603 - likewise
    _silenced += 1
    try:
        yield
    finally:
        _silenced -= 1


def choose(kind: str) -> None:
    """Speak in another way; what is no way of speaking is for the parser to refuse."""
    global _kind  # noqa: PLW0603 - standard error is the process's own, too
    if _on_standard_output:
        return
    _kind = next((known for known in get_args(Kind) if known == kind), "auto")
    if _kind == "json" and os.environ.get("LOCAL_RANK", "0") != "0":
        _kind = "lines"  # the first process reads what the others say


def kind() -> Kind:
    """How to speak now: never auto, which is a bar on a terminal or in a notebook with widgets, and lines elsewhere."""
    if _silenced:
        return "none"
    if _kind != "auto":
        return _kind
    if sys.stderr is not None and sys.stderr.isatty():
        return "bar"
    from nst_lightning.console.bar import is_widget  # noqa: PLC0415 - tqdm takes half of the time of `nst --version`

    return "bar" if is_widget() else "lines"


def said() -> int:
    """How many things were said so far."""
    return _said


def say(event: str, text: str, *, asked: bool = False, **facts: Any) -> None:
    """Say one thing.

    Args:
        event: What it is: plan, progress, resumed, finished, warning, wrote, stopped, message or error.
        text: One line.
        asked: Whether it is a report that an option of its own asks for, and is said in any case.
        facts: The same and more, for programs.
    """
    if kind() == "none" and not asked and event not in {"warning", "error"}:
        return
    global _said  # noqa: PLW0603 - likewise
    _said += 1
    with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody listens any more; the run goes on
        stream = sys.stdout if _on_standard_output else sys.stderr
        stream.write(_line(event, text, facts))
        stream.flush()


def say_in_handler(event: str, text: str, **facts: Any) -> None:
    """Say one thing from the handler of a signal, which may have come in the middle of another line."""
    global _said  # noqa: PLW0603
    if kind() != "none":
        _said += 1
        line = ("\n" if kind() == "bar" else "") + _line(event, text, facts)
        try:
            where = (sys.stdout if _on_standard_output else sys.stderr).fileno()
        except (OSError, ValueError, AttributeError):
            where = 1 if _on_standard_output else 2
        with contextlib.suppress(OSError):
            os.write(where, line.encode())


def _line(event: str, text: str, facts: dict[str, Any]) -> str:
    if kind() == "json":
        return json.dumps({"event": event, "text": text, **{key: _plain(fact) for key, fact in facts.items()}}) + "\n"
    return f"{_PREFIX.get(event, '')}{text}\n"


def _plain(fact: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(fact, float) and not math.isfinite(fact) else fact


class _Events(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        event = "warning" if record.levelno >= logging.WARNING else "message"
        say(event, record.getMessage().strip(), logger=record.name)


@contextlib.contextmanager
def only_events() -> Iterator[None]:
    """Make events of what other packages log, too, if there are to be only events."""
    if kind() != "json":
        yield
        return
    root = logging.getLogger()  # of Lightning's own `quiet` passes on what was asked for
    before = root.handlers[:]
    root.handlers[:] = [_Events()]
    try:
        yield
    finally:
        root.handlers[:] = before
