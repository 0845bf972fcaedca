"""Small pictures, and an engine of a gallery that makes pictures in no time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from nst_lightning.gallery import Engine, Made, Step
from nst_lightning.images import write_image


def put_picture(path: Path, colour: tuple[int, int, int] = (200, 30, 60), size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture of soft spots, most of one colour, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spots = Image.frombytes("RGB", (5, 4), random.Random(str(colour)).randbytes(60)).resize(
        size, Image.Resampling.BICUBIC
    )
    Image.blend(spots, Image.new("RGB", size, colour), 0.3).save(path)
    return path


class Painter(Engine):
    """Makes grey pictures.

    Args:
        folder: Where it may write.
        fails: What is raised, by the name of the picture.

    Attributes:
        made: Names of pictures, in the order in which they were made.
    """

    def __init__(self, folder: Path, fails: Mapping[str, BaseException] | None = None) -> None:
        self.folder, self.fails = folder, fails or {}
        self.made: list[str] = []

    def make(self, task, tell):
        name = task.row.name
        if name in self.fails:
            raise self.fails[name]
        tell(task, Step(1, task.evaluations, 3.5))
        self.made.append(name)
        said = {"Software": "x", "Fingerprint": task.fingerprint, "Evaluations": str(task.evaluations)}
        path = self.folder / f"painter{Path(name).suffix}"
        write_image(path, torch.full((1, 3, 6, 8), 0.5), metadata=said)
        return Made(path.read_bytes(), task.evaluations, 1.5, (8, 6), 0.25)
