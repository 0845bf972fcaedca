"""The final picture."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from nst_lightning import __version__, log
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images.io import check_writable, write_image
from nst_lightning.module import StyleTransfer
from nst_lightning.paths import expand


class Export(Callback):
    """Write the picture when the run ends, also when it is interrupted.

    The picture lies in the run folder as ``result`` with the suffix of `output` (``result.png`` without one), and at
    `output`; if neither place takes it, in `fallback`. The alpha channel of the content is attached again where the
    format has one.

    Args:
        output: A second place for the picture, whose suffix says the format.
        bits: Bits per channel, 8, or 16 for PNG and TIFF.
        quality: Quality of JPEG and WebP, 1 to 100.
        settings: What goes into the picture's metadata beside the program's own lines.
        fallback: Folder for a picture that no other place takes; by default the system's for temporary files.
    """

    def __init__(
        self,
        output: str | None = None,
        bits: int = 8,
        quality: int = 95,
        settings: dict[str, str] | None = None,
        fallback: str | None = None,
    ) -> None:
        if bits not in {8, 16}:
            raise UserError(f"bits: must be 8 or 16, got {bits}")
        if not 1 <= quality <= 100:
            raise UserError(f"quality: must be from 1 to 100, got {quality}; 95 is a good choice")
        self.output = expand(output, "output") if output else None
        self.bits = bits
        self.quality = quality
        self.settings = settings or {}
        self.fallback = expand(fallback, "fallback") if fallback else Path(tempfile.gettempdir())
        if self.output:
            check_writable(self.output, name="output", bits=bits)

    def _write(self, trainer: Trainer, module: StyleTransfer) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        suffix = self.output.suffix if self.output else ".png"
        places = [Path(trainer.default_root_dir) / f"result{suffix}", *([self.output] if self.output else [])]
        metadata = {
            "Software": f"nst_lightning {__version__}",
            "Evaluations": str(trainer.global_step),
            "Content": str(data.content_path),
            "Style": ", ".join(style.path for style in data.styles),
            **self.settings,
        }
        picture, alpha = module.final_picture(), data.alpha()
        run = Path(trainer.default_root_dir).resolve().name
        failures: list[str] = []
        written: list[Path] = []

        def write(path: Path) -> None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, picture, alpha=alpha, bits=self.bits, quality=self.quality, metadata=metadata)
            except (OSError, UserError) as error:  # one place that fails must not cost the other
                failures.append(f"{path}: {error}")
            else:
                written.append(path)

        for path in places:
            write(path)
        if not written:
            write(self.fallback / f"{run}_result{suffix}")
        if not written:
            raise UserError(f"output: the picture could not be written anywhere; {'; '.join(failures)}")
        for failure in failures:
            warnings.warn(f"could not write {failure}", UserNotice, stacklevel=1)
        for path in written:
            log.say("wrote", f"wrote {path}", path=str(path))

    def on_train_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Write the picture; see Callback."""
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: StyleTransfer, exception: BaseException) -> None:  # type: ignore[override]
        """Write what there is, if there is anything; see Callback."""
        if trainer.global_step > 0:
            self._write(trainer, pl_module)
