"""The options of ``nst fit``: a LightningCLI whose configuration is flat (trainer, model, data, and the results)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, cast

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from nst_lightning.config.parser import OneLineParser, expand_presets
from nst_lightning.config.replacing import drop_replaced
from nst_lightning.config.resume import Resumed, resume
from nst_lightning.config.settings import check_settings
from nst_lightning.console import log
from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.errors import UserError

TRAINER_DEFAULTS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": True,
    "enable_model_summary": False,
    "max_epochs": -1,  # the module sets it from its schedule
    "default_root_dir": "runs",
    "log_every_n_steps": 1,  # values are read many at a time, so this costs next to nothing
}

OUTPUT_OPTIONS: list[tuple[str, Any, Any, str]] = [
    (
        "output",
        Optional[str],
        None,
        "Where to write the final picture; its suffix says the format: png, jpg, tif, webp, avif or jxl. Another "
        "picture that is there is moved aside, to name_001.png, unless the same settings made it.",
    ),
    ("bits", int, 8, "Bits per channel of the final picture: 8, or 16 for PNG, TIFF and JPEG XL, 10 or 12 for AVIF."),
    ("quality", int, 95, "Quality of a JPEG, AVIF or JPEG XL picture, 1 to 100; 100 is lossless but for JPEG."),
    (
        "color_space",
        str,
        "srgb",
        "Colour space of the final picture: srgb, display-p3, adobe-rgb, or content for the content's own.",
    ),
    (
        "keep_location",
        bool,
        False,
        "Keep in the final picture where the content was taken, beside its date, camera, author and copyright.",
    ),
    ("snapshot_every", int, 20, "Evaluations between numbered pictures in the run folder; 0 writes none."),
    (
        "preview_seconds",
        float,
        5.0,
        "Seconds between two pictures to look at: preview.jpg in the run folder, and in a terminal that shows "
        "pictures; 0 for none.",
    ),
    (
        "timelapse",
        Optional[str],
        None,
        "Where to write a film of the picture as it grows: mp4, webp or gif; another one that is there is moved aside.",
    ),
    ("report", bool, True, "Write report.html in the run folder: pictures, losses, settings and times on one page."),
    ("checkpoint_every", int, 0, "Evaluations between checkpoints; 0 goes by time."),
    ("checkpoint_seconds", float, 120.0, "Seconds between checkpoints; 0 with checkpoint_every 0 writes none."),
    ("checkpoint_keep", int, 2, "How many checkpoints are kept."),
    ("checkpoint_finished", int, 1, "How many a finished run keeps, to go on with more evaluations; 0 keeps none."),
    ("fallback", Optional[str], None, "Folder for the final picture if no other place takes it."),
    (
        "log",
        log.Kind,
        "auto",
        "How the run speaks on standard error: bar, lines (one every ten seconds), json (an object a line, for "
        "programs), none (warnings, errors and reports that were asked for), or auto: a bar on a terminal, lines "
        "elsewhere.",
    ),
    ("ckpt_path", Optional[str], None, "Checkpoint to continue from; last for the newest of the same pictures."),
]


class FitCLI(LightningCLI):
    """Parse the command line after ``nst fit`` and build nothing; `nst_lightning.config.build` goes on from here."""

    def __init__(self, args: Sequence[str], spare: list[LightningArgumentParser] | None = None) -> None:
        """Parse.

        Args:
            args: What comes after ``nst fit``.
            spare: Parsers that have done their work, for who parses many command lines: to build one takes its time.
        """
        self.resumed: Resumed | None = None  # what is to be continued, if anything is
        self._spare = [] if spare is None else spare
        super().__init__(
            StyleTransfer,
            StyleTransferData,
            save_config_callback=None,  # it refuses a second run; the run folder keeps the configuration
            trainer_class=StyleTrainer,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=OneLineParser,
            parser_kwargs={
                "prog": "nst fit",
                "description": "Make a picture from a content and a style image.",
                "allow_abbrev": False,  # half a name may become another option's with the next version
            },
            args=list(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # `build` does it by public means
        )

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Take a parser that has done its work, if there is one; see LightningCLI."""
        if self._spare:
            self.parser = self._spare.pop()
        else:
            super().setup_parser(*args, **kwargs)

    def give_back_parser(self) -> None:
        """Let the next command line have the parser."""
        self._spare.append(self.parser)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where results go."""
        for name, type_, default, text in OUTPUT_OPTIONS:
            parser.add_argument(f"--{name}", type=type_, default=default, help=text)
        parser.set_defaults({"model.optimizer": None})  # see `drop_replaced`

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, without LightningCLI's warning about sys.argv."""
        check_settings(expand_presets(args))
        args, self.resumed = resume(args, lambda given: parser.parse_args(drop_replaced(given)))
        args = drop_replaced(args)
        self.config = parser.parse_args(args)
        cast("OneLineParser", parser).check_nulls(self.config)
        log.choose(self.config.log)
        seed = self.config.seed_everything  # LightningCLI sets it next
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
            raise UserError(
                f"seed_everything: must be from 0 to {2**32 - 1}, got {seed}; data.seed is that of the noise alone"
            )

    def instantiate_classes(self) -> None:
        """Leave it to `build`."""
