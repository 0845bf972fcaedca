"""A session: one picture after the other, with what they have in common kept."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, Union, overload

import numpy as np
from PIL import Image
from torch import Tensor

from nst_lightning.callbacks import Export, Faults, Feedback, Watch
from nst_lightning.config.short import PRESET, Short
from nst_lightning.errors import UserError
from nst_lightning.hardware.accelerator import split_device
from nst_lightning.session.bar import Progress, progress_shown
from nst_lightning.session.inputs import PictureLike, as_file, like
from nst_lightning.session.result import Result
from nst_lightning.session.runner import Runner

InMemory = TypeVar("InMemory", "np.ndarray[Any, Any]", Tensor)
_StyleLike: TypeAlias = Union[PictureLike, "Mapping[str, Any]", "tuple[PictureLike, float]"]
StyleOrStyles: TypeAlias = Union[_StyleLike, Sequence[_StyleLike]]  # noqa: UP007

# What a run of a program's own needs of the command's callbacks: the rest speaks, or fills a folder.
_NEEDED = (Faults, Watch)
_MASKS = {"mask", "style_mask"}  # of a style, which are pictures as it is itself


class Session(Runner):
    """Makes pictures one after the other, and keeps networks, and targets of styles, for the next one.

    A session may be used by several threads, and there may be several sessions: a device makes one picture at a time,
    and who comes second waits. What a run changes for the process is as before when it ends.

    Args:
        keep: Whether to keep anything; without, a session is but a place for options.
        options: Options of ``nst fit`` for all pictures, by their dotted names.

    Example:
        >>> session = Session()
        >>> first = session.stylize("photo.jpg", "painting.jpg", size=64, evaluations=3)
        >>> again = session.stylize("photo.jpg", "painting.jpg", size=64, evaluations=3)
        >>> first.image.tobytes() == again.image.tobytes()
        True
    """

    def __init__(self, *, keep: bool = True, **options: Any) -> None:
        super().__init__(keep=keep)
        self._options = options

    @overload
    def stylize(
        self,
        content: str | os.PathLike[str] | Image.Image | None,
        style: StyleOrStyles,
        *,
        preset: str = PRESET,
        size: int | str | None = None,
        strength: float | None = None,
        likeness: float | None = None,
        keep_colors: bool = False,
        protect_faces: bool = False,
        regions: int | None = None,
        stroke_size: float | None = None,
        evaluations: int | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        device: str | None = None,
        precision: str | None = None,
        output: str | os.PathLike[str] | None = None,
        progress: Progress | bool | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Result[Image.Image]: ...

    @overload
    def stylize(
        self,
        content: InMemory,
        style: StyleOrStyles,
        *,
        preset: str = PRESET,
        size: int | str | None = None,
        strength: float | None = None,
        likeness: float | None = None,
        keep_colors: bool = False,
        protect_faces: bool = False,
        regions: int | None = None,
        stroke_size: float | None = None,
        evaluations: int | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        device: str | None = None,
        precision: str | None = None,
        output: str | os.PathLike[str] | None = None,
        progress: Progress | bool | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Result[InMemory]: ...

    def stylize(
        self,
        content: PictureLike | None,
        style: StyleOrStyles,
        *,
        preset: str = PRESET,
        size: int | str | None = None,
        strength: float | None = None,
        likeness: float | None = None,
        keep_colors: bool = False,
        protect_faces: bool = False,
        regions: int | None = None,
        stroke_size: float | None = None,
        evaluations: int | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        device: str | None = None,
        precision: str | None = None,
        output: str | os.PathLike[str] | None = None,
        progress: Progress | bool | None = None,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> Result[Any]:
        """Make a picture; with it come losses, seconds, sizes and configuration. `UserError` says what cannot be done.

        Args:
            content: A path, a PIL image, an array (H, W, 3) or a tensor (3, H, W), uint8 or floats in [0, 1], or None.
            style: The same, a pair of it and its weight, a mapping with arguments of a `Style`, or a list of these.
            preset: A preset or a configuration file; several are separated by commas, later ones win.
            size: Long side of the result in pixels, or content for the content's own.
            strength: Style against content, above 0; 1 is neutral.
            likeness: How much a stranger recognises of the content, 0 to 1; 0.5 is neutral.
            keep_colors: Keep the content's colours, and take on the brush alone.
            protect_faces: Keep faces that are found in the content clear; needs the extra ``faces``.
            regions: Find so many regions of the content, 2 to 8, each with the style of what is most like it; 0: none.
            stroke_size: Factor on the size of strokes, above 0.
            evaluations: How many evaluations of the objective.
            seconds: Make the best picture in about that time: choose evaluations, and the size, if none is given.
            seed: Of all that is random; 0 by default.
            device: cpu, cuda, cuda:1, mps, xpu; by default the fastest that is there.
            precision: 32-true, bf16-mixed or 64-true; by default what suits the device.
            output: A file to write the picture to.
            progress: Is given an `Update` at most ten times a second, and ends the run by False; True: a bar.
            stop: An event that ends the run; what there is by then is returned.
            options: Options of ``nst fit`` by their dotted names, such as ``**{"model.optimizer.lr": 0.5}``.
        """
        given = self._given(options, precision, evaluations, device)
        asked = (preset, size, strength, likeness, keep_colors, protect_faces, regions, stroke_size)
        file = None if output is None else os.fspath(output)
        return self._picture(content, style, Short(*asked, file, seed, given), seconds, (progress, stop))

    def _given(
        self, options: dict[str, Any], precision: str | None, evaluations: int | None, device: str | None
    ) -> dict[str, Any]:
        """Options by their dotted names: the session's, the call's by their short names, and the call's."""
        placed = {"trainer.precision": precision, "model.evaluations": evaluations, **_device(device)}
        return {**self._options, **{name: value for name, value in placed.items() if value is not None}, **options}

    def _picture(
        self,
        content: PictureLike | None,
        style: StyleOrStyles,
        short: Short,
        seconds: float | None,
        feedback: tuple[Progress | bool | None, threading.Event | None],
    ) -> Result[Any]:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="nst_") as folder:
            path = None if content is None else as_file(content, "content", Path(folder), "content")
            args = short.arguments(path, _style_files(style, Path(folder)))
            if seconds is not None:
                args += self.within(args, seconds, begin)
            only = _NEEDED if short.output is None else (*_NEEDED, Export)
            with progress_shown(feedback[0]) as function:
                callbacks = [Feedback(function, feedback[1])]
                outcome = self.run(args, callbacks=callbacks, only=only, folder=Path(folder) / "run")
        facts = {**vars(outcome), "folder": None, "seconds": time.perf_counter() - begin}
        image = like(content, outcome.pixels, outcome.alpha)
        return Result(**facts, image=image, output=None if short.output is None else Path(short.output))


def _device(device: str | None) -> dict[str, Any]:
    """``cuda:1`` in Lightning's words."""
    if device is None:
        return {}
    kind, index = split_device(device, "device")
    return {"trainer.accelerator": kind, "trainer.devices": [int(index)] if index else None}


def _style_files(style: Any, folder: Path) -> list[str | Mapping[str, Any]]:
    """Styles with files in the places of pictures in memory."""
    items = list(style) if isinstance(style, (list, tuple)) else [style]
    if isinstance(style, tuple) and len(items) == 2 and isinstance(items[1], (int, float)):
        items = [style]
    files: list[str | Mapping[str, Any]] = []
    for index, item in enumerate(items):
        name, picture, more = f"style[{index}]", item, {}
        if isinstance(item, tuple):
            if len(item) != 2:
                raise UserError(f"{name}: a pair must be a picture and its weight, got {len(item)} values; mend it")
            picture, more = item[0], {"weight": item[1]}
        elif isinstance(item, Mapping):
            picture, more = item.get("path"), {key: value for key, value in item.items() if key != "path"}
            for key in _MASKS & {key for key, value in more.items() if value is not None}:
                more[key] = as_file(more[key], f"{name}.{key}", folder, f"style_{index}_{key}")
        path = as_file(picture, name, folder, f"style_{index}")
        files.append({"path": path, **more} if more or isinstance(item, Mapping) else path)
    return files
