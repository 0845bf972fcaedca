"""What each picture's file says if it is finished: the fingerprint of the row's inputs and settings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nst_lightning import __version__
from nst_lightning.data.module import StyleTransferData
from nst_lightning.data.request import Request
from nst_lightning.data.schedule import default_stages, evaluations_after_draft
from nst_lightning.errors import UserError
from nst_lightning.files.digest import sha256_of
from nst_lightning.files.paths import PATHS_FROM
from nst_lightning.files.yaml_text import load_yaml
from nst_lightning.gallery.rows import Row
from nst_lightning.images import check_image, read_metadata
from nst_lightning.runs.overwriting import EVALUATIONS, FINGERPRINT, fingerprint_of

Configure = Callable[[Sequence[str]], str]  # makes a configuration in YAML of a command line after ``nst fit``

# A gallery decides these itself for each picture.
_OURS = {"output", "timelapse", "ckpt_path", "trainer.default_root_dir", "data.content", "data.style"}


@dataclass(frozen=True)
class Task:
    """A row that can be made.

    Attributes:
        row: The row.
        fingerprint: Of its inputs and settings; equal for rows that make the same picture.
        inputs: Files that it reads: content, styles, masks.
        evaluations: How many it has by its schedule.
        pixels: How many the picture has.
        configuration: Its settings, as in a run's ``config.yaml``.
    """

    row: Row
    fingerprint: str
    inputs: tuple[Path, ...]
    evaluations: int
    pixels: int
    configuration: dict[str, Any] = field(repr=False, compare=False)

    def is_made_by(self, path: Path, evaluations: int | None = None) -> bool:
        """Whether a file is this row's picture, with all evaluations made.

        Args:
            path: The file.
            evaluations: After how many the picture was finished, where that is known: a callback or a limit may have
                ended it before the schedule did.
        """
        if not path.is_file():
            return False
        try:
            said = read_metadata(path)
        except UserError:
            return False
        made = said.get(EVALUATIONS, "")
        needed = self.evaluations if evaluations is None else evaluations
        return said.get(FINGERPRINT) == self.fingerprint and made.isdecimal() and int(made) >= needed


class Judge:
    """Makes tasks of rows; settings that rows share are parsed once.

    Args:
        configure: See `Configure`.
    """

    def __init__(self, configure: Configure) -> None:
        self._configure = configure
        self._templates: dict[Any, dict[str, Any]] = {}
        self._digest = cache(sha256_of)

    def tasks(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Task | UserError]]:
        """Each row with its task, or with what is the matter with its pictures.

        Raises:
            UserError: If settings are wrong, which no picture can help.
        """
        for row in rows:
            try:
                for path, name in zip(row.files, ("content", *(["style"] * len(row.styles))), strict=True):
                    check_image(path, name=name)
            except UserError as error:
                yield row, error
                continue
            configuration = self._configuration(row)
            try:
                yield row, self._task(row, configuration)
            except UserError as error:
                yield row, error
            except OSError as error:
                yield row, UserError(f"{error.filename}: {error.strerror}; see that it is there")

    def _task(self, row: Row, configuration: dict[str, Any]) -> Task:
        request = StyleTransferData(**configuration["data"]).request
        digests = [self._digest(path) for path in request.inputs]
        fingerprint = fingerprint_of(configuration, digests, __version__)
        height, width = request.stage_size()
        planned = _evaluations(configuration.get("model") or {}, request)
        return Task(row, fingerprint, tuple(request.inputs), planned, height * width, configuration)

    def _configuration(self, row: Row) -> dict[str, Any]:
        """The row's settings, from those of another row that differs from it in its pictures alone."""
        weights = tuple(style.weight for style in row.styles)
        key = (repr(row.short), weights)
        if key not in self._templates:
            _check_options(row)
            try:
                text = self._configure(row.arguments())
            except UserError as error:
                raise (UserError(f"{row.place}: {error}") if row.place else error) from None
            self._templates[key] = load_yaml(text)
        configuration = copy.deepcopy(self._templates[key])
        configuration.pop(PATHS_FROM, None)
        data = configuration["data"]
        data["content"] = row.content
        for item, style in zip(data["style"], row.styles, strict=True):
            item["path"] = style.path
        return configuration


def _check_options(row: Row) -> None:
    for name in row.short.options:
        if name in _OURS:
            where = f"{row.place}, column {name}" if row.place else f"--{name}"
            raise UserError(f"{where}: must be left out of a gallery, which sets it for each picture; see --help")


def _evaluations(model: dict[str, Any], request: Request) -> int:
    """Evaluations of a run by its schedule; a strip may have a few less."""
    if model.get("evaluations") is not None:
        return int(model["evaluations"])
    if model.get("stages") is not None:
        return sum(int(stage["evaluations"]) for stage in model["stages"])
    size = request.stage_size()
    stages = default_stages(max(size), min(size), from_nothing=request.starts_from_nothing)
    own = evaluations_after_draft(stages[-1].evaluations) if model.get("draft") else 0
    return sum(stage.evaluations for stage in stages) + own
