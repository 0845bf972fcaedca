"""The LightningDataModule: hands a request's pictures to the trainer, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from nst_lightning.data.loader import EvaluationLoader, StageBatch
from nst_lightning.data.mask_files import MaskFiles
from nst_lightning.data.request import Color, Side, resolve_request
from nst_lightning.data.schedule import Stage
from nst_lightning.data.stage_images import Pictures, StageImages
from nst_lightning.data.styles import Style, StyleLike
from nst_lightning.features import Extractor
from nst_lightning.images.io import Picture
from nst_lightning.images.resize import Resample
from nst_lightning.objective.masks import Masks
from nst_lightning.objective.regions import FoundRegions, find_regions


class StyleTransferData(LightningDataModule):
    """Content, styles and the start of the run.

    Args:
        content: The picture whose content is kept; demo:content is the package's own; null for a texture, without any.
        style: The picture whose style is taken (demo:style is the package's own): a path, or a mapping (path, weight,
            scale, mask, style_mask, layers, size; in Python also a Style), or a list of these to blend.
        size: Size of the result in pixels, of the side named by `side`; content for the content's own size.
        side: Whether sizes mean the long or the short side.
        style_size: Size of the style images, in the same sense; by default as large as `size`, or as large as the
            picture is, if that is less: enlarged strokes are soft.
        style_follows: Whether style images shrink with the stage, so that a motif covers the same part of the picture
            in all stages, or keep their size in all of them.
        init: Start from content (noise, if there is none), recolored (the content in the style's colours, by their mean
            and covariance), white, grey, noise, or a picture file.
        seed: Seed of the noise; by default the command's `seed_everything`, and 0 from Python.
        resample: Filter that resizes the pictures: bicubic keeps more detail, bilinear is what Gatys' notebook uses.
        color: Whose colours the result has: style (they are part of the style), luminance (only brightness is
            transferred, each pixel keeps its chroma), match (the style's colours are first brought to the content's
            mean and covariance), histogram (to its whole distribution of colours) or recolor (the result's colours are
            brought to the content's mean and covariance, when it is written).
        aspect: Width over height of a texture; by default the style's.
        content_mask: A picture of the content's shape, white where the content is to stay clear, black where it counts
            least; faces makes it of the faces that are found in the content (a file of this name is ./faces).
        content_floor: What of the content's weight is left where its mask is black, from 0 (only style counts there) to
            1 (the mask does nothing). What black loses white gains, up to twice its weight.
        regions: Find so many regions in the content by what the network sees, 2 to 8, and let each take the style of
            the parts of the style that are most like it, as sky of sky; 0 takes all of the style everywhere. A style's
            own mask says where it is to be, and goes without.

    Where a content is transparent nothing counts, and where a style is (unless it has a style_mask).
    """

    def __init__(
        self,
        content: str | Path | None,
        style: str | Sequence[StyleLike] | Style | Mapping[str, Any] | Path,
        size: int | Literal["content"] = 512,
        side: Side = "long",
        style_size: int | None = None,
        style_follows: bool = True,
        init: str | Path = "content",
        seed: int | None = None,
        resample: Resample = "bicubic",
        color: Color = "style",
        aspect: float | None = None,
        content_mask: str | Path | None = None,
        content_floor: float = 0.3,
        regions: int = 0,
    ) -> None:
        super().__init__()
        self.request = resolve_request(
            content=content,
            style=style,
            size=size,
            side=side,
            style_size=style_size,
            style_follows=style_follows,
            init=init,
            seed=seed,
            resample=resample,
            color=color,
            aspect=aspect,
            content_mask=content_mask,
            content_floor=content_floor,
            found_regions=regions,
        )
        self._masks = MaskFiles()
        self._stages: Sequence[Stage] = ()
        self._keep_gamut = False

    @property
    def content_path(self) -> str | None:
        """Path of the content, or None for a texture."""
        return self.request.content

    @property
    def styles(self) -> list[Style]:
        """The styles as they were asked for, with paths as texts."""
        return list(self.request.styles)

    def schedule(self, stages: Sequence[Stage], least_style_side: int) -> None:
        """Know what the model knows, before the fit.

        Args:
            stages: Of the run.
            least_style_side: Pixels that a style's short side needs for a cell of the deepest layer.
        """
        self._stages = stages
        if least_style_side != self.request.least_style_side:
            self.request = replace(self.request, least_style_side=least_style_side)
            self._read_anew()

    def keep_gamut(self, keep: bool) -> None:
        """Read the content with the colours that sRGB does not hold, as values beyond [0, 1], or without.

        Args:
            keep: Whether the result is to be written in a space that may hold them.
        """
        if keep != self._keep_gamut:
            self._keep_gamut = keep
            self._read_anew()

    def setup(self, stage: str | None = None) -> None:
        """Read the files, once.

        Raises:
            UserError: If a file cannot be read.
        """
        _ = self._pictures

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures(self.request, self._masks, self._keep_gamut)

    def _read_anew(self) -> None:
        """Forget what was read, since it is to be read in another way."""
        self.__dict__.pop("_pictures", None)

    @property
    def is_grey(self) -> bool:
        """Whether content and styles have no colour, so that the result shall have none."""
        return self._pictures.is_grey

    @property
    def content(self) -> Picture:
        """The content picture at its own size."""
        return self._pictures.content

    @property
    def faces(self) -> int | None:
        """How many faces were found in the content, once it is read; None if they were not to be looked for."""
        return self._masks.faces

    def stage_size(self, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the image at a scale of the schedule."""
        return self.request.stage_size(scale)

    def style_sizes(self, scale: float = 1.0) -> list[tuple[int, int]]:
        """Height and width of each style image at a scale of the schedule."""
        return self.request.style_sizes(scale)

    def pictures(self, scale: float = 1.0) -> StageImages:
        """Content and styles at a scale of the schedule, with the colours that they have."""
        return self._pictures.plain(scale)

    def masks(self, scale: float = 1.0) -> Masks | None:
        """The masks at a scale of the schedule; None if there are none."""
        return self._pictures.masks(scale)

    @property
    def regions(self) -> FoundRegions | None:
        """Regions of the content with what belongs to them in the styles, as far as they are found; or None."""
        return self._pictures.regions

    def find_regions(self, extractor: Extractor, device: torch.device) -> None:
        """Find the regions that are asked for, through a network on a device; nothing if there are none."""
        pictures, count = self._pictures, self.request.found_regions
        if count:
            content, *styles = (pictures.overview(one).to(device) for one in (pictures.content, *pictures.styles))
            pictures.regions = find_regions(extractor, content, styles, count)

    def stage_images(self, scale: float = 1.0) -> StageImages:
        """What a stage takes its targets from: content and styles at its scale, in the colours that count."""
        return self._pictures.matched(scale)

    def start_image(self, scale: float = 1.0) -> Tensor:
        """The image that the first stage starts from, (1, 3, H, W) in [0, 1].

        Noise is uniform in [0, 1] and drawn on the CPU, so that one seed gives one image on every device.
        """
        return self._pictures.start_image(scale)

    def alpha(self) -> Tensor | None:
        """The content's alpha channel at the result's size, (1, 1, H, W) in [0, 1], or None."""
        return self._pictures.alpha_at(self.stage_size())

    def finished(self, image: Tensor, extended: bool = False) -> Tensor:
        """An image as it is to be seen: in the content's colours, if it is to have them, and on white as its content.

        Args:
            image: (1, 3, h, w) on the CPU, RGB in [0, 1], of the shape of the content or smaller.
            extended: Colours beyond [0, 1] stay what they are, those of `image` and of a content that has them.

        Returns:
            The same shape and range.
        """
        return self._pictures.finished(image, extended)

    def train_dataloader(self) -> Any:
        """The current stage, once for each of its evaluations."""
        if self.trainer is None or not self._stages:
            raise RuntimeError("the data module needs a trainer: call trainer.fit(model, datamodule=data)")
        index = min(self.trainer.current_epoch, len(self._stages) - 1)
        stage = self._stages[index]
        return EvaluationLoader(stage.evaluations, StageBatch(index, partial(self.stage_images, stage.scale)))
