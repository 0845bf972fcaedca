"""Pictures made in this process, one after the other, by one session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from nst_lightning.callbacks import Checkpoints, Export, Faults, Feedback, Record, Signals, Update, Watch
from nst_lightning.errors import UserError
from nst_lightning.gallery.engine import Engine, Made, Step, Tell, made_of
from nst_lightning.gallery.judging import Task
from nst_lightning.images import check_image
from nst_lightning.runs.checkpoint import SUFFIX
from nst_lightning.runs.folder import CHECKPOINTS, RECORD
from nst_lightning.session import Session

CHECKPOINT_SECONDS = 10.0  # between two, unless options say otherwise
# What a run brings along here; the rest speaks, or fills a folder that is removed.
_NEEDED = (Faults, Watch, Export, Record, Signals, Checkpoints)
_SIGNAL = "SIG"  # what reasons begin with if a signal ended a run


class SessionEngine(Engine):
    """Makes pictures by a session, which keeps networks and the targets of styles from one to the next.

    Args:
        session: The session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._run_folder: Callable[[Task], Path]

    def begin(self, run_folder: Callable[[Task], Path]) -> None:
        """See Engine; a picture that was under way goes on from its checkpoint there."""
        self._run_folder = run_folder

    def make(self, task: Task, tell: Tell) -> Made:
        """See Engine."""
        folder = self._run_folder(task)
        picture = folder / Path(task.row.name).name
        ended = _evaluations_of_ended_run(folder)
        if ended is not None and task.is_made_by(picture, ended):
            return _collect(picture, ended)
        goes_on = any(folder.glob(f"*/{CHECKPOINTS}/*{SUFFIX}"))
        if not goes_on:
            shutil.rmtree(folder, ignore_errors=True)
        arguments = arguments_of(task, picture, folder)

        def progress(update: Update) -> None:
            tell(task, Step(update.evaluation, update.total, update.loss))

        if goes_on:
            # What auto has chosen is not to stand in the settings, by which the picture is known to be finished.
            precision = task.configuration.get("trainer", {}).get("precision", "auto")
            arguments += [f"--trainer.precision={precision}", "--ckpt_path=last"]
        try:
            outcome = self._session.run(arguments, callbacks=[Feedback(progress)], only=_NEEDED)
        except UserError as error:
            if not goes_on or not str(error).startswith("ckpt_path:"):
                raise
            shutil.rmtree(folder, ignore_errors=True)  # nothing that could be continued
            return self.make(task, tell)
        return made_of(picture, outcome, continued=goes_on)


def arguments_of(task: Task, picture: Path, folder: Path) -> list[str]:
    """The command line after ``nst fit`` that makes a picture and keeps its run in a folder."""
    own = [f"--{name}={value:g}" for name, value in own_settings(task).items()]
    return [*task.row.arguments(), f"--output={picture}", f"--trainer.default_root_dir={folder}", *own]


def own_settings(task: Task) -> dict[str, float]:
    """Settings that pictures of a gallery have unless options say otherwise."""
    given = task.row.short.options
    found: dict[str, float] = {} if "snapshot_every" in given else {"snapshot_every": 0}
    if not given.keys() & {"checkpoint_every", "checkpoint_seconds"}:
        found["checkpoint_seconds"] = CHECKPOINT_SECONDS
    return found


def _collect(picture: Path, evaluations: int) -> Made:
    """A picture whose run has ended, in a process that was killed before it could be put in its place."""
    height, width = check_image(picture)
    return Made(picture.read_bytes(), evaluations, None, (width, height), continued=True)


def _evaluations_of_ended_run(folder: Path) -> int | None:
    """After how many evaluations a run has come to its end by itself, with all written; None for any other."""
    for path in folder.glob(f"*/{RECORD}"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            ended = record["all_written"] and not str(record["reason"] or "").startswith(_SIGNAL)
            if ended:
                return int(record["evaluations"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
