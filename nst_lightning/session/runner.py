"""Runs one after the other in a program's own process, with what they have in common kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.cli import LightningArgumentParser

from nst_lightning.callbacks.export import picture_settings
from nst_lightning.config.build import Job, Surroundings, build
from nst_lightning.config.networks import Networks
from nst_lightning.config.options import FitCLI
from nst_lightning.config.running import run, unheard
from nst_lightning.errors import UserError
from nst_lightning.hardware.accelerator import choose_accelerator, first_device
from nst_lightning.objective.style_store import StyleStore
from nst_lightning.process.turns import Together, turn_on
from nst_lightning.session.budget import LARGEST, within
from nst_lightning.session.forecast import Draft, Forecast
from nst_lightning.session.result import Outcome

_surroundings = Together(unheard)
_building = threading.Lock()  # parsers and seeds are the process's own


class Runner:
    """Makes the pictures of command lines.

    Args:
        keep: Whether to keep networks, targets of styles and a parser for the next picture.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._networks = Networks() if keep else None
        self._styles = StyleStore() if keep else None
        self._parsers: list[LightningArgumentParser] | None = [] if keep else None

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
        given = Surroundings(self._networks, callbacks, only, folder, self._parsers)
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
                with turn_on(first_device(kind, job.config.trainer.devices)):
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
            cli = FitCLI(args, self._parsers)
            configuration = str(cli.parser.dump(cli.config))
            cli.give_back_parser()
            return configuration

    def within(self, args: Sequence[str], seconds: float, begin: float, largest: int = LARGEST) -> list[str]:
        """Options that make a run end about so many seconds after a moment of `time.perf_counter`; see `budget`."""
        with _surroundings, _building:
            return within(args, seconds, time.perf_counter() - begin, self._networks, largest)

    def forecast(self, args: Sequence[str], *, measured: bool = True) -> Forecast:
        """What a run of a command line would make and take; nothing of it is begun.

        Args:
            args: What comes after ``nst fit``.
            measured: Whether to find out how long it would take, by a few small evaluations on the device.

        Raises:
            UserError: As `run` would before the first evaluation.
        """
        with _surroundings:
            with _building:
                draft = Draft.of(args, self._networks, self._parsers)
            return draft.forecast(measured=measured)
