"""A film of the picture as it grows."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import Tensor

from nst_lightning.callbacks.allowance import Allowance, wait_for
from nst_lightning.callbacks.export import owner_of
from nst_lightning.callbacks.frames import Array, Frames, as_bytes, shown_for
from nst_lightning.console import log
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError, notice
from nst_lightning.files.atomic import replacing, sweep
from nst_lightning.files.folders import make_folder
from nst_lightning.files.lenient import only_the_file
from nst_lightning.files.paths import expand
from nst_lightning.images.film import Shot, check_film, write_film
from nst_lightning.images.resize import resize, target_size
from nst_lightning.runs.overwriting import refuse_inputs

FOLDER = "timelapse"
_WRITTEN = "written.json"  # says which file is the film of this run
_SHARE = 0.018  # of the run's time, so that 0.02 is kept; half of it is for the frames, the rest for the film
_FEWEST = 60  # frames that a film may have however short the run was
_STILL = 0.3  # seconds for which one picture is shown at most
_ENCODING = 2.5  # what a frame takes in the film, over what it takes to keep it


class Timelapse(Callback):
    """Write a film of the picture from the content to the result, when the run ends or is stopped.

    Its frames lie where the picture changes: many in the first evaluations, few where nothing is seen to happen. They
    are taken during the run, as small copies in the folder ``timelapse`` of the run's, never more than the film has
    frames, and in a hundredth of the run's time. A run that goes on in its folder has them, and its film its beginning.
    Stages of other sizes are brought to the last one's. A film that is there already is moved aside, unless this run
    wrote it.

    Args:
        path: Where it goes; the suffix says the format: ``.mp4`` (H.264; needs the extra ``video``), ``.webp`` or
            ``.gif``.
        seconds: Length of the film without the rest.
        fps: Frames a second, fewer where the run was too short to make so many; by default 30 for MP4, 15 for WebP, 10
            for GIF.
        rest: Seconds for which the result stays at the end, and twice as long as the content stays at the start.
        longest: Long side in pixels; by default 720 for MP4 and WebP, 480 for GIF.

    Raises:
        UserError: The suffix is unknown, PyAV is missing, or the file cannot be written.

    Example:
        >>> Timelapse("film.gif", seconds=3, rest=0.5).fps
        10
    """

    def __init__(
        self,
        path: str | Path,
        seconds: float = 8.0,
        fps: int | None = None,
        rest: float = 2.0,
        longest: int | None = None,
    ) -> None:
        self.path = expand(path, "timelapse")
        kind = check_film(self.path)
        self.seconds, self.rest = seconds, rest
        self.fps = kind.fps if fps is None else fps
        self.longest = kind.longest if longest is None else longest
        if not 0 < seconds <= 600:
            raise UserError(f"timelapse.seconds: must be above 0 and at most 600, got {seconds}; 8 is a good start")
        if not 0 <= rest <= 600:
            raise UserError(f"timelapse.rest: must be from 0 to 600 seconds, got {rest}; 2 is a good start")
        if not 1 <= self.fps <= 120:
            raise UserError(f"timelapse.fps: must be from 1 to 120 frames a second, got {fps}; {kind.fps} is usual")
        if self.longest < 16:
            raise UserError(f"timelapse.longest: must be at least 16 px, got {longest}; {kind.longest} is usual")
        self._frames = Frames(Path(FOLDER), 3)
        self._taking, self._making = Allowance(_SHARE / 2), Allowance(_SHARE)
        self._writer: ThreadPoolExecutor | None = None
        self._pending: Future[float] | None = None  # gives the seconds that it takes
        self._cost = 0.0  # seconds that the last frame took
        self._encoding = 0.0  # seconds of these that its JPEG took
        self._first = 0  # evaluations before this run
        self._told = False  # whether frames could not be kept
        self._due = False  # whether this run has begun and its film is not written yet

    @property
    def _most(self) -> int:
        return max(3, round(self.seconds * self.fps))

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Refuse to write over a picture that the run reads."""
        self._due = False
        if trainer.is_global_zero and hasattr(getattr(trainer, "datamodule", None), "request"):
            refuse_inputs(self.path, trainer.datamodule.request.inputs, "timelapse")  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Find the frames of a run that goes on, or keep the start."""
        if not trainer.is_global_zero:
            return
        self._due, self._told = True, False
        self._taking.begin()
        self._making.begin()
        self._first = trainer.global_step
        self._frames = Frames(Path(trainer.default_root_dir) / FOLDER, self._most)
        with only_the_file(self._frames.folder, "look into"):
            self._frames.begin(None if trainer.ckpt_path is None else trainer.global_step)
        if trainer.ckpt_path is not None:
            sweep(self.path.parent, owner_of(trainer))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="timelapse")
        self._take(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Keep a small copy if there is time for it."""
        if not self._due:
            return
        share_done = (trainer.global_step - self._first) / max(1, pl_module.total_evaluations - self._first)
        self._taking.planned = self._taking.elapsed / max(share_done, 1e-3)
        if self._taking.left >= self._cost and (self._pending is None or self._pending.done()):
            self._take(trainer, pl_module)

    def _take(self, trainer: Trainer, module: StyleTransfer) -> None:
        """Hand a copy to the writer."""
        self._wait()
        step = trainer.global_step
        if self._writer is None or self._frames.steps[-1:] == [step]:
            return
        wait_for(module)
        before = self._taking.spent
        with self._taking.spending():
            pixels = as_bytes(module.picture(self.longest))
        self._cost = self._taking.spent - before
        self._pending = self._writer.submit(_add, self._frames, step, pixels)

    def _wait(self) -> None:
        """Wait for the writer."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            self._encoding = pending.result()
        except OSError as error:
            if not self._told:  # a disk that is full stays so for many frames
                self._told = True
                notice(f"could not write into {self._frames.folder}: {error.strerror}; the run goes on", stacklevel=1)
        self._cost += self._encoding
        self._taking.spent += self._encoding

    def on_save_checkpoint(self, trainer: Trainer, pl_module: StyleTransfer, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Wait for the last frame: who continues shall find all before it in the folder."""
        self._wait()

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Write the film."""
        self._finish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Write the film of what there is, if there is anything."""
        self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, module: StyleTransfer) -> None:
        due, self._due = self._due, False
        if not due:
            return
        begin = time.perf_counter()
        try:
            if trainer.global_step > 0:
                self._take(trainer, module)  # a callback may have changed it since
                self._wait()
                self._write(trainer, module, begin)
        except Exception as error:  # encoders fail in ways of their own; a film must not cost the run
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            notice(f"could not write {self.path}: {reason}; the run goes on", stacklevel=1)
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None

    def _write(self, trainer: Trainer, module: StyleTransfer, begin: float) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        height, width = data.stage_size()
        size = target_size(height, width, min(self.longest, max(height, width)))
        note = self._frames.folder / _WRITTEN
        own = _noted(note)
        left = self._making.left - self._taking.spent
        shots, rate = make_shots(
            self._frames,
            content=None if data.content_path is None else resize(data.content.pixels, size),
            result=module.picture(self.longest),
            timing=Timing(self.seconds, self.fps, self.rest),
            most=max(_FEWEST, int(left / max(_ENCODING * self._encoding, 1e-6))),
        )
        aside = write_film(
            self.path, shots, size, rate, lambda path: own is not None and own == _identity(path), owner_of(trainer)
        )
        with only_the_file(note), replacing(make_folder(note.parent) / note.name) as file:
            file.write(json.dumps(_identity(self.path)).encode())
        taken = time.perf_counter() - begin + self._taking.spent
        frames = sum(shot.frames for shot in shots)
        kept = f"; the other film that was there is now {aside}" if aside else ""
        facts: dict[str, Any] = {"moved_aside": str(aside)} if aside else {}
        log.say(
            "wrote",
            f"wrote {self.path}: {len(shots)} pictures in {float(frames / rate):.3g} s{kept}",
            path=str(self.path),
            share=round(taken / max(self._making.elapsed, 1e-9), 4),
            **facts,
        )


class Timing(NamedTuple):
    """Lengths of a film: seconds, frames a second, and seconds of rest."""

    seconds: float
    fps: int
    rest: float


def make_shots(
    frames: Frames, content: Tensor | None, result: Tensor, timing: Timing, most: int
) -> tuple[list[Shot], Fraction]:
    """The content, frames where the picture changes, and the result; and frames a second, fewer where there are few.

    Args:
        frames: Those that were kept; the last one is of the result.
        content: (1, 3, h, w) in [0, 1], or None.
        result: The same, of any size.
        timing: How long all that takes.
        most: Frames that it may have without those that rest.
    """
    together = -(-max(1, round(timing.seconds * timing.fps)) // max(1, most))
    rate = Fraction(timing.fps, together)

    def count(seconds: float) -> int:
        return max(1, round(seconds * rate))

    lengths = shown_for(frames.changes(), count(timing.seconds), float(_STILL * rate))
    shots = [] if content is None else [Shot(partial(_picture, as_bytes(content)), count(timing.rest / 2))]
    shots += [
        Shot(partial(frames.open, step), length) for step, length in zip(frames.steps, lengths, strict=False) if length
    ]
    return [*shots, Shot(partial(_picture, as_bytes(result)), count(timing.rest))], rate


def _picture(values: Array) -> Image.Image:
    return Image.fromarray(values)


def _add(frames: Frames, step: int, pixels: Array) -> float:
    """Keep a frame; returns the seconds of computing that it took, which the run may be waiting for."""
    begin = time.thread_time()
    frames.add(step, pixels)
    return time.thread_time() - begin


def _identity(path: Path) -> list[int]:
    """What tells a file from one that another process puts in its place."""
    status = path.stat()
    return [status.st_ino, status.st_mtime_ns]


def _noted(note: Path) -> list[int] | None:
    """What the film of this run was when it was written; None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        found: list[int] = json.loads(note.read_text(encoding="utf-8"))
        return found
    return None
