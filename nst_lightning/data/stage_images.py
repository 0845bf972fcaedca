"""The pictures of a request, read once, and what each stage takes from them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nst_lightning.data.mask_files import MaskFiles, is_same_shape
from nst_lightning.data.request import Request
from nst_lightning.errors import notice
from nst_lightning.images.cutout import on_white, uncovered
from nst_lightning.images.io import Picture, read_image
from nst_lightning.images.recolor import as_grey, is_grey, luma, match_colors, match_histogram, match_luma, with_luma
from nst_lightning.images.resize import resize
from nst_lightning.objective.masks import Masks
from nst_lightning.objective.regions import FoundRegions

_OVERVIEW = 256  # pixels of the side of a square


class StageImages(NamedTuple):
    """The tensors of one stage."""

    content: Tensor  # (1, 3, h, w), float32, sRGB in [0, 1]
    styles: list[tuple[Tensor, float]]  # pairs of the same and a share; shares sum to 1, in each region
    masks: Masks | None = None  # which parts count; None for all

    def to(self, image: Tensor) -> StageImages:
        """The same on the device of an image, in its type."""
        masks = None if self.masks is None else self.masks.to(image)
        return StageImages(self.content.to(image), [(style.to(image), share) for style, share in self.styles], masks)


def recolored(images: StageImages) -> Tensor:
    """The content in the style's colours, by mean and covariance; of several styles each has its share of the change.

    In regions the content takes the colours of the styles that belong there, and where no region is it stays.

    Returns:
        (1, 3, h, w) in [0, 1].
    """
    content, styles, masks = images
    masks = masks or Masks.none(len(styles))
    seen = None if masks.visible is None else masks.visible.pixels
    total, counted = torch.zeros_like(content), torch.zeros_like(content[:, :1])
    for region in range(len(masks.regions)) if masks.regions else [None]:
        part = seen if region is None else masks.regions[region].pixels
        place = torch.ones_like(counted) if region is None or part is None else part
        for index, (style, share) in enumerate(styles):
            if masks.is_in(index, region):
                moved = match_colors(content, style, part, masks.of_style(index, region, 1), clamp=False)
                total, counted = total + share * place * moved, counted + share * place
    return (total + (1 - counted).clamp(min=0) * content).div(counted.clamp(min=1)).clamp(0, 1)


class Pictures:
    """The pictures of a request at their own sizes; a file that cannot be read is a UserError.

    If they are `extended` the content keeps the colours that sRGB does not hold, as values beyond [0, 1].
    """

    def __init__(self, request: Request, masks: MaskFiles, extended: bool = False) -> None:
        self._request, self._masks, self._extended = request, masks, extended
        size = request.stage_size()
        if request.content is None:  # a term that compares with the content compares with plain grey
            self.content = Picture(torch.full((1, 3, 1, 1), 0.5))
        else:
            content = read_image(request.content, name="data.content", extended=extended, needed=size)
            self.content = uncovered(content, "data.content")
            if request.faces:
                masks.look_for_faces(self.content.pixels)
        self.styles = [
            uncovered(read_image(item.path, name="data.style", needed=needed), "data.style")
            for item, needed in zip(request.styles, request.style_sizes(), strict=True)
        ]
        self._start: Tensor | None = None
        self._seen: tuple[Tensor, Tensor | None] | None = None  # content and alpha at the size finished last
        # What regions the content has and what belongs to them in the styles, if that is asked for.
        self.regions = FoundRegions.unknown(count, len(self.styles)) if (count := request.found_regions) else None
        if request.start_picture is not None:
            start = uncovered(read_image(request.start_picture, name="data.init", needed=size), "data.init")
            self._start = _middle(start.pixels, request.content_shape)
        # Whether none has any colour, so that the result shall have none.
        self.is_grey = all(is_grey(picture.pixels) for picture in (self.content, *self.styles))

    def plain(self, scale: float = 1.0) -> StageImages:
        """Resize content and styles for a stage, with the colours that they have."""
        request = self._request
        styles = [
            (self._resized(picture.pixels, size), share)
            for picture, size, share in zip(self.styles, request.style_sizes(scale), request.shares, strict=True)
        ]
        return StageImages(self.content_at(request.stage_size(scale)), styles, self.masks(scale))

    def matched(self, scale: float = 1.0) -> StageImages:
        """What a stage takes its targets from: content and styles at its size, in the colours that count."""
        images, color = self.plain(scale), self._request.color
        if color not in {"luminance", "match", "histogram"}:
            return images
        content = images.content
        masks = images.masks or Masks.none(len(images.styles))
        seen = None if masks.visible is None else masks.visible.pixels
        parts = [None if mask is None else mask.pixels for mask in masks.styles]
        styles = [(style, share, part) for (style, share), part in zip(images.styles, parts, strict=True)]
        if color == "luminance":
            grey = luma(content)
            matched = [
                (match_luma(luma(style), grey, part, seen).repeat(1, 3, 1, 1), share) for style, share, part in styles
            ]
            return images._replace(content=grey.repeat(1, 3, 1, 1), styles=matched)
        match = match_colors if color == "match" else match_histogram
        return images._replace(styles=[(match(style, content, part, seen), share) for style, share, part in styles])

    def masks(self, scale: float = 1.0) -> Masks | None:
        """The masks of a stage; None if there are none."""
        alphas = [picture.alpha for picture in self.styles]
        return self._masks.masks(self._request, scale, self.content.alpha, alphas, self.regions)

    def overview(self, picture: Picture) -> Tensor:
        """A picture at a size at which a network knows things in it, whatever the size of the run."""
        height, width = picture.pixels.shape[-2:]
        scale = _OVERVIEW / math.sqrt(height * width)
        return resize(picture.pixels, (max(32, round(height * scale)), max(32, round(width * scale)))).clamp(0, 1)

    def start_image(self, scale: float = 1.0) -> Tensor:
        """The image that the first stage starts from; see `StyleTransferData.start_image`."""
        request = self._request
        size = request.stage_size(scale)
        if request.init == "content" and request.content is not None:
            return self.matched(scale).content
        if request.init == "recolored" and request.content is not None:
            return recolored(self.matched(scale))
        if request.init in {"noise", "content", "recolored"}:
            noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(request.seed))
            return noise[:, :1].repeat(1, 3, 1, 1) if self.is_grey else noise
        if self._start is None:
            return torch.full((1, 3, *size), 1.0 if request.init == "white" else 0.5)
        start = resize(self._start, size).clamp(0, 1)
        return as_grey(start) if self.is_grey else start

    def content_at(self, size: tuple[int, int]) -> Tensor:
        """The content at a height and width."""
        return self._resized(self.content.pixels, size)

    def alpha_at(self, size: tuple[int, int]) -> Tensor | None:
        """The content's alpha channel at a height and width, (1, 1, h, w) in [0, 1], or None."""
        alpha = self.content.alpha
        return None if alpha is None else resize(alpha, size).clamp(0, 1)

    def finished(self, image: Tensor, extended: bool = False) -> Tensor:
        """An image as it is to be seen; see `StyleTransferData.finished`."""
        color = self._request.color
        if self.is_grey:
            image = as_grey(image)
        if color not in {"luminance", "recolor"} and self.content.alpha is None:
            return image
        size = (image.shape[-2], image.shape[-1])
        if self._seen is None or tuple(self._seen[0].shape[-2:]) != size:
            # Kept: snapshots come at one size, and soon.
            self._seen = self.content_at(size), self.alpha_at(size)
        content, alpha = self._seen
        if color == "luminance":
            image = with_luma(content, luma(image.clamp(0, 1)))
        elif color == "recolor":
            image = match_colors(image, content, alpha, alpha, clamp=not extended)
        if alpha is not None:
            image = on_white(image, alpha)
        return image if extended else image.clamp(0, 1)

    def _resized(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        # Resizing overshoots; its values stay in the picture's own range, which is wider than [0, 1] only on request.
        low, high = (min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))) if self._extended else (0.0, 1.0)
        resized = resize(pixels, size, self._request.resample).clamp(low, high)
        return as_grey(resized) if self.is_grey else resized


def _middle(start: Tensor, shape: tuple[int, int]) -> Tensor:
    """The middle of a start picture, in the content's shape."""
    (height, width), (h, w) = shape, start.shape[-2:]
    if is_same_shape((h, w), shape):
        return start
    said = f"has another shape ({w}x{h} px) than the picture ({width}x{height} px); its middle is taken"
    notice(f"data.init: {said}", stacklevel=3)
    rows, columns = max(1, min(h, round(w * height / width))), max(1, min(w, round(h * width / height)))
    top, left = (h - rows) // 2, (w - columns) // 2
    return start[..., top : top + rows, left : left + columns]
