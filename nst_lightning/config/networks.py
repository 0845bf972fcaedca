"""Networks that several runs of a program use one after the other, each built once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import Namespace

from nst_lightning.engine.module import StyleTransfer
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

    def remember(self, asked: Namespace, model: StyleTransfer) -> None:
        """Keep the networks of a model that was built as it was asked for."""
        built = [stage.extractor for stage in model.asked_stages or []]
        for (_, configuration), network in zip(_asked(asked), [model.extractor, *built], strict=True):
            if network is not None and isinstance(configuration, Namespace):
                self._built[_key(configuration)] = network


def _asked(model: Namespace) -> Iterator[tuple[Any, Any]]:
    """What holds a network, and what it asks for: the model, then each of its stages."""
    for holder in [model, *(model.stages or [])]:
        yield holder, holder.extractor


def _key(asked: Namespace | None) -> str:
    return yaml.safe_dump(asked.as_dict()) if isinstance(asked, Namespace) else ""
