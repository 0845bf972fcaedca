"""How ``nst gallery`` shows what happens: one bar, lines, or JSON."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from nst_lightning.console import log
from nst_lightning.console.bar import Bar
from nst_lightning.gallery import Event
from nst_lightning.planning.duration import in_words

_SECONDS = 10.0  # between two lines of pictures that take long


class Display:
    """Hears of events and warnings."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._begun = time.monotonic()
        self._before = 0  # pictures that were there at the beginning
        self._under_way: dict[str, float] = {}  # share of each picture that is being made
        self._latest = ""
        self._event: Event | None = None

    def tell(self, event: Event) -> None:
        """Hear of an event."""
        self._latest = ""
        if event.kind == "plan":
            self._begun, self._before = time.monotonic(), event.finished
        elif event.step is not None:
            self._under_way[event.name] = event.step.evaluation / max(1, event.step.evaluations)
            self._latest = f"; {event.name} {event.step.evaluation} of {event.step.evaluations}"
        else:
            self._under_way.pop(event.name, None)
        self._event = event
        self.show(event)

    @abstractmethod
    def show(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Show nothing more."""

    def warn(self, message: Warning | str, *_: Any, **__: Any) -> None:
        """Say a warning, once."""
        text = " ".join(str(message).split())
        if text not in self._said:
            self._said.add(text)
            self.say("warning", text)

    def say(self, kind: str, text: str) -> None:
        """Say something else than an event."""
        with Bar.external_write_mode(sys.stderr):
            log.say(kind, text)

    def stopped(self) -> None:
        """Say how far the gallery has come."""
        if self._event is not None:
            here = f"{self._event.finished} of {self._event.pictures} pictures"
            self.say("stopped", f"stopped with {here}; the same command goes on")

    def done(self, event: Event) -> float:
        """How many pictures are made since the beginning, with shares of those under way."""
        return event.finished - self._before + sum(self._under_way.values())

    def rate(self, event: Event) -> tuple[float | None, float | None]:
        """Pictures a minute, and seconds that are left."""
        done, elapsed = self.done(event), time.monotonic() - self._begun
        if done <= 0 or elapsed <= 0:
            return None, None
        left = event.pictures - self._before - event.failed - done
        return 60 * done / elapsed, max(0.0, left * elapsed / done)

    def text(self, event: Event) -> str:
        """How far the gallery is."""
        rate, left = self.rate(event)
        text = f"{event.finished} of {event.pictures} pictures"
        text += f", {event.failed} failed" if event.failed else ""
        text += f", {rate:.3g} a minute" if rate else ""
        return text + (f", about {in_words(left)} left" if left and left >= 1 else "") + self._latest


class _Bar(Display):
    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None

    def show(self, event: Event) -> None:
        if self._bar is None:
            form = "{percentage:3.0f}%|{bar:20}| {desc}"
            self._bar = Bar(total=event.pictures - self._before, bar_format=form, file=sys.stderr, dynamic_ncols=True)
        self._bar.set_description_str(self.text(event), refresh=False)
        self._bar.update(self.done(event) + event.failed - self._bar.n)
        self._bar.refresh()
        if event.kind == "finished":
            self.close()
            _write(sys.stderr, f"{event.path} shows them all")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines(Display):
    """A line for each picture, and now and then for one that takes long."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = 0.0

    def show(self, event: Event) -> None:
        now = time.monotonic()
        if event.kind == "progress" and now - self._shown < _SECONDS:
            return
        self._shown = now
        what = {"picture": f"wrote {event.path}; ", "failure": f"{event.name} failed; "}.get(event.kind, "")
        also = f"; {event.path} shows them all" if event.kind == "finished" else ""
        aside = f"; the other picture that was there is now {event.moved_aside}" if event.moved_aside else ""
        _write(sys.stderr, what + self.text(event) + also + aside)


class _Nothing(Display):
    def show(self, event: Event) -> None:
        pass


class _Json(Display):
    """Objects on a stream."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def show(self, event: Event) -> None:
        rate, left = self.rate(event)
        facts: dict[str, Any] = {"pictures": event.pictures, "finished": event.finished, "failed": event.failed}
        if event.name:
            facts["picture"] = event.name
        if event.step is not None:
            facts |= {"evaluation": event.step.evaluation, "evaluations": event.step.evaluations}
            facts |= {"loss": event.step.loss, "pictures_per_minute": rate, "seconds_left": left}
        if event.path is not None:
            facts["path"] = str(event.path)
        if event.kind == "picture":
            facts |= {"seconds": event.seconds, "moved_aside": event.moved_aside and str(event.moved_aside)}
        self.say(event.kind, event.failure or self.text(event), **facts)

    def say(self, kind: str, text: str, **facts: Any) -> None:
        said = {"event": kind, "text": text, **{name: _plain(value) for name, value in facts.items()}}
        _write(self._stream, json.dumps(said))


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


def _write(stream: Any, line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody listens any more; the work goes on
        stream.write(line + "\n")
        stream.flush()


@contextlib.contextmanager
def display(*, as_json: bool) -> Iterator[Display]:
    """What shows events as ``--log`` asks for, or on standard output for programs."""
    kind = log.kind()
    shown: Display
    if as_json or kind == "json":
        shown = _Json(sys.stdout if as_json else sys.stderr)
    else:
        shown = _Bar() if kind == "bar" else _Lines() if kind == "lines" else _Nothing()
    try:
        yield shown
    except (KeyboardInterrupt, SystemExit):
        shown.close()
        shown.stopped()
        raise
    finally:
        shown.close()
