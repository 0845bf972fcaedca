"""What a picture would take, said before anything is started."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from typing import Any

from nst_lightning.errors import UserError
from nst_lightning.session import Session
from nst_lightning.studio.asked import Asked
from nst_lightning.studio.configuration import published
from nst_lightning.studio.limits import Limits
from nst_lightning.studio.recipe import arguments, check_asked, command, names_of, plain_words
from nst_lightning.studio.refusals import RefusedError
from nst_lightning.studio.uploads import Uploads
from nst_lightning.studio.workshop import device_words

_KEPT = 64


class Estimator:
    """Foretells pictures by networks of its own, which no run is using.

    Args:
        uploads: What they are made of.
        limits: What is made here.
        device: Where.
    """

    def __init__(self, uploads: Uploads, limits: Limits, device: str) -> None:
        self._uploads, self._limits, self._device = uploads, limits, device
        self._session = Session()
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, bool], dict[str, Any]] = OrderedDict()

    def plan(self, asked: Asked, more: tuple[str, ...] = (), *, measured: bool = True) -> dict[str, Any]:
        """Device, size, evaluations, time, memory, settings and command of a picture.

        Args:
            asked: What is asked for.
            more: Options that follow.
            measured: Whether to find out the time it takes, which takes a moment itself.

        Raises:
            UserError: If it cannot be made.
        """
        check_asked(asked, self._uploads, self._limits)
        key = json.dumps([asked.model_dump(), more], sort_keys=True), measured
        with self._lock:
            if key not in self._known:
                self._known[key] = self._plan(asked, more, measured=measured)
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]

    def _plan(self, asked: Asked, more: tuple[str, ...], *, measured: bool) -> dict[str, Any]:
        words = [*arguments(asked, lambda image: str(self._uploads.path(image))), *more, *device_words(self._device)]
        chosen: list[str] = []
        try:
            if asked.seconds is not None and measured:
                chosen = self._session.within(words, asked.seconds, time.perf_counter(), self._limits.max_size)
            found = self._session.forecast([*words, *chosen], measured=measured)
        except UserError as error:
            raise RefusedError(self._plain(str(error))) from None
        if found.width * found.height > self._limits.megapixels * 1e6:
            raise RefusedError(
                f"size: must give at most {self._limits.megapixels:g} megapixels, got {found.width}x{found.height} px; "
                "choose a smaller one"
            )
        names = names_of(asked, self._uploads)
        return {
            "accelerator": found.accelerator,
            "device": found.device,
            "precision": found.precision,
            "width": found.width,
            "height": found.height,
            "evaluations": sum(found.evaluations),
            "stages": list(found.evaluations),
            "seconds": None if found.seconds is None else round(found.seconds, 2),
            "bytes": found.memory,
            "configuration": published(found.configuration, asked, names),
            "command": command(asked, names, [*plain_words(more), *chosen]),
        }

    def _plain(self, line: str) -> str:
        """A line without the server's folders."""
        return line.replace(f"{self._uploads.folder}/", "")
