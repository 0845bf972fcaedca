"""Pairs of crops to train the student on: photographs, paintings, mixtures of them, and noise."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nst_lightning.errors import UserError
from nst_lightning.files.paths import expand
from nst_lightning.images.decode import SUFFIXES
from nst_lightning.images.io import read_image
from nst_lightning.images.resize import resize, target_size

_HELD_OUT_EVERY = 20  # every so many pictures of a folder, by name, one is held out


class Pair(NamedTuple):
    """Two crops, (3, S, S) each (with a batch dimension from the loader), RGB in [0, 1]."""

    image: Tensor
    style: Tensor


def split_folder(folder: Path, *, argument: str) -> tuple[list[Path], list[Path]]:
    """Pictures of a folder, to train on and held out; a UserError if there are too few."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < _HELD_OUT_EVERY:
        raise UserError(
            f"{argument}: must be a folder with at least {_HELD_OUT_EVERY} pictures, got {len(paths)} in '{folder}'"
        )
    held_out = paths[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    return [path for path in paths if path not in set(held_out)], held_out


def read_scaled(path: Path, size: int) -> Tensor:
    """Read a picture with its short side at a size: (1, 3, h, w), RGB in [0, 1]."""
    picture = read_image(path)
    return resize(picture.pixels, target_size(picture.height, picture.width, size, "short")).clamp(0, 1)


class _Pairs(Dataset[Pair]):
    """Random pairs; the same index and seed give the same pair."""

    def __init__(self, photos: list[Path], art: list[Path], crop: int, zoom: float, length: int, seed: int) -> None:
        self.photos, self.art, self.crop, self.zoom, self.length, self.seed = photos, art, crop, zoom, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Pair:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        kind = float(torch.rand((), generator=generator))
        image = self._crop(self.art if kind > 0.75 else self.photos, generator)
        if kind < 0.15:  # as on the way from one picture to another
            image = image.lerp(self._crop(self.art, generator), float(torch.rand((), generator=generator)))
        elif kind < 0.35:
            spread = 0.5 * float(torch.rand((), generator=generator)) ** 2
            image = (image + spread * torch.randn(image.shape, generator=generator)).clamp(-0.2, 1.2)
        return Pair(image, self._crop(self.art, generator))

    def _crop(self, paths: list[Path], generator: torch.Generator) -> Tensor:
        path = paths[int(torch.randint(len(paths), (), generator=generator))]
        scale = self.zoom ** float(torch.rand((), generator=generator))
        pixels = read_scaled(path, round(self.crop * scale))[0]
        top, left = (int(torch.randint(n - self.crop + 1, (), generator=generator)) for n in pixels.shape[1:])
        pixels = pixels[:, top : top + self.crop, left : left + self.crop]
        return pixels.flip(2) if torch.rand((), generator=generator) < 0.5 else pixels


class DistillationData(LightningDataModule):
    """Crops for `Distillation`.

    Args:
        photos: Folder of photographs.
        art: Folder of paintings, drawings and textures.
        crop: Side of the crops in pixels.
        zoom: Largest size of the picture that a crop is cut from, its short side over the crop's; the smallest is 1 and
            all ratios are as likely.
        steps: Pairs of an epoch.
        batch_size: Pairs at a time.
        workers: Processes that read pictures.
        held_out_pairs: Pairs that validation scores.
        seed: Of the choice of crops; an epoch adds to it.
    """

    def __init__(
        self,
        photos: str,
        art: str,
        crop: int = 224,
        zoom: float = 1.6,
        steps: int = 500,
        batch_size: int = 1,
        workers: int = 0,
        held_out_pairs: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if crop < 32:
            raise UserError(
                f"data.crop: must be at least 32, got {crop}; the deepest layer has one value for 16 pixels a side"
            )
        if not zoom >= 1:
            raise UserError(f"data.zoom: must be at least 1, got {zoom}; a crop is no larger than its picture")
        self.crop, self.zoom, self.seed = crop, zoom, seed
        self.steps, self.batch_size, self.workers = steps, batch_size, workers
        self.held_out_pairs = held_out_pairs
        self.train_photos, self.held_out_photos = split_folder(expand(photos, "data.photos"), argument="data.photos")
        self.train_art, self.held_out_art = split_folder(expand(art, "data.art"), argument="data.art")

    @property
    def description(self) -> str:
        """What there is to train on, in a line."""
        pictures = f"{len(self.train_photos)} photographs, {len(self.train_art)} paintings and textures"
        sizes = f"short sides of {self.crop} to {round(self.crop * self.zoom)} px"
        return f"{pictures}; crops of {self.crop} px from {sizes}"

    def train_dataloader(self) -> DataLoader[Pair]:
        """An epoch's pairs."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        length = self.steps * self.batch_size
        pairs = _Pairs(self.train_photos, self.train_art, self.crop, self.zoom, length, self.seed + 7919 * epoch)
        return DataLoader(pairs, self.batch_size, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[Pair]:
        """Held-out pairs, cut to the crop's size."""
        whole = self.held_out(self.held_out_pairs, self.crop)
        pairs = [Pair(*(picture[0, :, : self.crop, : self.crop] for picture in pair)) for pair in whole]
        return DataLoader(cast("Dataset[Pair]", pairs))

    def pair(self, index: int) -> Pair:
        """One training pair, without a batch dimension."""
        return _Pairs(self.train_photos, self.train_art, self.crop, self.zoom, index + 1, self.seed)[index]

    def held_out(self, count: int, size: int) -> list[tuple[Tensor, Tensor]]:
        """Pairs of whole pictures, (1, 3, h, w) each with the short side at a size, that training never sees."""
        photos, art = self.held_out_photos, self.held_out_art
        chosen = [(photos[i % len(photos)], art[i % len(art)]) for i in range(count)]
        return [(read_scaled(photo, size), read_scaled(painting, size)) for photo, painting in chosen]
