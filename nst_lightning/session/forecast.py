"""What a run will make and take, said before anything of it is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from nst_lightning.config.build import build_data, build_model
from nst_lightning.config.networks import Networks
from nst_lightning.config.options import FitCLI
from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.engine.stages import plan_for
from nst_lightning.hardware.accelerator import (
    choose_accelerator,
    choose_precision,
    compute_dtype,
    describe,
    first_device,
)
from nst_lightning.hardware.memory import free_within, resident_memory


@dataclass(frozen=True)
class Forecast:
    """What a run will make and take.

    Attributes:
        accelerator: The kind of device.
        device: As its maker calls it.
        precision: As Lightning calls it.
        width: Of the picture in pixels.
        height: Likewise.
        evaluations: Of each stage.
        seconds: About how long they will take; None if that was not measured.
        memory: Bytes that the process will have taken at its peak; 0 if that is not known.
        configuration: The settings in YAML.
    """

    accelerator: str
    device: str
    precision: str
    width: int
    height: int
    evaluations: tuple[int, ...]
    seconds: float | None
    memory: int
    configuration: str = field(repr=False)


@dataclass(frozen=True)
class Draft:
    """A run that is checked and will not be made."""

    data: StyleTransferData
    model: StyleTransfer
    settings: dict[str, Any]  # the trainer's
    configuration: str
    memory: float | None  # GiB that the process may take

    @classmethod
    def of(
        cls, args: Sequence[str], networks: Networks | None = None, parsers: list[LightningArgumentParser] | None = None
    ) -> Draft:
        """Check a command line and its pictures.

        Args:
            args: What comes after ``nst fit``.
            networks: Built before.
            parsers: That have done their work.

        Raises:
            UserError: With what is wrong.
        """
        cli = FitCLI(args, parsers)
        configuration = str(cli.parser.dump(cli.config))
        data = build_data(cli.config)
        model, settings = build_model(cli, networks)
        memory = cli.config.model.memory
        cli.give_back_parser()
        model.check(data)
        return cls(data, model, settings, configuration, memory)

    def forecast(self, *, measured: bool) -> Forecast:
        """What it would take.

        Raises:
            UserError: If the device is not there, or a stage does not fit.
        """
        kind = choose_accelerator(self.settings["accelerator"]).value
        device = torch.device(first_device(kind, self.settings["devices"]))
        hardware = describe(device)
        precision = choose_precision(self.settings["precision"], hardware).value
        resident, free = resident_memory(device), free_within(self.memory, device)
        for network in {self.model.extractor_of(stage) for stage in self.model.stages}:
            network.set_compute_dtype(compute_dtype(precision))
        planner = plan_for(self.model, self.data, free, resident, device=device)
        height, width = self.data.stage_size()
        return Forecast(
            hardware.accelerator,
            hardware.name,
            precision,
            width,
            height,
            tuple(stage.evaluations for stage in self.model.stages),
            planner.seconds(device) if measured else None,
            planner.memory(),
            self.configuration,
        )
