"""``nst fit``: a LightningCLI whose configuration is flat (trainer, model, data, and where the results go)."""

from __future__ import annotations

import contextlib
import gc
import re
import shutil
import warnings
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Optional, cast

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from nst_lightning.callbacks import (
    Announce,
    Checkpoints,
    Export,
    Faults,
    Figure,
    Metrics,
    Progress,
    Record,
    Signals,
    Snapshots,
    Watch,
)
from nst_lightning.config.parser import OneLineParser, expand_presets, mentions
from nst_lightning.config.resume import Resumed, check_resumed, differences, flatten, resume
from nst_lightning.config.settings import check_settings
from nst_lightning.console import log
from nst_lightning.console.quiet import lightning_quiet
from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.complaints import complaint, complaint_in
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.engine.refusals import check_callbacks, check_flags, check_monitors, check_plugins
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.files.atomic import replacing, sweep
from nst_lightning.files.lenient import only_the_file
from nst_lightning.files.paths import PATHS_FROM, expand, in_folder
from nst_lightning.hardware.accelerator import choose_accelerator
from nst_lightning.hardware.memory import hand_back_freed_memory, is_out_of_memory, keep_freed_memory
from nst_lightning.images.profiles import check_color_space
from nst_lightning.process.isolation import process_as_before
from nst_lightning.process.ownership import owns_process
from nst_lightning.process.workers import Workers, check_launcher, count_devices, is_first, started_by_another
from nst_lightning.runs.checkpoint import WholeFiles
from nst_lightning.runs.finding import job_name, was_requeued
from nst_lightning.runs.folder import CONFIGURATION, check_folder, create_run_folder, hold
from nst_lightning.runs.limits import NothingLeftError, reason_of_end
from nst_lightning.runs.overwriting import refuse_inputs

TRAINER_DEFAULTS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": True,
    "enable_model_summary": False,
    "max_epochs": -1,  # the module sets it from its schedule
    "default_root_dir": "runs",
    "log_every_n_steps": 1,  # values are read many at a time, so this costs next to nothing
}

# These write what a run has made, so callbacks that still change it come before them.
_WRITING = (Export, Figure, Snapshots, Record, Signals)

_CONNECTION = re.compile(r"gloo|nccl|connection", re.IGNORECASE)  # who says that another process is gone

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
    ("snapshot_every", int, 50, "Evaluations between numbered pictures in the run folder; 0 writes none."),
    ("checkpoint_every", int, 0, "Evaluations between checkpoints; 0 goes by time."),
    ("checkpoint_seconds", float, 120.0, "Seconds between checkpoints; 0 with checkpoint_every 0 writes none."),
    ("checkpoint_keep", int, 2, "How many checkpoints are kept."),
    ("checkpoint_finished", int, 1, "How many a finished run keeps, to go on with more evaluations; 0 keeps none."),
    (
        "fallback",
        Optional[str],
        None,
        "Folder for the final picture if no other place takes it.",
    ),
    (
        "log",
        log.Kind,
        "auto",
        "How the run speaks on standard error: bar, lines (one every ten seconds), json (an object a line, for "
        "programs), none (warnings and errors alone), or auto: a bar on a terminal, lines elsewhere.",
    ),
    ("ckpt_path", Optional[str], None, "Checkpoint to continue from; last for the newest of the same pictures."),
]


class FitCLI(LightningCLI):
    """Parse and build everything; whatever can be wrong is found here, before a run folder appears.

    Args:
        args: Command line after ``nst fit``.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.resumed: Resumed | None = None
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
        check_settings(expand_presets(args))
        args, self.resumed = resume(args, parser.parse_args)
        self.config = parser.parse_args(args)
        chosen = getattr(self.config.model.optimizer, "class_path", None)
        if chosen not in {None, "nst_lightning.optim.LBFGS"}:
            # jsonargparse hands the default's arguments on to any class that takes them too; Adam shall start from its
            # own learning rate, not from L-BFGS's.
            parser.set_defaults({"model.optimizer": {"class_path": chosen}})
            self.config = parser.parse_args(args)
        cast("OneLineParser", parser).check_nulls(self.config)
        log.choose(self.config.log)
        _plain(self.config)
        seed = self.config.seed_everything  # LightningCLI sets it next
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
            raise UserError(
                f"seed_everything: must be from 0 to {2**32 - 1}, got {seed}; data.seed is that of the noise alone"
            )

    def instantiate_classes(self) -> None:
        """Check settings, cheap ones first, then build model, data and trainer; see LightningCLI."""
        config = self.config
        settings = config.trainer
        count = count_devices(choose_accelerator(settings.accelerator).value, settings.devices)
        self.all_processes = count * settings.num_nodes
        left = check_launcher(self.all_processes, settings.num_nodes)
        if left is not None:
            notice = f"{left} in the environment means another program's processes; unset it"
            warnings.warn(notice, UserNotice, stacklevel=1)
        # How many this one has to start, itself included.
        self.processes = 1 if started_by_another() or settings.strategy != "auto" else count
        goes_on_in = None if self.resumed is None else self.resumed.folder
        root = check_folder(goes_on_in or expand(config.trainer.default_root_dir, "trainer.default_root_dir"))
        check_flags(settings)
        resolved = _without_checkpoint(self.parser.dump(config))
        self.signals = Signals()
        defaults = [
            Announce(),
            Progress(),
            Metrics(),
            Faults(),
            Watch(),
            Export(
                config.output,
                config.bits,
                config.quality,
                {"Configuration": resolved},
                config.fallback,
                config.color_space,
                config.keep_location,
            ),
            Figure(),
            Snapshots(config.snapshot_every),  # whose checkpoints hold what the others know by now
            Record(settings.max_time),
            self.signals,  # after those that keep what an evaluation gave
        ]
        if settings.enable_checkpointing and (config.checkpoint_every or config.checkpoint_seconds):
            kept = config.checkpoint_keep, config.checkpoint_finished
            defaults.append(Checkpoints(config.checkpoint_every, config.checkpoint_seconds, *kept))
        if config.data.content is None and config.model.terms is None:
            raise UserError(
                "data.content: must be given, got nothing; for example --data.content picture.jpg; a texture needs "
                "none: --config texture"
            )
        _check_pictures(config.data)
        # After the configuration was kept: another seed_everything shall reach the noise of a repeated run, too.
        if config.data.seed is None and not isinstance(config.seed_everything, bool):
            config.data.seed = config.seed_everything
        self.config_init = self._instantiate(config)
        self.datamodule, self.model = self.config_init["data"], self.config_init["model"]
        self.model.check(self.datamodule)
        self.datamodule.keep_gamut(check_color_space(config.color_space) != "srgb")
        self._check_parts()
        self.datamodule.setup("fit")
        now = dict(flatten(yaml.safe_load(resolved)))
        self.model.ends_where_stopped = self.resumed is not None and check_resumed(
            self.resumed, now, self.model, self.datamodule
        )
        refuse_inputs(config.output, self.datamodule.request.inputs)
        self._keep_hyperparameters(resolved)
        self._root_is_new = not root.exists()
        names = (self.datamodule.content_path or "texture", self.datamodule.styles[0].path)
        if goes_on_in is not None:
            self.folder = goes_on_in
        else:  # processes that help another one write nothing
            name = "_".join(Path(name).stem for name in names)
            self.folder = create_run_folder(root, name, job_name()) if is_first(self.all_processes) else root
        self._lock()
        if self.resumed is not None:
            self._say_resumed(self.resumed, now)
        self._defaults = defaults

    def _say_resumed(self, resumed: Resumed, now: dict[str, Any]) -> None:
        """Say from where, what is left to do, and what is not as it was."""
        then = resumed.configuration  # nothing, if a program wrote the checkpoint
        now["trainer.precision"] = then.get("trainer.precision", "auto")
        changed = differences(then, now) if then else []
        also = f"; not as then: {', '.join(changed)}" if changed else ""
        at_end = self.model.ends_where_stopped
        what = "the run is at its end; writing what is missing," if at_end else "continuing"
        log.say("resumed", f"{what} from {resumed.path}{also}", path=str(resumed.path))

    def _lock(self) -> None:
        """Keep the folder from other runs; processes that help this one come with it."""
        self._held = hold(self.folder) if is_first(self.all_processes) else None
        if self._held is not None and self.resumed is not None:
            for folder in (self.folder, *(path for path in self.folder.glob("*") if path.is_dir())):
                sweep(folder)

    def release_folder(self) -> None:
        """Let other runs have the folder."""
        if self._held is not None:
            self._held.release()

    def make_trainer(self) -> None:
        """Build the trainer, which joins the other processes, if there are any."""
        try:
            self.trainer = self._build_trainer(self._defaults)
        except BaseException:
            self.discard_folder()
            raise
        if is_first(self.all_processes):
            with only_the_file(self.folder / CONFIGURATION), replacing(self.folder / CONFIGURATION) as file:
                file.write(self.model.configuration.encode())

    def discard_folder(self) -> None:
        """Leave nothing behind of a run that came to nothing."""
        if not is_first(self.all_processes) or (self.resumed is not None and self.resumed.folder is not None):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._root_is_new:
            with contextlib.suppress(OSError):  # another run may have come to live there
                self.folder.parent.rmdir()

    def _instantiate(self, config: Namespace) -> Namespace:
        try:
            built: Namespace = self.parser.instantiate(config)
        except Exception as error:
            raise _line_behind(error) or error from None
        return built

    def _check_parts(self) -> None:
        """Refuse parts of the trainer that cannot do their work here."""
        settings, given = self.config.trainer, self._given("callbacks")
        has_logger = settings.fast_dev_run or settings.logger is None or bool(self._given("logger"))
        check_callbacks(given, has_logger=has_logger)
        check_plugins(self._given("plugins"))
        check_monitors(given, self.model.objective.loss_names)

    def _given(self, name: str) -> list[Any]:
        """What the configuration gives the trainer of a kind, of which there may be several."""
        given = self.config_init["trainer"][name]
        return [] if given is None or given is False else list(given) if isinstance(given, (list, tuple)) else [given]

    def _build_trainer(self, defaults: Sequence[Callback]) -> Trainer:
        settings = dict(self.config_init["trainer"])
        given, plugins = self._given("callbacks"), self._given("plugins")
        # A callback from the configuration takes the place of the default one of its class; any bar that of ours.
        kept = [callback for callback in defaults if not any(isinstance(other, type(callback)) for other in given)]
        leave_out: tuple[type[Callback], ...] = ()
        if settings["enable_progress_bar"] is False or any(isinstance(callback, ProgressBar) for callback in given):
            leave_out += (Progress,)
        if settings["fast_dev_run"]:
            leave_out += (ModelCheckpoint,)
        if settings["barebones"]:  # all that takes time beside the evaluations
            leave_out += (ModelCheckpoint, Announce, Progress, Metrics, Watch, Snapshots, Figure)
            settings.update(log_every_n_steps=None, enable_checkpointing=False)
        callbacks = sorted(
            [*(callback for callback in kept if not isinstance(callback, leave_out)), *given],
            key=lambda callback: isinstance(callback, _WRITING),
        )
        if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
            settings["enable_checkpointing"] = False  # or Lightning adds one of its own
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, WholeFiles()]
        settings.update(callbacks=callbacks, default_root_dir=str(self.folder), plugins=plugins)
        try:
            trainer = StyleTrainer(**settings)
        except Exception as error:
            raise complaint(error) or error from None
        if self.all_processes == 1:
            # Lightning asks the environment, which may speak of other processes.
            cast("Any", rank_zero_only).rank = 0
        return trainer

    def _keep_hyperparameters(self, resolved: str) -> None:
        """Put the model's configuration into its checkpoints as data; `load_from_checkpoint` rebuilds it from there."""
        # Paths stay as they were typed: whoever moves the folder along with its pictures finds them.
        self.model.configuration = yaml.safe_dump({PATHS_FROM: str(Path.cwd())}, allow_unicode=True) + resolved
        model = in_folder(yaml.safe_load(resolved)["model"], Path.cwd())
        self.model.save_hyperparameters({**model, "_instantiator": "lightning.pytorch.cli.instantiate_module"})


def _without_checkpoint(resolved: str) -> str:
    """A configuration that repeats the run from its start."""
    return re.sub(r"^ckpt_path: .*$", "ckpt_path: null", resolved, flags=re.MULTILINE)


def _check_pictures(config: Namespace) -> None:
    """Find a missing picture before the model loads (or fetches) its weights, which jsonargparse would build first."""
    StyleTransferData(**config.clone(with_meta=False).as_dict())


def _line_behind(error: BaseException | None) -> UserError | None:
    """What made a class fail, in one line; jsonargparse reports it amid all the types that it tried."""
    seen, text = set[int](), str(error)
    while error is not None and id(error) not in seen:
        line = error if isinstance(error, UserError) else complaint(error)
        if line is not None:
            return line
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return complaint_in(text)


def _plain(tree: Any) -> Any:
    """A configuration with enumerations' names as the text they are, which jsonargparse can write."""
    if isinstance(tree, Namespace):
        for key, value in vars(tree).items():
            setattr(tree, key, _plain(value))
    elif isinstance(tree, list):
        tree[:] = map(_plain, tree)
    return str(tree.value) if isinstance(tree, Enum) and isinstance(tree, str) else tree


def main(args: Sequence[str]) -> int:
    """Run ``nst fit``.

    Args:
        args: Command line after the subcommand.

    Returns:
        The exit code.

    Raises:
        UserError: If something asked for cannot be done.
        KeyboardInterrupt: After Ctrl-C, when everything is written.
        SystemExit: After SIGTERM, likewise.
    """
    if owns_process():  # what the C library is told cannot be asked for, so not be put back
        keep_freed_memory()
        return _fit(args)
    try:
        return _fit(args)
    finally:
        gc.collect()  # trainer and model know each other, and nobody else knows them
        hand_back_freed_memory()


def _fit(args: Sequence[str]) -> int:
    """Do it, in a process that is afterwards as it was."""
    with process_as_before(), lightning_quiet(), contextlib.ExitStack() as stack:
        warnings.simplefilter("always", UserNotice)
        warnings.showwarning = _show_warning
        try:
            cli = FitCLI(args)
        except NothingLeftError:
            if not was_requeued() or mentions(expand_presets(args), "ckpt_path"):
                raise
            # The script of a job that makes several pictures begins anew with its first one.
            log.say("finished", "this job has made the picture before it was requeued, so nothing is left to do")
            return 0
        stack.enter_context(log.only_events())
        threads = max(1, torch.get_num_threads() // cli.processes)
        try:
            with Workers(["fit", *args], cli.processes, threads) as workers:
                return _run(cli, workers)
        finally:
            cli.release_folder()


def _run(cli: FitCLI, workers: Workers) -> int:
    """Make the picture; returns the exit code."""
    cli.make_trainer()
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.config.ckpt_path)
    except (KeyboardInterrupt, SystemExit):  # a signal; what there was to write is written
        if cli.trainer.global_step:
            _say_why_it_ended(cli)
        else:
            cli.discard_folder()
        raise
    except Exception as error:
        if not isinstance(error, UserError) and is_out_of_memory(error):
            reason = " ".join(str(error).split())[:150]
            raise UserError(f"memory: ran out ({reason}); set model.tile or model.memory, or data.size lower") from None
        line = error if isinstance(error, UserError) else complaint(error)
        several = cli.trainer.world_size > 1 and isinstance(error, RuntimeError)
        if several and _CONNECTION.search(str(error)):  # Lightning waits for the others, too: no complaint of its own
            line = None
        if not cli.trainer.global_step:  # nothing was made that could be kept
            cli.discard_folder()
        if line is not None:
            raise line from None
        if not several:
            raise
        reason = workers.failure() or "the connection to another process was lost: " + str(error).split("\n")[0][:150]
        raise UserError(
            f"trainer.devices: {reason}; stopped at evaluation {cli.trainer.global_step}, what was written is whole"
        ) from None
    _say_why_it_ended(cli)
    return 0


def _say_why_it_ended(cli: FitCLI) -> None:
    """One line, if it was before the last evaluation."""
    trainer, evaluations = cli.trainer, [stage.evaluations for stage in cli.model.stages]
    reason = reason_of_end(trainer, evaluations, cli.signals.received, cli.config.trainer.max_time)
    if reason is None or not trainer.is_global_zero:
        return
    root = cli.config.trainer.default_root_dir
    where = "" if root == TRAINER_DEFAULTS["default_root_dir"] else f" --trainer.default_root_dir {root}"
    kept = trainer.checkpoint_callback is not None
    advice = f"go on with --ckpt_path last{where}" if kept else "no checkpoint was to be kept"
    done = f"{trainer.global_step} of {sum(evaluations)} evaluations"
    log.say("stopped", f"stopped by {reason} after {done}; {advice}", reason=reason, evaluations=trainer.global_step)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    log.say("warning", " ".join(str(message).split()))
