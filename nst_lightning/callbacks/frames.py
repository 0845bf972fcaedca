"""Small pictures of a run, of which only so many are kept as show how it changed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from nst_lightning.files.atomic import replacing
from nst_lightning.files.folders import make_folder

Array = npt.NDArray[Any]

_GLIMPSE = (32, 32)  # pixels in which pictures are compared: whether one sees that something has changed
_QUALITY = 92  # of JPEG


class Frames:
    """Pictures in a folder as numbered JPEGs, so that a run that goes on finds those of its beginning.

    Where there are more than so many, the one goes without which the film would miss the least: the one whose
    neighbours are most alike.

    Args:
        folder: Where they are.
        most: How many are kept, at least 3.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self.steps: list[int] = []  # evaluations, ascending
        self._glimpses: list[Array] = []
        self._leaps: list[float] = []  # change between the neighbours of each picture but the first and the last

    def begin(self, step: int | None) -> None:
        """Find the frames of a run that goes on after an evaluation, or of none, and remove others."""
        last = -1 if step is None else step
        self.steps, self._glimpses, self._leaps = [], [], []
        for path in sorted(self.folder.glob("[0-9]*.jpg"), key=lambda path: (len(path.name), path.name)):
            glimpse = _glimpse_of(path) if path.stem.isdigit() and int(path.stem) <= last else None
            if glimpse is None:  # of an evaluation that is made again, or of another run, or damaged
                path.unlink(missing_ok=True)
            else:
                self._append(int(path.stem), glimpse)

    def add(self, step: int, pixels: Array) -> None:
        """Keep a picture.

        Args:
            step: Evaluations so far, more than those of the last one.
            pixels: (H, W, 3) of bytes.

        Raises:
            OSError: It cannot be written; then all is as before.
        """
        write_jpeg(self.path(step), pixels, _QUALITY)
        self._append(step, _glimpse(Image.fromarray(pixels)))
        while len(self.steps) > self.most:
            self._leave_out(1 + min(range(len(self._leaps)), key=self._leaps.__getitem__))

    def _append(self, step: int, glimpse: Array) -> None:
        self.steps.append(step)
        self._glimpses.append(glimpse)
        if len(self.steps) > 2:
            self._leaps.append(difference(self._glimpses[-3], glimpse))

    def _leave_out(self, gone: int) -> None:
        """Remove a picture, neither the first nor the last."""
        self.path(self.steps.pop(gone)).unlink(missing_ok=True)
        del self._glimpses[gone], self._leaps[gone - 1]
        for index in {gone - 1, gone} & set(range(1, len(self.steps) - 1)):  # whose neighbours are others now
            self._leaps[index - 1] = difference(self._glimpses[index - 1], self._glimpses[index + 1])

    def path(self, step: int) -> Path:
        """The file of an evaluation."""
        return self.folder / f"{step:06d}.jpg"

    def open(self, step: int) -> Image.Image:
        """The picture of an evaluation."""
        with Image.open(self.path(step)) as file:
            picture: Image.Image = file.convert("RGB")
        return picture

    def changes(self) -> list[float]:
        """How much each picture but the first differs from the one before it, from 0 to 1."""
        return [difference(a, b) for a, b in zip(self._glimpses, self._glimpses[1:], strict=False)]


def as_bytes(picture: Tensor) -> Array:
    """(1, 3, h, w) in [0, 1] to (h, w, 3) of bytes, for encoders."""
    values: Array = (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return values


def write_jpeg(path: Path, pixels: Array, quality: int) -> None:
    """Write a small picture, whole or not at all; its folder is made if need be.

    Raises:
        OSError: It cannot be written.
    """
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=quality)
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(encoded.getvalue())


def difference(a: Array, b: Array) -> float:
    """Mean difference of two pictures, (H, W, 3) of bytes, as a share of the whole range."""
    return float(np.abs(a.astype(np.int16) - b).mean()) / 255


def shown_for(changes: Sequence[float], frames: int, most: float) -> list[int]:
    """For how many frames of a film each picture is shown before the next one takes its place.

    In proportion to the change to the next one, so that the film changes evenly, but none longer than the others of the
    run leave it: the first evaluations change the picture by leaps, and each of them alone would be a still.

    Args:
        changes: To the next picture, at least 0.
        frames: Of the film.
        most: Frames for which one picture is shown at most, where there are pictures enough.

    Returns:
        A number for each change, which sum to `frames`; 0 for pictures that are left out.
    """
    if not changes:
        return []
    most = max(most, 2 * frames / len(changes))
    least = 1e-3 * max(*changes, 1e-9)  # those without any change share what is left
    lengths = [0.0] * len(changes)
    free, left = set(range(len(changes))), float(frames)
    while free:
        scale = left / sum(max(changes[i], least) for i in free)
        long = {i for i in free if max(changes[i], least) * scale > most}
        for i in long or free:
            lengths[i] = most if long else max(changes[i], least) * scale
            left -= lengths[i]
        free = free - long if long else set()
    ends = np.rint(np.cumsum(lengths)).astype(int)
    ends[-1] = frames
    return [int(length) for length in np.diff(ends, prepend=0)]


def _glimpse(picture: Image.Image) -> Array:
    return np.asarray(picture.resize(_GLIMPSE, Image.Resampling.BOX))


def _glimpse_of(path: Path) -> Array | None:
    """Of a file; None if it is damaged."""
    with contextlib.suppress(OSError), Image.open(path) as picture:
        picture.draft("RGB", (4 * _GLIMPSE[0], 4 * _GLIMPSE[1]))
        return _glimpse(picture.convert("RGB"))
    return None
