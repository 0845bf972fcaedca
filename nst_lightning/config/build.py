"""The one way from options to request, model, folder and trainer, for every face of the program.

Whatever can be wrong is found here, the cheap first, before a run folder appears.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from filelock import BaseFileLock
from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser

from nst_lightning.config.networks import Networks
from nst_lightning.config.options import FitCLI
from nst_lightning.config.parts import check_parts, default_callbacks, trainer_arguments
from nst_lightning.config.resume import Resumed, check_resumed, compares_anew, flatten, say_resumed
from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.complaints import complaint, complaint_in
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.engine.refusals import check_flags
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.errors import UserError, notice
from nst_lightning.files.atomic import replacing, sweep
from nst_lightning.files.folders import make_folder
from nst_lightning.files.lenient import only_the_file
from nst_lightning.files.paths import PATHS_FROM, expand, in_folder
from nst_lightning.files.yaml_text import load_yaml
from nst_lightning.hardware.accelerator import choose_accelerator, count_devices
from nst_lightning.images.io import check_sides
from nst_lightning.images.profiles import check_color_space
from nst_lightning.process.launched import launched
from nst_lightning.process.world import check_launcher, is_first, started_by_another
from nst_lightning.runs.finding import job_name
from nst_lightning.runs.folder import CONFIGURATION, check_folder, create_run_folder, hold
from nst_lightning.runs.overwriting import refuse_inputs


@dataclass(frozen=True)
class Surroundings:
    """What a program that makes pictures gives a run, or spares it; the command ``nst fit`` gives nothing."""

    networks: Networks | None = None  # built before
    callbacks: Sequence[Callback] = ()  # beside the command's own
    only: tuple[type[Callback], ...] = (Callback,)  # those of the command's own that are wanted
    folder: Path | None = None  # the run's, in place of one below trainer.default_root_dir
    parsers: list[LightningArgumentParser] | None = None  # that have done their work, for the next command line


_NOTHING = Surroundings()


@dataclass
class Job:
    """A run that is ready to begin: all of it is checked, and its folder is there."""

    config: Namespace  # the whole configuration
    resumed: Resumed | None  # what is continued, if anything is
    data: StyleTransferData  # the request and its pictures
    model: StyleTransfer  # the module
    settings: dict[str, Any]  # the trainer's arguments as they are asked for
    callbacks: list[Callback]  # those that the command brings along
    processes: int  # how many this process has to start, itself included
    all_processes: int  # how many take part on all machines
    folder: Path  # the run's
    root_is_new: bool  # whether the folder of runs was made for it
    lock: BaseFileLock | None = None  # what keeps the folder from other runs; processes that help this one come with it
    trainer: StyleTrainer = field(init=False)

    def make_trainer(self) -> None:
        """Build the trainer, which joins the other processes, if there are any.

        Raises:
            UserError: If Lightning refuses one of its arguments.
        """
        arguments = trainer_arguments(self.settings, self.callbacks)
        try:
            self.trainer = StyleTrainer(**{**arguments, "default_root_dir": str(self.folder)})
        except BaseException as error:
            self.discard_folder()
            raise complaint(error) or error from None
        if self.all_processes == 1:
            # Lightning asks the environment, which may speak of other processes.
            cast("Any", rank_zero_only).rank = 0
        if is_first(self.all_processes):
            with only_the_file(self.folder / CONFIGURATION), replacing(self.folder / CONFIGURATION) as file:
                file.write(self.model.configuration.encode())

    def discard_folder(self) -> None:
        """Leave nothing behind of a run that came to nothing."""
        goes_on = self.resumed is not None and self.resumed.folder is not None
        if goes_on or not is_first(self.all_processes) or launched() is not None:  # then who launched it does so
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.root_is_new:
            with contextlib.suppress(OSError):  # another run may have come to live there
                self.folder.parent.rmdir()

    def let_go(self) -> None:
        """Keep the folder and its lock, for processes that build all the rest themselves."""
        del self.data, self.model, self.settings, self.callbacks

    def release_folder(self) -> None:
        """Let other runs have the folder."""
        if self.lock is not None:
            self.lock.release()


def build(args: Sequence[str], given: Surroundings = _NOTHING) -> Job:
    """Check what the command line after ``nst fit`` asks for, and build all but the trainer.

    Raises:
        UserError: With whatever is wrong.
    """
    launch = launched()
    cli = FitCLI(args if launch is None else launch.arguments(args), given.parsers)
    config, resumed = cli.config, cli.resumed
    processes, all_processes = _count_processes(config.trainer)
    goes_on_in = given.folder if resumed is None else resumed.folder
    goes_on_in = goes_on_in if launch is None else launch.start.folder
    root = check_folder(goes_on_in or expand(config.trainer.default_root_dir, "trainer.default_root_dir"))
    check_flags(config.trainer)
    # A configuration that repeats the run from its start.
    resolved = re.sub(r"^ckpt_path: .*$", "ckpt_path: null", cli.parser.dump(config), flags=re.MULTILINE)
    callbacks = [own for own in default_callbacks(config, resolved) if isinstance(own, given.only)]
    data = build_data(config)
    if config.output:
        check_sides(expand(config.output, "output"), data.stage_size(), config.bits)
    model, settings = build_model(cli, given.networks)
    cli.give_back_parser()
    data.keep_gamut(check_color_space(config.color_space) != "srgb")
    model.check(data)
    check_parts(settings, model.objective.loss_names)
    data.setup("fit")
    kept = load_yaml(resolved)
    now = dict(flatten(kept))
    model.ends_where_stopped = resumed is not None and check_resumed(resumed, now, model, data)
    model.compares_anew = resumed is not None and compares_anew(resumed, now)
    refuse_inputs(config.output, data.request.inputs)
    _keep_hyperparameters(model, resolved, kept)
    root_is_new = not root.exists()
    folder = _run_folder(root, data, all_processes) if goes_on_in is None else make_folder(goes_on_in)
    callbacks += given.callbacks
    job = Job(config, resumed, data, model, settings, callbacks, processes, all_processes, folder, root_is_new)
    _lock(job)
    if resumed is not None and launch is None:
        say_resumed(resumed, now, at_end=model.ends_where_stopped)
    return job


def _run_folder(root: Path, data: StyleTransferData, processes: int) -> Path:
    """Make a folder for a run, named after its pictures."""
    if not is_first(processes):
        return root  # of those that help and write nothing
    pictures = (data.request.content or "texture", data.request.styles[0].path)
    return create_run_folder(root, "_".join(Path(name).stem for name in pictures), job_name())


def _count_processes(settings: Namespace) -> tuple[int, int]:
    """How many processes this one has to start, itself included, and how many take part on all machines."""
    count = count_devices(choose_accelerator(settings.accelerator).value, settings.devices)
    left = check_launcher(count * settings.num_nodes, settings.num_nodes)
    if left is not None:
        notice(f"{left} in the environment means another program's processes; unset it", stacklevel=1)
    return 1 if started_by_another() or settings.strategy != "auto" else count, count * settings.num_nodes


def build_data(config: Namespace) -> StyleTransferData:
    """Find a missing picture before the model loads (or fetches) its weights."""
    if config.data.content is None and config.model.terms is None:
        raise UserError(
            "data.content: must be given, got nothing; for example --data.content picture.jpg; a texture needs "
            "none: --config texture"
        )
    options = config.data.clone(with_meta=False).as_dict()
    # Not in the configuration that is kept: another seed_everything shall reach the noise of a repeated run, too.
    if options["seed"] is None and not isinstance(config.seed_everything, bool):
        options["seed"] = config.seed_everything
    return StyleTransferData(**options)


def build_model(cli: FitCLI, networks: Networks | None) -> tuple[StyleTransfer, dict[str, Any]]:
    """The model, and the trainer's arguments with the objects that the configuration names."""
    asked = cli.config.clone() if networks is not None else cli.config
    if networks is not None:
        networks.put_into(asked.model)
    try:
        parts = cli.parser.instantiate(asked, instantiate_groups=False)
        model = StyleTransfer(**parts.model)
    except Exception as error:
        raise _line_behind(error) or error from None
    if networks is not None:
        networks.remember(cli.config.model, parts.model)
    return model, dict(parts.trainer)


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


def _keep_hyperparameters(model: StyleTransfer, resolved: str, kept: dict[str, Any]) -> None:
    """Put the model's configuration into its checkpoints as data; `load_from_checkpoint` rebuilds it from there."""
    # Paths stay as they were typed: whoever moves the folder along with its pictures finds them.
    model.configuration = yaml.safe_dump({PATHS_FROM: str(Path.cwd())}, allow_unicode=True) + resolved
    own = in_folder(kept["model"], Path.cwd())
    model.save_hyperparameters({**own, "_instantiator": "lightning.pytorch.cli.instantiate_module"})


def _lock(job: Job) -> None:
    """Keep the folder from other runs, and remove what a process that was killed has left unfinished there."""
    if not is_first(job.all_processes):
        return
    given = launched()
    if given is None:
        job.lock = hold(job.folder)  # else it is with the process that launched this one
    if given is not None or job.resumed is not None:
        for folder in (job.folder, *(path for path in job.folder.glob("*") if path.is_dir())):
            sweep(folder)
