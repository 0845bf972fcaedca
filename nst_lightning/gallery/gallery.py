"""Many pictures: what is finished is kept, what is under way goes on, what fails does not stop the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nst_lightning.config.short import Short
from nst_lightning.errors import UserError
from nst_lightning.files.lenient import only_the_file
from nst_lightning.files.paths import expand
from nst_lightning.gallery.engine import Engine, Made, Step
from nst_lightning.gallery.judging import Judge, Task
from nst_lightning.gallery.page import NAME, Item, Page
from nst_lightning.gallery.planning import plan_manifest, plan_pairs, plan_sheet, sheet_variants
from nst_lightning.gallery.rows import Row
from nst_lightning.gallery.store import Store


@dataclass(frozen=True)
class Event:
    """Something that has happened.

    Attributes:
        kind: ``plan`` before the first picture, ``progress`` now and then while one is made, ``picture`` when one is
            there, ``failure`` when one cannot be made, ``finished`` at the end.
        pictures: How many pictures the gallery has.
        finished: How many are there, those of earlier times included.
        failed: How many could not be made.
        name: Which picture it is about, below the gallery's folder.
        path: Where that picture lies, of ``picture``; the contact sheet, of ``finished``.
        seconds: How long its run took, of ``picture``.
        moved_aside: Where another picture that was in its place is now, of ``picture``.
        step: How far it is, of ``progress``.
        failure: Why it could not be made, of ``failure``.
    """

    kind: str
    pictures: int
    finished: int
    failed: int
    name: str = ""
    path: Path | None = None
    seconds: float | None = None
    moved_aside: Path | None = None
    step: Step | None = None
    failure: str = ""


@dataclass
class Summary:
    """What became of a gallery.

    Attributes:
        made: Names of the pictures that were made.
        kept: Names of those that were finished before.
        failed: Names of those that could not be made, with the reason.
    """

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


Listener = Callable[[Event], None]


class Gallery:
    """Pictures of many contents in many styles, in one folder with a contact sheet, ``index.html``.

    Give contents and styles, or a manifest. A picture that is there and finished, by its inputs and settings, is kept;
    one whose run was stopped or killed goes on from its checkpoint, which lies in ``.gallery`` below the folder.

    Args:
        folder: Where pictures go.
        contents: Folders, patterns such as ``photos/*.jpg``, and files.
        styles: The same.
        manifest: A table (csv, tsv) or list (yaml, json) of rows with ``content``, ``style`` and settings.
        sheet: Compare settings of one pair: those of `presets`, `strengths` and `stroke_sizes`.
        presets: For a sheet.
        strengths: For a sheet.
        stroke_sizes: For a sheet.
        pattern: Names of pictures, by default ``{content}_{style}``; also {preset}, {strength}, {stroke_size}, {index}.
        settings: Settings of all pictures: `preset`, `size`, `strength`, `likeness`, `keep_colors`, `protect_faces`,
            `regions`, `stroke_size`, `seed`, and `options` by the dotted names of the YAML.

    Raises:
        UserError: If something is not there, settings make no sense, or names collide; no work has been done then.

    Example:
        >>> gallery = Gallery("walls", ["photo.jpg"], ["painting.jpg"], size=32, options={"model.evaluations": 2})
        >>> [row.name for row in gallery.rows]
        ['photo_painting.png']
        >>> summary = gallery.make()
        >>> summary.made, Path("walls/index.html").is_file()
        (['photo_painting.png'], True)
        >>> gallery.make().kept
        ['photo_painting.png']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        contents: Sequence[str | os.PathLike[str]] = (),
        styles: Sequence[str | os.PathLike[str]] = (),
        *,
        manifest: str | os.PathLike[str] | None = None,
        sheet: bool = False,
        presets: Sequence[str] = (),
        strengths: Sequence[float] = (),
        stroke_sizes: Sequence[float] = (),
        pattern: str | None = None,
        **settings: Any,
    ) -> None:
        short = Short(**settings)
        self.folder = expand(folder, "--output")
        self._store = Store(self.folder)
        self._sheet = sheet
        if manifest is not None:
            if contents or styles or sheet:
                raise UserError(
                    "--manifest: must be the only source, got contents, --styles or --sheet, too; leave one"
                )
            self.rows = plan_manifest(manifest, short, self.folder, pattern)
        elif sheet:
            variants = sheet_variants(short, presets, strengths, stroke_sizes)
            self.rows = plan_sheet(contents, styles, variants, self.folder, pattern)
        else:
            self.rows = plan_pairs(contents, styles, short, self.folder, pattern)

    def configurations(self) -> list[str]:
        """YAML that each kind of picture stands for, as ``nst fit`` reads it: of the first row that has its settings.

        Raises:
            UserError: If settings make no sense.
        """
        from nst_lightning.session import Session  # noqa: PLC0415 - takes seconds

        session, firsts = Session(), {repr(row.short): row for row in reversed(self.rows)}
        return [session.configuration(row.arguments()) for row in reversed(firsts.values())]

    def make(self, tell: Listener | None = None, engine: Engine | None = None) -> Summary:
        """Make all pictures that are not there yet.

        Args:
            tell: Hears of each `Event`.
            engine: Makes the pictures; by default a session in this process.

        Raises:
            UserError: If settings make no sense, or another process makes a gallery in the folder.
            KeyboardInterrupt: After Ctrl-C; the picture under way has its checkpoint then.
        """
        from nst_lightning.gallery.session_engine import SessionEngine  # noqa: PLC0415 - takes seconds
        from nst_lightning.session import Session  # noqa: PLC0415

        session = Session()
        with self._store.held(row.name for row in self.rows):
            making = _Making(self._store, self.rows, self._sheet, tell or (lambda event: None))
            making.judge(Judge(session.configuration))
            used = engine or SessionEngine(session)
            used.begin(self._store.run_folder)
            try:
                making.make(used)
            finally:
                making.write_page()
                if engine is None:
                    used.close()
            making.say("finished", path=self.folder / NAME)
            return making.summary


class _Making:
    """One call of `Gallery.make`."""

    def __init__(self, store: Store, rows: Sequence[Row], sheet: bool, tell: Listener) -> None:
        self.summary = Summary()
        self._store = store
        self._items = {row.name: Item(row) for row in rows}
        self._page = Page(store.folder, list(self._items.values()), sheet)
        self._tell = tell
        self._tasks: list[Task] = []
        self._early: list[tuple[Row, UserError]] = []  # what failed before the first picture

    def judge(self, judge: Judge) -> None:
        """Find out what is finished, what can be made, and what cannot."""
        for row, task in judge.tasks([item.row for item in self._items.values()]):
            if isinstance(task, UserError):
                self._early.append((row, task))
                continue
            record = self._store.finished(task)
            if record is None:
                self._tasks.append(task)
                continue
            self._items[row.name].record = record
            self.summary.kept.append(row.name)
            self._store.forget_run(task)

    def make(self, engine: Engine) -> None:
        """Make the rest."""
        self.say("plan")
        for row, error in self._early:
            self._fail(row, error)
        self.write_page()
        for task, made in engine.make_all(self._tasks, self._step):
            if isinstance(made, Exception):
                self._fail(task.row, made)
            else:
                self._take(task, made)
            self.write_page(now=False)

    def _take(self, task: Task, made: Made) -> None:
        name, path = task.row.name, self._store.path(task)
        try:
            record, aside = self._store.write(task, made)
        except OSError as error:  # its run stays, so that only the writing has to be done again
            reason = UserError(f"output: cannot write '{path}': {error.strerror}; make room there and run it again")
            self._fail(task.row, reason)
            return
        self._items[name].record = record
        self.summary.made.append(name)
        self.say("picture", name, path=path, seconds=record.seconds, moved_aside=aside)

    def _fail(self, row: Row, error: Exception) -> None:
        line = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        line = " ".join(line.split())
        self._items[row.name].failure = self.summary.failed[row.name] = line
        self.say("failure", row.name, failure=line)

    def _step(self, task: Task, step: Step) -> None:
        self.say("progress", task.row.name, step=step)

    def say(self, kind: str, name: str = "", **facts: Any) -> None:
        """Tell of an event."""
        done = len(self.summary.made) + len(self.summary.kept)
        self._tell(Event(kind, len(self._items), done, len(self.summary.failed), name, **facts))

    def write_page(self, *, now: bool = True) -> None:
        """Write the contact sheet, or warn if that cannot be done."""
        with only_the_file(self._store.folder / NAME):
            self._page.write(now=now)
