"""One picture, made by a session in a thread of its own, in a folder from which it goes on."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from nst_lightning.callbacks import (
    Checkpoints,
    Export,
    Faults,
    Feedback,
    Metrics,
    Record,
    Timelapse,
    Update,
    Watch,
)
from nst_lightning.callbacks.frames import as_bytes
from nst_lightning.files.atomic import replacing
from nst_lightning.images import resize, target_size, write_image
from nst_lightning.runs.checkpoint import SUFFIX
from nst_lightning.runs.folder import CHECKPOINTS, RECORD
from nst_lightning.session import Outcome, Session

PREVIEW, RESULT, FINE, FILM, SETTINGS = "preview.jpg", "result.png", "result16.tif", "timelapse.webp", "settings.yaml"
_RUN = "run"
# What a run brings along of the command's own: no signals, which are the server's, and nothing that speaks.
_NEEDED = (Faults, Watch, Export, Record, Metrics, Checkpoints)
_LONGEST = 1024  # pixels of the last preview


@dataclass(frozen=True)
class Place:
    """Where a picture's files lie.

    Args:
        folder: The picture's.
    """

    folder: Path

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.folder / _RUN

    @property
    def goes_on(self) -> bool:
        """Whether there is something to go on from."""
        return any(self.run.glob(f"{CHECKPOINTS}/*{SUFFIX}"))

    @property
    def result(self) -> Path:
        """The picture in 8 bits, exactly as the command would write it."""
        return self.run / RESULT

    @property
    def fine(self) -> Path:
        """The picture in 16 bits."""
        return self.folder / FINE

    @property
    def film(self) -> Path:
        """The timelapse."""
        return self.folder / FILM

    @property
    def preview(self) -> Path:
        """The last preview."""
        return self.folder / PREVIEW

    @property
    def settings(self) -> Path:
        """The configuration of the run that has ended."""
        return self.folder / SETTINGS


def make(
    session: Session,
    arguments: list[str],
    place: Place,
    progress: Callable[[Update], None],
    stop: threading.Event,
    checkpoint_seconds: float,
) -> Outcome:
    """Make a picture, or go on with it from its last checkpoint.

    Args:
        session: Keeps networks from one picture to the next.
        arguments: What comes after ``nst fit``.
        place: Its files.
        progress: Hears how far it is.
        stop: Ends it after an evaluation, with a checkpoint and all files written.
        checkpoint_seconds: Seconds between two checkpoints.

    Raises:
        UserError: If it cannot be made.
    """
    given = [*arguments, f"--trainer.default_root_dir={place.folder}", f"--checkpoint_seconds={checkpoint_seconds:g}"]
    if place.goes_on:
        if _is_at_its_end(place):
            # All was written but what is written below: with the picture gone, the last checkpoint gives it again.
            place.result.unlink(missing_ok=True)
        precision = next((word for word in arguments if word.startswith("--trainer.precision=")), None)
        given += [precision or "--trainer.precision=auto", "--ckpt_path=last"]
    else:
        shutil.rmtree(place.run, ignore_errors=True)
    callbacks = [Feedback(progress, stop), Timelapse(place.film)]
    outcome = session.run(given, callbacks=callbacks, only=_NEEDED, folder=place.run)
    _write(outcome, place)
    return outcome


def _write(outcome: Outcome, place: Place) -> None:
    """Write what the server gives beside the picture itself."""
    write_image(place.fine, outcome.pixels, alpha=outcome.alpha, bits=16, metadata=outcome.metadata)
    with replacing(place.settings) as file:
        file.write(outcome.configuration.encode())
    width, height = outcome.size
    pixels = outcome.pixels
    if max(width, height) > _LONGEST:
        pixels = resize(pixels, target_size(height, width, _LONGEST))
    out = io.BytesIO()
    Image.fromarray(as_bytes(pixels)).save(out, "JPEG", quality=90)
    with replacing(place.preview) as file:
        file.write(out.getvalue())


def _is_at_its_end(place: Place) -> bool:
    """Whether the run has come to its end by itself, with all written that it writes, and nothing of ours."""
    try:
        path = place.run / RECORD
        record = json.loads(path.read_text(encoding="utf-8"))
        ended = bool(record["all_written"]) and int(record["evaluations"]) >= int(record["of"])
        return ended and not (place.fine.is_file() and path.stat().st_mtime_ns <= place.fine.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return False
