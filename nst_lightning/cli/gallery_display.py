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
from nst_lightning.console.bar import tqdm
from nst_lightning.gallery import Event
from nst_lightning.planning.duration import in_words

_SECONDS = 10.0  # between two lines


class Display:
    """Hears of events and warnings."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._begun = time.monotonic()
        self._before = 0  # pictures that were there at the beginning
        self._under_way: dict[str, float] = {}  # share of each picture that is being made
        self._latest = ""

    def tell(self, event: Event) -> None:
        """Hear of an event."""
        if event.kind == "plan":
            self._begun, self._before = time.monotonic(), event.finished
        elif event.kind == "progress" and event.step is not None:
            self._under_way[event.name] = event.step.evaluation / max(1, event.step.evaluations)
            self._latest = f"{event.name} {event.step.evaluation} of {event.step.evaluations}"
        else:
            self._under_way.pop(event.name, None)
            self._latest = ""
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
            with tqdm.external_write_mode(sys.stderr):
                log.say("warning", text)

    def done(self, event: Event) -> float:
        """How many pictures are done since the beginning, with shares of those under way."""
        return event.finished - self._before + event.failed + sum(self._under_way.values())

    def rate(self, event: Event) -> tuple[float | None, float | None]:
        """Pictures a minute, and seconds that are left."""
        done, elapsed = self.done(event), time.monotonic() - self._begun
        if done <= 0 or elapsed <= 0:
            return None, None
        left = event.pictures - self._before - done
        return 60 * done / elapsed, left * elapsed / done

    def text(self, event: Event) -> str:
        """How far the gallery is."""
        rate, left = self.rate(event)
        text = f"{event.finished} of {event.pictures} pictures"
        text += f", {event.failed} failed" if event.failed else ""
        text += f", {rate:.3g} a minute" if rate else ""
        text += f", about {in_words(left)} left" if left and left >= 1 else ""
        return text + (f"; {self._latest}" if self._latest else "")


class _Bar(Display):
    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None

    def show(self, event: Event) -> None:
        if event.kind == "finished":
            self.close()
            return
        if self._bar is None:
            form = "{percentage:3.0f}%|{bar:20}| {desc}"
            self._bar = tqdm(total=event.pictures - self._before, bar_format=form, file=sys.stderr, dynamic_ncols=True)
        self._bar.set_description_str(self.text(event), refresh=False)
        self._bar.update(self.done(event) - self._bar.n)
        self._bar.refresh()

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
        if event.kind == "finished" or (event.kind == "progress" and now - self._shown < _SECONDS):
            return
        self._shown = now
        what = f"wrote {event.path}; " if event.path else f"{event.name} failed; " if event.failure else ""
        _write(sys.stderr, what + self.text(event))


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
        facts: dict[str, Any] = {
            "event": event.kind,
            "text": event.failure or self.text(event),
            "pictures": event.pictures,
            "finished": event.finished,
            "failed": event.failed,
        }
        if event.name:
            facts["picture"] = event.name
        if event.step is not None:
            facts |= {"evaluation": event.step.evaluation, "evaluations": event.step.evaluations}
            facts |= {"loss": event.step.loss, "pictures_per_minute": rate, "seconds_left": left}
        if event.path is not None:
            facts |= {"path": str(event.path), "seconds": event.seconds}
            facts["moved_aside"] = None if event.moved_aside is None else str(event.moved_aside)
        _write(self._stream, json.dumps({name: _plain(value) for name, value in facts.items()}))


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return round(value, 4) if isinstance(value, float) and math.isfinite(value) else _finite(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(stream: Any, line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody listens any more; the work goes on
        stream.write(line + "\n")
        stream.flush()


@contextlib.contextmanager
def display(*, as_json: bool) -> Iterator[Display]:
    """What shows events as ``--log`` asks for, and on standard output besides for programs."""
    kind = log.kind()
    shown: Display
    if as_json:
        shown = _Json(sys.stdout)
    elif kind == "json":
        shown = _Json(sys.stderr)
    else:
        shown = _Bar() if kind == "bar" else _Lines() if kind == "lines" else _Nothing()
    try:
        yield shown
    finally:
        shown.close()
