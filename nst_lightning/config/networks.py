"""Networks that several runs of a program use one after the other, each built once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import Namespace

from nst_lightning.features import Extractor


class Networks:
    """Networks by their configuration."""

    def __init__(self) -> None:
        self._built: dict[str, Extractor] = {}

    def put_into(self, model: Namespace) -> None:
        """Put networks that were built before in the places of their configuration."""
        for holder, name in _places(model):
            if (built := self._built.get(_key(getattr(holder, name)))) is not None:
                setattr(holder, name, built)

    def remember(self, asked: Namespace, built: Namespace) -> None:
        """Keep the networks among a model's arguments that were built as they were asked for."""
        for (holder, name), (made, _) in zip(_places(asked), _places(built), strict=True):
            configuration, network = getattr(holder, name), getattr(made, name)
            if network is not None and isinstance(configuration, Namespace):
                self._built[_key(configuration)] = network


def _places(model: Namespace) -> Iterator[tuple[Any, str]]:
    """What may hold a network, and its name there: the model two, then each of its stages."""
    yield from ((model, "extractor"), (model, "draft"))
    for stage in model.stages or []:
        yield stage, "extractor"


def _key(asked: Namespace | None) -> str:
    return yaml.safe_dump(asked.as_dict()) if isinstance(asked, Namespace) else ""
