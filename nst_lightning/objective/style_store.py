"""Targets of styles that were made before, for the next run with the same style at the same size."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.targets import StyleTargets


class StyleStore:
    """Targets by the very pixels that they were made from, so that nothing has to be said about where those are from.

    Those that were not asked for the longest time are forgotten first. It may be used by several threads as long as
    they work with networks of their own.

    Args:
        limit: Bytes that the targets may take in all.
    """

    def __init__(self, limit: int = 1 << 28) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, tuple[StyleTargets, int]] = OrderedDict()
        self.hits = 0  # how often targets were there already

    def targets(self, evaluator: Evaluator, styles: Iterable[tuple[Tensor, float]], terms: Hashable) -> StyleTargets:
        """Targets of styles without masks, as `Evaluator.style_targets` makes them.

        Args:
            evaluator: With the objective, the network and the tiles of the run.
            styles: Pairs of a picture, (1, 3, h, w), RGB in [0, 1], and its share.
            terms: What tells the objective's terms, and the type that the network computes in, from others.
        """
        given = list(styles)
        # With other threads sums may have other last bits.
        how = (terms, id(evaluator.extractor), evaluator.tile, torch.get_num_threads())
        key = (
            how,
            tuple((_digest(picture), tuple(picture.shape), str(picture.device), share) for picture, share in given),
        )
        if key in self._held:
            self.hits += 1
            self._held.move_to_end(key)
            return self._held[key][0]
        made = evaluator.style_targets(given)
        self._held[key] = made, sum(tensor.nbytes for tensor in _tensors(made))
        while len(self._held) > 1 and sum(size for _, size in self._held.values()) > self._limit:
            self._held.popitem(last=False)
        return made


def _digest(picture: Tensor) -> str:
    return hashlib.sha256(picture.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
