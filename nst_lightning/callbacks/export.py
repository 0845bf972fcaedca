"""The final picture."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, Trainer

from nst_lightning import __version__
from nst_lightning.console import log
from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError, notice
from nst_lightning.files.atomic import copy, sweep
from nst_lightning.files.folders import make_folder
from nst_lightning.files.paths import expand
from nst_lightning.files.yaml_text import load_yaml
from nst_lightning.images.encode import format_of
from nst_lightning.images.io import check_sides, check_writable, write_image
from nst_lightning.images.metadata import Metadata, without_folders
from nst_lightning.images.origin import read_origin
from nst_lightning.images.profiles import ColorSpace, check_color_space, color_space, space_of_content
from nst_lightning.runs.overwriting import EVALUATIONS, FINGERPRINT, may_be_replaced, refuse_inputs, run_fingerprint


class Export(Callback):
    """Write the picture when the run ends, also when it is interrupted.

    The picture lies in the run folder as ``result`` with the suffix of `output` (``result.png`` without one), and at
    `output`; if neither can be written to, in `fallback`. The alpha channel of the content is attached again where the
    format has one. A picture that is there already is moved aside, to ``name_001.png``, unless the same settings made
    it, or this run before it was continued.

    Args:
        output: A second place for the picture, whose suffix says the format.
        bits: Bits per channel: 8, or 16 for PNG, TIFF and JPEG XL, or 10 or 12 for AVIF.
        quality: Quality of JPEG, AVIF and JPEG XL, 1 to 100; 100 is lossless but for JPEG. WebP always is.
        settings: What goes into the picture's metadata beside the program's own lines. Of the paths in its entry
            ``Configuration``, which is YAML, only the files' names do.
        fallback: Folder for a picture that can be written nowhere else; by default the system's for temporary files.
        color_space: Colour space of the picture: srgb, display-p3, adobe-rgb, or content for the content's own.
        keep_location: Whether the picture also keeps where the content was photographed; date, camera, author, caption,
            copyright and resolution it always keeps.
    """

    def __init__(
        self,
        output: str | Path | None = None,
        bits: int = 8,
        quality: int = 95,
        settings: dict[str, str] | None = None,
        fallback: str | Path | None = None,
        color_space: str = "srgb",
        keep_location: bool = False,
    ) -> None:
        if not 1 <= quality <= 100:
            raise UserError(f"quality: must be from 1 to 100, got {quality}; 95 is a good choice")
        self.output = expand(output, "output") if output else None
        self.bits = bits
        self.quality = quality
        self.settings = settings or {}
        self.fallback = expand(fallback or tempfile.gettempdir(), "fallback")
        self.color_space = check_color_space(color_space)
        self.keep_location = keep_location
        self._origin = Metadata()
        self._fingerprint = ""
        self._written: dict[Path, tuple[int, int]] = {}  # of this run, by inode and time of change
        self._due = False  # whether this run has begun and its picture is not written yet
        if self.output:
            check_writable(self.output, bits=bits, color_space=color_space)
        else:
            format_of(Path("result.png"), bits, "bits", self.color_space)

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Read what the picture keeps of the content's file, as long as that is there."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, StyleTransferData):  # the module says so
            return
        if self.output:
            check_sides(self.output, data.stage_size(), self.bits)
        data.keep_gamut(self.color_space != "srgb")
        self._written = {}
        self._origin = Metadata()
        if not trainer.is_global_zero:
            return
        refuse_inputs(self.output, data.request.inputs)
        if data.content_path is not None:
            self._origin = read_origin(Path(data.content_path), keep_location=self.keep_location)
        configuration = self.settings.get("Configuration")
        self._fingerprint = run_fingerprint(configuration, data.request.inputs, __version__) if configuration else ""

    def _space(self, data: StyleTransferData) -> ColorSpace:
        if self.color_space != "content":
            return color_space(self.color_space)
        return space_of_content(data.content.profile, data.content.path)

    def _write(self, trainer: Trainer, module: StyleTransfer) -> None:
        if not trainer.is_global_zero:
            return
        data: StyleTransferData = trainer.datamodule  # type: ignore[attr-defined]
        suffix = self.output.suffix if self.output else ".png"
        result = Path(trainer.default_root_dir) / f"result{suffix}"
        settings, space = picture_settings(trainer, data, self.settings), self._space(data)
        settings |= {FINGERPRINT: self._fingerprint} if self._fingerprint else {}
        picture, alpha = module.final_picture(extended=not space.is_srgb), data.alpha()
        run = Path(trainer.default_root_dir).resolve().name
        own = self._of_this_run(trainer, result)
        failures: list[str] = []
        written: list[tuple[Path, Path | None]] = []

        def replaceable(path: Path) -> bool:
            return _identity(path) in own or may_be_replaced(path, settings)

        def write(path: Path) -> None:
            options: dict[str, Any] = {"alpha": alpha, "bits": self.bits, "quality": self.quality, "space": space}
            try:
                make_folder(path.parent)
                if written:  # the same bytes; encoding is slow
                    aside = copy(written[0][0], path, replaceable, owner_of(trainer))
                else:
                    aside = write_image(
                        path, picture, metadata=settings, origin=self._origin, replaceable=replaceable, **options
                    )
            except (OSError, UserError) as error:  # one place that fails must not cost the other
                failures.append(f"{path}: {error}")
            else:
                written.append((path, aside))
                with contextlib.suppress(OSError):  # then it will look like somebody else's, and be moved aside
                    self._written[path] = _identity(path)

        for path in [result, *([self.output] if self.output else [])]:
            write(path)
        if not written:
            write(self.fallback / f"{run}_result{suffix}")
        if not written:
            raise UserError(f"output: the picture could not be written anywhere; {'; '.join(failures)}")
        for failure in failures:
            notice(f"could not write {failure}")
        for path, aside in written:
            moved = f"; the other picture that was there is now {aside}" if aside else ""
            facts: dict[str, Any] = {"moved_aside": str(aside)} if aside else {}
            log.say("wrote", f"wrote {path}{moved}", path=str(path), **facts)

    def _of_this_run(self, trainer: Trainer, result: Path) -> set[tuple[int, int]]:
        """Pictures that this run has written, also before it was interrupted and continued."""
        found = set(self._written.values())
        with contextlib.suppress(OSError):  # likewise
            if trainer.ckpt_path is not None and result.exists():
                found.add(_identity(result))
                if self.output and self.output.is_file() and filecmp.cmp(result, self.output, shallow=False):
                    found.add(_identity(self.output))
        return found

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Owe a picture from now on."""
        self._due = True
        if self.output and trainer.ckpt_path is not None and trainer.is_global_zero:
            sweep(self.output.parent, owner_of(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Write the picture."""
        self._write(trainer, pl_module)
        self._due = False

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Write what there is, if there is anything."""
        due, self._due = self._due, False
        if due and trainer.global_step > 0:
            self._write(trainer, pl_module)


def picture_settings(trainer: Trainer, data: StyleTransferData, more: Mapping[str, str]) -> dict[str, str]:
    """What a picture says of how it was made.

    Args:
        trainer: Of the run.
        data: Its pictures.
        more: Texts to add; of the paths in ``Configuration``, which is YAML, the files' names.
    """
    settings = {
        "Software": f"nst_lightning {__version__}",
        EVALUATIONS: str(trainer.global_step),
        "Content": Path(data.content_path or "").name,
        "Style": ", ".join(Path(style.path).name for style in data.styles),
        **more,
    }
    if "Configuration" in settings:
        shown = without_folders(load_yaml(settings["Configuration"]))
        settings["Configuration"] = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    return settings


def owner_of(trainer: Trainer) -> str:
    """Whose files are unfinished, by the run's folder."""
    return hashlib.sha256(os.path.realpath(trainer.default_root_dir).encode()).hexdigest()[:8]


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from one that another process puts in its place."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
