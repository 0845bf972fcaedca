"""The best picture in a given time: how many evaluations, and at which size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from nst_lightning.config.build import build_data, build_model
from nst_lightning.config.networks import Networks
from nst_lightning.config.options import FitCLI
from nst_lightning.config.presets import options_in
from nst_lightning.data.module import StyleTransferData
from nst_lightning.data.schedule import Stage
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError, notice
from nst_lightning.features import Extractor
from nst_lightning.hardware.accelerator import (
    choose_accelerator,
    choose_precision,
    compute_dtype,
    describe,
    first_device,
)
from nst_lightning.planning.duration import Speed, seconds_of_evaluation, seconds_of_picture_terms, speed_of
from nst_lightning.planning.picture_terms import picture_speed

_SIZE, _COUNT = "--data.size", "--model.evaluations"
LARGEST = 2048  # pixels of a side that is chosen
_SIZES = (LARGEST, 1536, 1024, 768, 512, 384, 256)  # pixels that are tried, where none are asked for
_ENOUGH = 0.8  # of a preset's evaluations: from there on a larger picture is the better use of time
_MOST = 4.0  # times a preset's evaluations; more would not show
_START = 0.6  # seconds for reading the pictures and writing the result
_LEAST = 12  # evaluations of a picture, however long they take
_TARGETS = 2.0  # evaluations that the targets of a stage take about as long as


def within(
    args: Sequence[str], asked: float, passed: float, networks: Networks | None = None, largest: int = LARGEST
) -> list[str]:
    """Options that make a run take about as long as it may.

    Unless the command line says a size itself, by an option and not in a file, it is chosen, too: the largest that has
    time for most of the preset's evaluations.

    Args:
        args: The command line after ``nst fit``.
        asked: Seconds from the beginning to the picture.
        passed: Seconds of them that have passed.
        networks: Built before.
        largest: Pixels of the side that a size is of, which one that is chosen does not exceed, however much time there
            is, unless it is the smallest that is tried.

    Returns:
        Options to add.

    Raises:
        UserError: If the time is none, or the command line is wrong.
    """
    if not asked > 0:
        raise UserError(f"seconds: must be above 0, got {asked:g}; 30 is a good start")
    count = next((value for flag, value in options_in(args) if flag == _COUNT and value != "null"), None)
    if count is not None:
        raise UserError(
            f"seconds: must be left out where the evaluations are given, got {asked:g} and {count}; choose one"
        )
    cli = FitCLI(args)
    model, settings = build_model(cli, networks)
    costs_of = _Costs(model, settings)
    data = build_data(cli.config)
    own = data.request.size
    any_size = not any(word.partition("=")[0] == _SIZE for word in args)
    for size in [side for side in _SIZES if side <= max(largest, _SIZES[-1])] if any_size else [own]:
        stages = _stages(model, data, size)
        costs = [costs_of.evaluation(stage, data.request.stage_size(stage.scale)) for stage in stages]
        planned = sum(stage.evaluations * cost for stage, cost in zip(stages, costs, strict=True))
        left = asked - passed - _START - _TARGETS * sum(costs)
        factor = min(_MOST, left / planned)
        if factor >= _ENOUGH or size == (_SIZES[-1] if any_size else own):
            break
    if factor * planned < _LEAST * (planned / sum(stage.evaluations for stage in stages)):
        factor = _LEAST / sum(stage.evaluations for stage in stages)
        notice(f"seconds: {asked:g} are few for this machine; {_LEAST} evaluations at {size} px take longer")
    return [f"{_SIZE}={size}", *_length(cli, stages, factor)]


class _Costs:
    """Seconds of evaluations, from a look at each network and at the terms that need none, once."""

    def __init__(self, model: StyleTransfer, settings: Mapping[str, Any]) -> None:
        self._model = model
        self._speeds: dict[Extractor, Speed] = {}
        self._pictures: Speed | None = None
        kind = choose_accelerator(settings["accelerator"]).value
        self._device = torch.device(first_device(kind, settings["devices"]))
        self._dtype = compute_dtype(choose_precision(settings["precision"], describe(self._device)).value)

    def evaluation(self, stage: Stage, size: tuple[int, int]) -> float:
        """Of one in a stage whose image has a height and a width."""
        network, objective, device = self._model.extractor_of(stage), self._model.objective, self._device
        pixels = size[0] * size[1]
        if network not in self._speeds:
            network.set_compute_dtype(self._dtype)
            self._speeds[network] = speed_of(network.to(device), objective.layers, device, pixels)
        if self._pictures is None:
            self._pictures = picture_speed(objective, network, device)
        return seconds_of_evaluation(self._speeds[network], pixels) + seconds_of_picture_terms(self._pictures, pixels)


def _stages(model: StyleTransfer, data: StyleTransferData, size: int) -> list[Stage]:
    """The stages of a run at a size."""
    data.request = replace(data.request, size=size)
    model.check(data)
    return model.stages


def _length(cli: FitCLI, stages: Sequence[Stage], factor: float) -> list[str]:
    lengths = [max(1, round(stage.evaluations * factor)) for stage in stages]
    if cli.config.model.stages or len(stages) == 1:
        return [f"--model.evaluations={sum(lengths)}"]
    told: list[dict[str, Any]] = [
        {"evaluations": length, "scale": stage.scale} for stage, length in zip(stages, lengths, strict=True)
    ]
    for settings, stage in zip(told, stages, strict=True):
        if stage.extractor is not None:  # the draft
            settings["extractor"] = cli.config.model.draft.as_dict()
    return [f"--model.stages={json.dumps(told)}", "--model.evaluations=null"]
