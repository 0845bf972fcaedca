"""One device of a Ray cluster: a session in a process of its own, which is sent parcels and sends pictures back."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from nst_lightning import __version__
from nst_lightning.callbacks import Export, Faults, Feedback, Update, Watch
from nst_lightning.errors import UserError
from nst_lightning.faces import check_weights
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.gallery.engine import Made, Step, made_of
from nst_lightning.gallery.parcels import Parcel, digest_of_weights, unpack
from nst_lightning.gallery.shift import Failure, Told, notices_to
from nst_lightning.hardware.accelerator import choose_accelerator, describe
from nst_lightning.session import Session

_NEEDED = (Faults, Watch, Export)  # of a run's own callbacks: the rest speaks, or fills a folder that is removed
_SECONDS = 0.5  # between two steps that are told of, at least


def _without_faces() -> str:
    """Why no faces can be found here; empty where they can."""
    try:
        check_weights()
    except UserError as error:
        return str(error)
    return ""


class Worker:
    """Makes pictures from parcels.

    Args:
        cores: Of the processor; there are never more threads.
        weights: Value that ``NST_VGG19_WEIGHTS`` has where the gallery is, for a machine that has none of its own.
        fetch: Gives a file's bytes for what stands for them in a parcel.
    """

    def __init__(self, cores: int, weights: str | None, fetch: Callable[[Any], bytes]) -> None:
        self._threads = max(1, min(cores, torch.get_num_threads()))
        torch.set_num_threads(self._threads)
        self._fetch = fetch
        self._session = Session()
        self._places: dict[str, str] = {}  # what a file of the picture under way is called where the gallery is
        if weights and ENVIRONMENT_VARIABLE not in os.environ and Path(weights).is_file():
            os.environ[ENVIRONMENT_VARIABLE] = weights

    def facts(self, weights: Iterable[str | None], *, faces: bool = False) -> dict[str, Any]:
        """What decides whether its pictures are those of another machine.

        Args:
            weights: Files of weights that will be needed; None for those that the machine finds by itself.
            faces: Whether faces will be looked for.
        """
        return {
            "host": socket.gethostname(),
            "nst_lightning": __version__,
            "torch": torch.__version__,
            "weights": {name: digest_of_weights(name) for name in weights},
            "faces": _without_faces() if faces else "",
        }

    def make(self, parcel: Parcel) -> Iterator[Told]:
        """Make a picture; yields how far it is, now and then, and at last the picture, or why there is none."""
        told: SimpleQueue[Told] = SimpleQueue()
        threading.Thread(target=self._run, args=(parcel, told.put), daemon=True).start()
        while True:
            item = told.get()
            yield item
            if isinstance(item, (Made, Failure)):
                return

    def _run(self, parcel: Parcel, tell: Callable[[Told], None]) -> None:
        torch.set_num_threads(self._threads)  # of this thread
        self._places = {}
        try:
            with notices_to(tell, self._as_named):
                tell(self._picture(parcel, tell))
        except UserError as error:
            tell(Failure(self._as_named(error)))
        except BaseException as error:  # whatever it is, somebody waits for a word
            tell(Failure(f"{type(error).__name__}: {error}"))

    def _as_named(self, message: object) -> str:
        """A message with the files' names as they are known where the gallery is."""
        text = str(message)
        for path, name in self._places.items():
            text = text.replace(path, name)
        return text

    def _picture(self, parcel: Parcel, tell: Callable[[Told], None]) -> Made:
        last = 0.0

        def progress(update: Update) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS:
                last = time.monotonic()
                tell(Step(update.evaluation, update.total, update.loss))

        with tempfile.TemporaryDirectory(prefix="nst_") as name:
            folder = Path(name)
            file, places = unpack(parcel, folder, self._fetch)
            self._places.update({path: text for text, path in places.items()})
            picture = folder / "picture" / parcel.name
            arguments = [f"--config={file}", f"--output={picture}", "--fallback=null"]
            outcome = self._session.run(arguments, callbacks=[Feedback(progress)], only=_NEEDED, folder=folder / "run")
            device = f"{describe(choose_accelerator('auto').value).name} of {socket.gethostname()}"
            return made_of(picture, outcome, device=device)
