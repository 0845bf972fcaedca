"""From picture files to the tensors of each stage."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from nst_lightning.data.mask_files import MaskFiles, is_same_shape
from nst_lightning.data.schedule import Stage
from nst_lightning.data.styles import SMALLEST_SIZE, Style, StyleLike, parse_styles, picture_path
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images.cutout import on_white, uncovered
from nst_lightning.images.io import Picture, check_image, read_image
from nst_lightning.images.missing import advice
from nst_lightning.images.recolor import (
    as_grey,
    is_grey,
    luma,
    match_colors,
    match_histogram,
    match_luma,
    with_luma,
)
from nst_lightning.images.resize import Resample, resize, target_size
from nst_lightning.objective.masks import Masks

Side = Literal["long", "short"]
Start = Literal["content", "white", "grey", "noise"]
Color = Literal["style", "luminance", "match", "histogram", "recolor"]

_LONGEST = 64  # width over height
_ASPECT_HEIGHT = 65536  # pixels of an imagined picture with the aspect asked for


class StageImages(NamedTuple):
    """The tensors of one stage.

    Attributes:
        content: (1, 3, h, w), float32, sRGB in [0, 1].
        styles: Pairs of the same and a share; shares sum to 1, in each region.
        masks: Which parts count; None for all.
    """

    content: Tensor
    styles: list[tuple[Tensor, float]]
    masks: Masks | None = None


@dataclass
class EvaluationLoader:
    """Counts the evaluations of a stage, since the data never changes; it can resume in the middle.

    Args:
        length: Number of evaluations.
    """

    length: int
    position: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        start, self.position = self.position, 0
        for index in range(start, self.length):
            self.position = index + 1
            yield index
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        """Position, for Lightning's checkpoint."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at a position."""
        self.position = state["position"]


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
        init: Start from content (noise, if there is none), white, grey, noise, or a picture file.
        seed: Seed of the noise; by default the command's `seed_everything`, and 0 from Python.
        resample: Filter that resizes the pictures: bicubic keeps more detail, bilinear is what Gatys' notebook uses.
        color: Whose colours the result has: style (they are part of the style), luminance (only brightness is
            transferred, each pixel keeps its chroma), match (the style's colours are first brought to the content's
            mean and covariance), histogram (to its whole distribution of colours) or recolor (the result's colours are
            brought to the content's mean and covariance, when it is written).
        aspect: Width over height of a texture; by default the style's.
        content_mask: A picture of the content's shape, white where the content is to stay clear, black where it counts
            least.
        content_floor: What of the content's weight is left where its mask is black, from 0 (only style counts there) to
            1 (the mask does nothing). What black loses white gains, up to twice its weight.

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
    ) -> None:
        super().__init__()
        _check_size(size, content)
        if style_size is not None and style_size < SMALLEST_SIZE:
            raise UserError(
                f"data.style_size: must be at least {SMALLEST_SIZE} px, got {style_size}; choose a larger size"
            )
        for name, value, allowed in (
            ("side", side, get_args(Side)),
            ("resample", resample, get_args(Resample)),
            ("color", color, get_args(Color)),
        ):
            if value not in allowed:
                raise UserError(f"data.{name}: must be one of {', '.join(allowed)}, got {value}")
        if seed is not None and seed < 0:
            raise UserError(f"data.seed: must be at least 0, got {seed}")
        if not 0 <= content_floor <= 1:
            raise UserError(f"data.content_floor: must be from 0 to 1, got {content_floor}; 0.3 is the default")
        _check_texture(content, color, aspect)
        self.content_path = None if content is None else picture_path(content, "data.content", "a path or null")
        self.styles = parse_styles(style)
        self.side: Side = side
        self.style_size = style_size
        self.style_follows = style_follows
        self.init = picture_path(init, "data.init", f"{', '.join(get_args(Start))} or a picture file")
        self.resample: Resample = resample
        self.seed = 0 if seed is None else seed
        self.color: Color = color
        shape = None if self.content_path is None else check_image(self.content_path, name="data.content")
        self._style_shapes = [check_image(item.path, name="data.style") for item in self.styles]
        if shape is None:
            shape = self._style_shapes[0] if aspect is None else (_ASPECT_HEIGHT, _width(aspect))
        self.content_shape = shape
        self.size = size if isinstance(size, int) else max(shape) if side == "long" else min(shape)
        if self.size < SMALLEST_SIZE:
            raise UserError(
                f"data.size: the content must have {SMALLEST_SIZE} px, got {self.size}; give a number of pixels"
            )
        self.content_mask = None if content_mask is None else picture_path(content_mask, "data.content_mask")
        self._mask_files = MaskFiles(self.styles, self.content_mask, content_floor)
        self._mask_files.check(self.content_shape, self._style_shapes)
        if self.init not in get_args(Start):
            if not Path(self.init).exists():
                starts = ", ".join(get_args(Start))
                raise UserError(
                    f"data.init: must be {starts} or a picture file, got '{self.init}'; {_start_meant(self.init)}"
                )
            check_image(self.init, name="data.init")
        self._keep_gamut = False
        self._content: Picture | None = None
        self._styles: list[Picture] = []
        self._start: Tensor | None = None
        self._seen: tuple[Tensor, Tensor | None] | None = None  # content and alpha, as `finished` needed them
        self._is_grey = False
        self.least_style_side = SMALLEST_SIZE  # pixels that the deepest layer needs; the model says what that is

    @property
    def files(self) -> dict[str, str]:
        """Argument and path of each picture and mask that is read."""
        found = {"data.content": self.content_path}
        for index, style in enumerate(self.styles):
            for name in ("path", "mask", "style_mask"):
                found[f"data.style[{index}].{name}"] = getattr(style, name)
        found["data.content_mask"] = self.content_mask
        found["data.init"] = None if self.init in get_args(Start) else self.init
        return {argument: str(path) for argument, path in found.items() if path is not None}

    def stage_size(self, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the image at a scale of the schedule."""
        height, width = target_size(*self.content_shape, self.size, self.side)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def style_sizes(self, scale: float = 1.0) -> list[tuple[int, int]]:
        """Height and width of each style image at a scale of the schedule."""
        return [
            target_size(*shape, self._style_side(shape, item, scale), self.side)
            for shape, item in zip(self._style_shapes, self.styles, strict=True)
        ]

    def _style_side(self, shape: tuple[int, int], style: Style, scale: float) -> int:
        """Length of a style image's side in a stage."""
        if not self.style_follows:
            scale = 1.0
        asked = self.style_size if style.size is None else style.size
        if asked is not None:
            return max(1, round(asked * style.scale * scale))
        own = max(shape) if self.side == "long" else min(shape)
        # Strips keep cells at the deepest layer, and tiny pictures have some.
        least = self.least_style_side
        if self.side == "long":
            least = min(-(-least * max(shape) // min(shape)), least * _LONGEST)
        # What the artist's factor enlarges is meant to be large.
        return max(least, round(min(self.size * scale, own) * style.scale))

    def setup(self, stage: str | None = None) -> None:
        """Read the files, once.

        Raises:
            UserError: If a file cannot be read.
        """
        if self._content is None:
            if self.content_path is None:  # a term that compares with the content compares with plain grey
                self._content = Picture(torch.full((1, 3, 1, 1), 0.5))
            else:
                content = read_image(
                    self.content_path, name="data.content", extended=self._keep_gamut, needed=self.stage_size()
                )
                self._content = uncovered(content, "data.content")
            self._styles = [
                uncovered(read_image(item.path, name="data.style", needed=size), "data.style")
                for item, size in zip(self.styles, self.style_sizes(), strict=True)
            ]
            if self.init not in get_args(Start) and self._start is None:
                start = read_image(self.init, name="data.init", needed=self.stage_size())
                self._start = self._in_shape(start.pixels)
            self._is_grey = all(is_grey(picture.pixels) for picture in (self._content, *self._styles))

    def _in_shape(self, start: Tensor) -> Tensor:
        """The middle of a start picture, in the content's shape."""
        (height, width), (h, w) = self.content_shape, start.shape[-2:]
        if is_same_shape((h, w), self.content_shape):
            return start
        warnings.warn(
            f"data.init: has another shape ({w}x{h} px) than the picture ({width}x{height} px); its middle is taken",
            UserNotice,
            stacklevel=3,
        )
        rows, columns = max(1, min(h, round(w * height / width))), max(1, min(w, round(h * width / height)))
        top, left = (h - rows) // 2, (w - columns) // 2
        return start[..., top : top + rows, left : left + columns]

    @property
    def is_grey(self) -> bool:
        """Whether content and styles have no colour, so that the result shall have none."""
        self.setup()
        return self._is_grey

    @property
    def content(self) -> Picture:
        """The content picture at its own size."""
        self.setup()
        assert self._content is not None
        return self._content

    def pictures(self, scale: float = 1.0) -> StageImages:
        """Resize content and styles for a stage, with the colours that they have.

        Args:
            scale: Size relative to the final one.
        """
        self.setup()
        styles = [
            (self._resized(picture.pixels, size), share)
            for picture, size, share in zip(self._styles, self.style_sizes(scale), self.shares, strict=True)
        ]
        return StageImages(self._content_of(self.stage_size(scale)), styles, self.masks(scale))

    @property
    def shares(self) -> list[float]:
        """Of each style in its region's blend."""
        totals = dict.fromkeys((item.mask for item in self.styles), 0.0)
        for item in self.styles:
            totals[item.mask] += item.weight
        return [item.weight / totals[item.mask] for item in self.styles]

    @property
    def regions(self) -> int:
        """Number of parts of the picture with styles of their own; 0 if all styles are everywhere."""
        return self._mask_files.regions

    def masks(self, scale: float = 1.0) -> Masks | None:
        """Read and resize the masks for a stage; None if there are none.

        Args:
            scale: Size relative to the final one.
        """
        self.setup()
        alphas = [picture.alpha for picture in self._styles]
        return self._mask_files.masks(self.stage_size(scale), self.style_sizes(scale), self.content.alpha, alphas)

    def stage_images(self, scale: float = 1.0) -> StageImages:
        """Make what a stage takes its targets from: content and styles at its size, in the colours that count.

        Args:
            scale: Size relative to the final one.
        """
        images = self.pictures(scale)
        if self.color not in {"luminance", "match", "histogram"}:
            return images
        content = images.content
        parts: list[Tensor | None] = [None] * len(self.styles)
        seen = None
        if images.masks is not None:
            parts = [None if mask is None else mask.pixels for mask in images.masks.styles]
            seen = None if images.masks.visible is None else images.masks.visible.pixels
        styles = [(style, share, part) for (style, share), part in zip(images.styles, parts, strict=True)]
        if self.color == "luminance":
            grey = luma(content)
            matched = [
                (match_luma(luma(style), grey, part, seen).repeat(1, 3, 1, 1), share) for style, share, part in styles
            ]
            return images._replace(content=grey.repeat(1, 3, 1, 1), styles=matched)
        match = match_colors if self.color == "match" else match_histogram
        return images._replace(styles=[(match(style, content, part, seen), share) for style, share, part in styles])

    def finished(self, image: Tensor, extended: bool = False) -> Tensor:
        """An image as it is to be seen: in the content's colours, if it is to have them, and on white as its content.

        Args:
            image: (1, 3, h, w) on the CPU, RGB in [0, 1], of the shape of the content or smaller.
            extended: Colours beyond [0, 1] stay what they are, those of `image` and of a content that has them.

        Returns:
            The same shape and range.
        """
        if self.is_grey:
            image = as_grey(image)
        if self.color not in {"luminance", "recolor"} and self.content.alpha is None:
            return image
        size = (image.shape[-2], image.shape[-1])
        if self._seen is None or tuple(self._seen[0].shape[-2:]) != size:
            self._seen = self._content_of(size), self._alpha_of(size)  # kept: snapshots come at one size, and soon
        content, alpha = self._seen
        if self.color == "luminance":
            image = with_luma(content, luma(image.clamp(0, 1)))
        elif self.color == "recolor":
            image = match_colors(image, content, alpha, alpha, clamp=not extended)
        if alpha is not None:
            image = on_white(image, alpha)
        return image if extended else image.clamp(0, 1)

    def keep_gamut(self, keep: bool) -> None:
        """Read the content with the colours that sRGB does not hold, as values beyond [0, 1], or without.

        Args:
            keep: Whether the result is to be written in a space that may hold them.
        """
        if keep != self._keep_gamut:
            self._keep_gamut, self._content, self._seen = keep, None, None

    def _content_of(self, size: tuple[int, int]) -> Tensor:
        return self._resized(self.content.pixels, size)

    def _resized(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        # Resizing overshoots; its values stay in the picture's own range, which is wider than [0, 1] only on request.
        low, high = (min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))) if self._keep_gamut else (0.0, 1.0)
        resized = resize(pixels, size, self.resample).clamp(low, high)
        return as_grey(resized) if self.is_grey else resized

    def _alpha_of(self, size: tuple[int, int]) -> Tensor | None:
        alpha = self.content.alpha
        return None if alpha is None else resize(alpha, size).clamp(0, 1)

    def start_image(self, scale: float = 1.0) -> Tensor:
        """The image that the first stage starts from, (1, 3, H, W) in [0, 1].

        Noise is uniform in [0, 1] and drawn on the CPU, so that one seed gives one image on every device.
        """
        height, width = self.stage_size(scale)
        if self.init == "content" and self.content_path is not None:
            return self.stage_images(scale).content
        if self.init in {"noise", "content"}:
            noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(self.seed))
            return noise[:, :1].repeat(1, 3, 1, 1) if self.is_grey else noise
        if self.init in {"white", "grey"}:
            return torch.full((1, 3, height, width), 1.0 if self.init == "white" else 0.5)
        self.setup()
        assert self._start is not None
        start = resize(self._start, (height, width)).clamp(0, 1)
        return as_grey(start) if self.is_grey else start

    def alpha(self) -> Tensor | None:
        """The content's alpha channel at the result's size, (1, 1, H, W) in [0, 1], or None."""
        return self._alpha_of(self.stage_size())

    def train_dataloader(self) -> Any:
        """Count the evaluations of the current stage."""
        if self.trainer is None:
            raise RuntimeError("the data module needs a trainer: call trainer.fit(model, datamodule=data)")
        stages: list[Stage] = cast("Any", self.trainer.lightning_module).stages
        return EvaluationLoader(stages[min(self.trainer.current_epoch, len(stages) - 1)].evaluations)


def _check_size(size: object, content: object) -> None:
    """Refuse what is no size, and a content's where there is no content."""
    if size == "content":
        if content is None:
            raise UserError(
                "data.size: must be a number of pixels without a content, got content; give one, such as 512"
            )
    elif not isinstance(size, int):
        raise UserError(f"data.size: must be a number of pixels or content, got {size!r}; give one, such as 512")
    elif size < SMALLEST_SIZE:
        raise UserError(f"data.size: must be at least {SMALLEST_SIZE} px, got {size}; choose a larger size")


def _start_meant(init: str) -> str:
    """What to type instead of a start that is neither a word nor a file."""
    meant = {"random": "noise", "gray": "grey", "image": "content", "photo": "content"}.get(init.lower())
    near = [meant] if meant else difflib.get_close_matches(init.lower(), get_args(Start), n=1)
    return f"did you mean {near[0]}?" if near else f"no such file; {advice(Path(init))}"


def _check_texture(content: str | Path | None, color: str, aspect: float | None) -> None:
    """Refuse what makes no sense with a content, or without one."""
    if content is None and color != "style":
        raise UserError(f"data.color: must be style without a content, got {color}; give data.content or leave it out")
    if content is not None and aspect is not None:
        raise UserError(f"data.aspect: must be left out with a content, which has its own, got {aspect}")
    if aspect is not None and not 1 / _LONGEST <= aspect <= _LONGEST:
        raise UserError(
            f"data.aspect: must be from {1 / _LONGEST} to {_LONGEST}, got {aspect}; 2 is twice as wide as high"
        )


def _width(aspect: float) -> int:
    return round(_ASPECT_HEIGHT * aspect)
