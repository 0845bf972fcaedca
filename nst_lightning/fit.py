"""``nst fit``: a LightningCLI whose configuration is flat (trainer, model, data, and where the results go)."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from nst_lightning.callbacks import Export, Figure, Metrics, Progress, Snapshots
from nst_lightning.data import Style, StyleTransferData
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.hardware import keep_freed_memory
from nst_lightning.module import StyleTransfer, check_trainer_settings
from nst_lightning.parser import OneLineParser, expand_presets
from nst_lightning.runfolder import check_folder, create_run_folder
from nst_lightning.trainer import StyleTrainer

TRAINER_DEFAULTS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "max_epochs": -1,  # the module sets it from its schedule
    "default_root_dir": "runs",
}

OUTPUT_OPTIONS: list[tuple[str, Any, Any, str]] = [
    ("output", Optional[str], None, "Where to write the final picture; its suffix says the format."),
    ("bits", int, 8, "Bits per channel of the final picture: 8, or 16 for PNG and TIFF."),
    ("quality", int, 95, "Quality of a JPEG or WebP picture, 1 to 100."),
    ("snapshot_every", int, 50, "Evaluations between numbered pictures in the run folder; 0 writes none."),
    ("ckpt_path", Optional[str], None, "Checkpoint to continue from."),
]


class FitCLI(LightningCLI):
    """Parse and build everything; whatever can be wrong is found here, before a run folder appears.

    Args:
        args: Command line after ``nst fit``.
    """

    def __init__(self, args: Sequence[str]) -> None:
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
            args=expand_presets(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # `_keep_hyperparameters` does it by public means
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where results go; see LightningCLI."""
        for name, type_, default, text in OUTPUT_OPTIONS:
            parser.add_argument(f"--{name}", type=type_, default=default, help=text)
        # A class to begin with lets `--model.extractor.pooling average` work on its own.
        parser.set_defaults({"model.extractor": {"class_path": "nst_lightning.features.VGG19"}})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, without LightningCLI's warning about sys.argv; see LightningCLI."""
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Check settings, cheap ones first, then build model, data and trainer; see LightningCLI."""
        config = self.config
        root = check_folder(Path(config.trainer.default_root_dir))
        if config.ckpt_path is not None and not Path(config.ckpt_path).is_file():
            raise UserError(f"ckpt_path: must be a file, got '{config.ckpt_path}'; see the run folder's snapshots")
        check_trainer_settings(config.trainer.gradient_clip_val, config.trainer.accumulate_grad_batches)
        resolved = self.parser.dump(config)
        defaults = [
            Progress(),
            Metrics(),
            Snapshots(config.snapshot_every),
            Figure(),
            Export(config.output, config.bits, config.quality, {"Configuration": resolved}),
        ]
        _check_pictures(config.data)
        self.config_init = self._instantiate(config)
        self.datamodule, self.model = self.config_init["data"], self.config_init["model"]
        self.model.check(self.datamodule)
        self.datamodule.setup("fit")
        self._keep_hyperparameters(resolved)
        root_is_new = not root.exists()
        names = (self.datamodule.content_path, self.datamodule.styles[0].path)
        self.folder = create_run_folder(root, "_".join(Path(name).stem for name in names))
        try:
            self.trainer = self._build_trainer(defaults)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            if root_is_new:
                with contextlib.suppress(OSError):  # another run may have come to live there
                    root.rmdir()
            raise
        (self.folder / "config.yaml").write_text(resolved, encoding="utf-8")

    def _instantiate(self, config: Namespace) -> Namespace:
        try:
            built: Namespace = self.parser.instantiate(config)
        except ValueError as error:
            raise _user_error_behind(error) or error from None
        return built

    def _build_trainer(self, defaults: Sequence[Callback]) -> Trainer:
        settings = dict(self.config_init["trainer"])
        given = settings.pop("callbacks") or []
        given = given if isinstance(given, list) else [given]
        # A callback from the configuration takes the place of the default one of its class.
        kept = [callback for callback in defaults if not any(isinstance(other, type(callback)) for other in given)]
        if settings.get("enable_progress_bar") is False:
            kept = [callback for callback in kept if not isinstance(callback, Progress)]
        settings.update(callbacks=[*kept, *given], default_root_dir=str(self.folder))
        try:
            return StyleTrainer(**settings)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(f"trainer: {error}") from None

    def _keep_hyperparameters(self, resolved: str) -> None:
        """Put the model's configuration into its checkpoints as data; `load_from_checkpoint` rebuilds it from there."""
        model = yaml.safe_load(resolved)["model"]
        self.model.save_hyperparameters({**model, "_instantiator": "lightning.pytorch.cli.instantiate_module"})


def _check_pictures(config: Namespace) -> None:
    """Find a missing picture before the model loads (or fetches) its weights, which jsonargparse would build first."""
    settings = config.as_dict()
    if isinstance(settings["style"], list):
        settings["style"] = [Style(**item) if isinstance(item, dict) else item for item in settings["style"]]
    StyleTransferData(**settings)


def _user_error_behind(error: BaseException | None) -> UserError | None:
    """The user's error that made a class fail; jsonargparse reports it amid all the types that it tried."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, UserError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def main(args: Sequence[str]) -> int:
    """Run ``nst fit``.

    Args:
        args: Command line after the subcommand.

    Returns:
        The exit code.

    Raises:
        UserError: If something asked for cannot be done.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    keep_freed_memory()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.simplefilter("always", UserNotice)
        warnings.showwarning = _show_warning
        cli = FitCLI(args)
        try:
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.config.ckpt_path)
        except SystemExit:
            # Lightning exits with 1 after a signal; shells and schedulers expect 128 + its number.
            if cli.trainer.interrupted:
                return 143 if cli.trainer.received_sigterm else 130
            raise
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"nst: warning: {' '.join(str(message).split())}", file=sys.stderr)  # noqa: T201
