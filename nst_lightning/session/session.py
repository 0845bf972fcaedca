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
from lightning.pytorch import Callback, seed_everything
from PIL import Image
from torch import Tensor

from nst_lightning.callbacks import Export, Faults, Feedback, Watch
from nst_lightning.callbacks.export import picture_settings
from nst_lightning.config.build import Job, Surroundings, build
from nst_lightning.config.networks import Networks
from nst_lightning.config.options import FitCLI
from nst_lightning.config.running import run, unheard
from nst_lightning.config.short import PRESET, Short
from nst_lightning.errors import UserError
from nst_lightning.hardware.accelerator import choose_accelerator
from nst_lightning.objective.style_store import StyleStore
from nst_lightning.process.turns import Together, turn_on
from nst_lightning.session.bar import Progress, progress_shown
from nst_lightning.session.budget import within
from nst_lightning.session.inputs import PictureLike, as_file, like
from nst_lightning.session.result import Outcome, Result

InMemory = TypeVar("InMemory", "np.ndarray[Any, Any]", Tensor)
_StyleLike: TypeAlias = Union[PictureLike, "Mapping[str, Any]", "tuple[PictureLike, float]"]
StyleOrStyles: TypeAlias = Union[_StyleLike, Sequence[_StyleLike]]  # noqa: UP007

# What a run of a program's own needs of the command's callbacks: the rest speaks, or fills a folder.
_NEEDED = (Faults, Watch)


_surroundings = Together(unheard)
_building = threading.Lock()  # parsers and seeds are the process's own


class Session:
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
        self._options = options
        self._networks = Networks() if keep else None
        self._styles = StyleStore() if keep else None

    @overload
    def stylize(
        self,
        content: str | os.PathLike[str] | Image.Image | None,
        style: StyleOrStyles,
        *,
        preset: str = PRESET,
        size: int | str | None = None,
        strength: float | None = None,
        keep_colors: bool = False,
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
        keep_colors: bool = False,
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
        keep_colors: bool = False,
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
        """Make a picture from a content and a style.

        Args:
            content: A path, a PIL image, an array (H, W, 3) or a tensor (3, H, W), of uint8, or of floats in [0, 1];
                None for a texture (with the preset texture).
            style: The same, a `Style`'s arguments as a mapping, a pair of a picture and its weight, or a list of these.
            preset: A preset or a configuration file; several are separated by commas, later ones win.
            size: Long side of the result in pixels, or content for the content's own.
            strength: Style against content; 1 is neutral.
            keep_colors: Keep the content's colours, and take on the brush alone.
            stroke_size: Factor on the size of strokes.
            evaluations: How many evaluations of the objective.
            seconds: The best picture in about that time on this machine: evaluations, and without a size the size, too.
            seed: Of all that is random; 0 by default.
            device: cpu, cuda, cuda:1, mps; by default the fastest that is there.
            precision: 32-true, bf16-mixed or 64-true; by default what suits the device.
            output: A file to write the picture to.
            progress: A function that is given an `Update` at most ten times a second, and ends the run by returning
                False; or True for a bar. By default notebooks show one.
            stop: An event that ends the run; what there is by then is returned.
            options: Any option of ``nst fit`` by its dotted name, such as ``**{"model.optimizer.lr": 0.5}``.

        Returns:
            The picture, with losses, seconds, sizes and configuration.

        Raises:
            UserError: If something asked for cannot be done; the message is the command's.

        Example:
            >>> seen = []
            >>> result = stylize(
            ...     "photo.jpg", ["painting.jpg", ("other.jpg", 2.0)], size=64, evaluations=4, progress=seen.append
            ... )
            >>> seen[-1].evaluation, result.size
            (4, (64, 48))
        """
        begin = time.perf_counter()
        places = {"trainer.precision": precision, "model.evaluations": evaluations, **_device(device)}
        given = {**self._options, **{k: v for k, v in places.items() if v is not None}, **options}
        file = None if output is None else os.fspath(output)
        short = Short(preset, size, strength, keep_colors, stroke_size, file, seed, given)
        with tempfile.TemporaryDirectory(prefix="nst_") as folder:
            path = None if content is None else as_file(content, "content", Path(folder), "content")
            args = short.arguments(path, _style_files(style, Path(folder)))
            if seconds is not None:
                args += self._within(args, seconds, begin, size is None)
            only = _NEEDED if output is None else (*_NEEDED, Export)
            with progress_shown(progress) as function:
                callbacks = [Feedback(function, stop)]
                outcome = self.run(args, callbacks=callbacks, only=only, folder=Path(folder) / "run")
        facts = {**vars(outcome), "folder": None, "seconds": time.perf_counter() - begin}
        image = like(content, outcome.pixels, outcome.alpha)
        return Result(**facts, image=image, output=None if file is None else Path(file))

    def run(
        self,
        args: Sequence[str],
        *,
        callbacks: Sequence[Callback] = (),
        only: tuple[type[Callback], ...] = (Callback,),
        folder: Path | None = None,
    ) -> Outcome:
        """Make the picture of a command line.

        Args:
            args: What comes after ``nst fit``.
            callbacks: Beside those that the command brings along.
            only: Classes of the command's own callbacks that are wanted.
            folder: The run's folder, made if need be, in place of one below ``trainer.default_root_dir``.

        Raises:
            UserError: As the command would say it.
        """
        begin = time.perf_counter()
        given = Surroundings(self._networks, callbacks, only, folder)
        with _surroundings:
            with _building:
                job = build(args, given)
            try:
                if job.processes > 1:
                    raise UserError(
                        f"trainer.devices: must be one device in a program's own process, got {job.processes}; "
                        "nst fit shares a picture among several"
                    )
                kind = choose_accelerator(job.config.trainer.accelerator).value
                with turn_on(f"{kind} {job.config.trainer.devices}"):
                    self._make(job)
            finally:
                job.release_folder()
        evaluation = job.model.evaluation
        losses = {} if evaluation is None else job.model.objective.losses(evaluation)
        configuration = job.model.configuration
        return Outcome(
            pixels=job.model.final_picture(),
            alpha=job.data.alpha(),
            losses={name: float(loss) for name, loss in losses.items()},
            evaluations=job.trainer.global_step,
            total=job.model.total_evaluations,
            seconds=time.perf_counter() - begin,
            configuration=configuration,
            folder=job.folder,
            metadata=picture_settings(job.trainer, job.data, {"Configuration": configuration}),
        )

    def _make(self, job: Job) -> None:
        if (store := self._styles) is not None:
            terms = str(job.config.model), str(job.config.trainer.precision)
            job.model.style_targets = lambda evaluator, styles: store.targets(evaluator, styles, terms)
        if not isinstance(job.config.seed_everything, bool):  # another thread may have set one since
            seed_everything(job.config.seed_everything, verbose=False)
        run(job)

    def configuration(self, args: Sequence[str]) -> str:
        """The configuration in YAML that a run of a command line would keep; its words are checked, its files are not.

        Args:
            args: What comes after ``nst fit``.

        Raises:
            UserError: If a word is wrong.
        """
        with _surroundings, _building:
            cli = FitCLI(args)
            return str(cli.parser.dump(cli.config))

    def _within(self, args: Sequence[str], seconds: float, begin: float, any_size: bool) -> list[str]:
        with _surroundings, _building:
            return within(args, seconds, time.perf_counter() - begin, self._networks, any_size=any_size)


def _device(device: str | None) -> dict[str, Any]:
    """``cuda:1`` in Lightning's words."""
    if device is None:
        return {}
    kind, _, index = device.partition(":")
    if index and not index.isdecimal():
        raise UserError(f"device: must be a kind such as cuda or one device such as cuda:1, got {device}; mend it")
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
        path = as_file(picture, name, folder, f"style_{index}")
        files.append({"path": path, **more} if more or isinstance(item, Mapping) else path)
    return files
