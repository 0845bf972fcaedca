"""One Trainer for several pictures: each fit begins from its beginning.

Lightning lets a second fit go on where the first one ended. For an image that would be no evaluation at all, without a
word, since the first fit has reached its last stage.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from nst_lightning.engine import compat


@dataclass
class _Fits:
    """What is known of a trainer's fits: limits as they were asked for and as the latest fit left them, its folders."""

    asked: dict[str, Any]
    left: dict[str, Any]
    root: str
    folders: int
    latest: tuple[ReferenceType[LightningModule], ReferenceType[LightningDataModule] | None]


_fits: WeakKeyDictionary[Trainer, _Fits] = WeakKeyDictionary()
_at_first: WeakKeyDictionary[Callback, dict[str, Any]] = WeakKeyDictionary()


def begin_anew(trainer: Trainer, module: LightningModule) -> None:
    """Let a fit find trainer and callbacks as the trainer's first one did; to be called before callbacks' ``setup``.

    Steps and stages are counted from 0, and limits (``max_steps``, ``max_epochs``) count for each fit. A fit of another
    model or of other pictures has a folder of its own, ``fit_002`` and so on in the trainer's; what continues from a
    checkpoint takes its counts from there, afterwards.
    """
    data = getattr(trainer, "datamodule", None)
    latest = ref(module), None if data is None else ref(data)
    known = _fits.get(trainer)
    if known is None:
        limits = _limits(trainer)
        known = _fits[trainer] = _Fits(limits, limits, trainer.default_root_dir, 1, latest)
    else:
        for name, now in _limits(trainer).items():
            if now != known.left[name]:  # set between the fits
                known.asked[name] = now
        if latest != known.latest:
            known.folders += 1
            compat.set_root(trainer, Path(known.root) / f"fit_{known.folders:03d}")
    known.latest = latest
    if trainer.fit_loop.epoch_progress.total.ready or known.asked != _limits(trainer):
        compat.renew_loops(trainer, known.asked)
    known.left = _limits(trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        _forget_run(callback)


def limit_epochs(trainer: Trainer, epochs: int) -> None:
    """Make as many epochs as there are stages the most, for this fit."""
    asked = trainer.fit_loop.max_epochs
    if asked is None or not 0 <= asked <= epochs:
        trainer.fit_loop.max_epochs = epochs
    if trainer in _fits:
        _fits[trainer].left = _limits(trainer)


def _limits(trainer: Trainer) -> dict[str, Any]:
    loop = trainer.fit_loop
    return {
        "min_epochs": loop.min_epochs,
        "max_epochs": loop.max_epochs,
        "min_steps": loop.min_steps,
        "max_steps": loop.max_steps,
    }


def _forget_run(callback: Callback) -> None:
    names = [name for kind, found in compat.OF_A_RUN.items() if isinstance(callback, kind) for name in found]
    if not names:
        return
    state = vars(callback)
    if callback not in _at_first:
        _at_first[callback] = {name: copy.deepcopy(state[name]) for name in names if name in state}
    else:
        state.update(copy.deepcopy(_at_first[callback]))
