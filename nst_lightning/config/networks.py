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
        for holder, asked in _asked(model):
            if (built := self._built.get(_key(asked))) is not None:
                holder.extractor = built

    def remember(self, asked: Namespace, built: Namespace) -> None:
        """Keep the networks among a model's arguments that were built as they were asked for."""
        for (_, configuration), (_, network) in zip(_asked(asked), _asked(built), strict=True):
            if network is not None and isinstance(configuration, Namespace):
                self._built[_key(configuration)] = network


def _asked(model: Namespace) -> Iterator[tuple[Any, Any]]:
    """What holds a network, and what it asks for: the model, then each of its stages."""
    for holder in [model, *(model.stages or [])]:
        yield holder, holder.extractor


def _key(asked: Namespace | None) -> str:
    return yaml.safe_dump(asked.as_dict()) if isinstance(asked, Namespace) else ""
