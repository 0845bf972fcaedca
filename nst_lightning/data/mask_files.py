"""From files of masks to the masks of each stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nst_lightning.data.styles import Style
from nst_lightning.errors import UserError, notice
from nst_lightning.faces import Face, ellipses, find_faces
from nst_lightning.images.io import check_image, read_mask_samples
from nst_lightning.images.resize import resize
from nst_lightning.objective.masks import Mask, Masks
from nst_lightning.objective.regions import FoundRegions

if TYPE_CHECKING:  # which is checked by means of this module
    from nst_lightning.data.request import Request

_SHAPE_TOLERANCE = 0.01  # of the aspect
_LABEL = 1.01 / 255  # the value 1 of 8 bits, or of more
_DARK = 32 / 255  # nobody paints masks so; labels are counted up from 0
_DIM = 0.5  # whoever paints a mask so may have meant white
_COLOURFUL = 0.02  # mean chroma of what is no drawing in greys: of photographs it is 0.1 and more


def is_same_shape(size: tuple[int, int], shape: tuple[int, int]) -> bool:
    """Whether a picture of a height and width has a shape, but for rounding to pixels and a hundredth of the aspect."""
    (h, w), (height, width) = size, shape
    return abs(h * width - w * height) <= max(h * width, w * height) * _SHAPE_TOLERANCE + max(width, height)


def check_masks(request: Request) -> None:
    """Find a mask that is missing or of another shape before anything is done.

    Raises:
        UserError: With the argument that names the mask.
    """
    asked: list[tuple[str, str | Path | None, tuple[int, int], str]]
    asked = [("data.content_mask", request.content_mask, request.content_shape, "content")]
    for index, (item, shape) in enumerate(zip(request.styles, request.style_shapes, strict=True)):
        asked.append((f"data.style[{index}].mask", item.mask, request.content_shape, "content"))
        asked.append((f"data.style[{index}].style_mask", item.style_mask, shape, "style"))
    for argument, path, (height, width), of in asked:
        if path is None:
            continue
        h, w = check_image(path, name=argument)
        if not is_same_shape((h, w), (height, width)):
            raise UserError(
                f"{argument}: must have the shape of the {of} ({width}x{height} px, or the same in another size), "
                f"got {w}x{h} px; crop or enlarge the mask"
            )


class MaskFiles:
    """The masks of a request; each file is read once, and faces are looked for once."""

    def __init__(self) -> None:
        self._pixels: dict[str | Path, Tensor] = {}  # by path, (1, 1, H, W)
        self._faces: list[Face] | None = None  # those that were found, if they were looked for

    @property
    def faces(self) -> int | None:
        """How many faces there are in the content; None if they were not looked for."""
        return None if self._faces is None else len(self._faces)

    def look_for_faces(self, content: Tensor) -> None:
        """Find the faces in a content, (1, 3, H, W) in sRGB, for the masks of all stages.

        Raises:
            UserError: If the detector is not installed.

        Warns:
            UserNotice: If there are none.
        """
        if self._faces is None:
            self._faces = find_faces(content)
            if not self._faces:
                notice("data.content_mask: no faces in the content, which counts alike everywhere", stacklevel=3)

    def masks(
        self,
        request: Request,
        scale: float,
        alpha: Tensor | None,
        style_alphas: Sequence[Tensor | None],
        found: FoundRegions | None = None,
    ) -> Masks | None:
        """Read and resize the masks that a request names for a stage of a scale; None if there are none.

        Regions that were found join them.

        What is seen of the content and of each style is (1, 1, H, W) of any size, or None for all of it.

        Raises:
            UserError: If a file cannot be read.
        """
        styles, regions = request.styles, request.region_masks
        asked = request.content_mask is not None or bool(self._faces)
        special = any(item.style_mask or item.layers is not None for item in styles)
        transparent = any(seen is not None for seen in (alpha, *style_alphas))
        if not regions and not asked and not special and not transparent and found is None:
            return None
        size, style_sizes = request.stage_size(scale), request.style_sizes(scale)
        of_styles = [self._of_style(*of) for of in zip(styles, style_sizes, style_alphas, strict=True)]
        content = visible = None if alpha is None else _seen(alpha, size, "data.content")
        if asked:
            content = _within(self._of_content(request, size), visible)
        return Masks(
            [_within(m, visible) for m in (_found(found.content, size) if found else self._of_regions(regions, size))],
            [regions.index(item.mask) if regions else None for item in styles],
            of_styles,
            [item.layers for item in styles],
            content,
            request.content_floor,
            visible,
            [_found(*of) for of in zip(found.styles, style_sizes, strict=True)] if found else (),
        )

    def _of_content(self, request: Request, size: tuple[int, int]) -> Mask:
        """Where the content is to stay clear: as a file says, or where its faces are."""
        path = request.content_mask
        if path is not None:
            return self._mask(path, size, f"data.content_mask: '{path}'")
        # Nobody has drawn it: a stage in which a face has no cell may go on, if something of the content is left.
        return Mask(ellipses(self._faces or [], size), "data.content_mask: faces", asked=request.content_floor == 0)

    def _of_style(self, item: Style, size: tuple[int, int], alpha: Tensor | None) -> Mask | None:
        """The part of a style that counts: as its mask says, or what is seen of it."""
        if item.style_mask is not None:
            return self._mask(item.style_mask, size, f"data.style: '{item.style_mask}'")
        return None if alpha is None else _seen(alpha, size, f"data.style: '{item.path}'")

    def _of_regions(self, regions: Sequence[str | Path | None], size: tuple[int, int]) -> list[Mask]:
        """Those that are asked for, and what they leave."""
        found = [self._mask(path, size, f"data.style: mask '{path}'") for path in regions if path is not None]
        if None in regions:
            rest = torch.ones(1, 1, *size)
            for mask in found:
                rest -= mask.pixels
            found.insert(regions.index(None), Mask(rest.clamp(min=0), "data.style: what the masks leave"))
        return found

    def _mask(self, path: str | Path, size: tuple[int, int], argument: str) -> Mask:
        if path not in self._pixels:
            self._pixels[path] = read_mask(path, argument)
        return Mask(resize(self._pixels[path], size, "bilinear").clamp(0, 1), argument)


def _found(regions: Tensor, size: tuple[int, int]) -> list[Mask]:
    """Regions that were found, (1, N, h, w), at a size."""
    smooth = resize(regions, size, "bilinear").clamp(0, 1)
    argument = "data.regions: region"
    return [Mask(smooth[:, k : k + 1], f"{argument} {k + 1}", asked=False) for k in range(regions.shape[1])]


def _seen(alpha: Tensor, size: tuple[int, int], argument: str) -> Mask:
    return Mask(resize(alpha, size, "bilinear").clamp(0, 1), f"{argument}: what is not transparent", asked=False)


def _within(mask: Mask, visible: Mask | None) -> Mask:
    return mask if visible is None else mask._replace(pixels=mask.pixels * visible.pixels)


def read_mask(path: str | Path, argument: str = "mask") -> Tensor:
    """Read how much each pixel counts: its brightness as it is stored, times its opacity.

    A picture of the values 0 and 1 (labels), or of black and one colour, counts as black and white. Where part of a
    picture is transparent, colours say that it is a cut-out and no mask that was drawn, and its opacity alone counts;
    so it does of a shape in black, of which nothing would be left.

    Returns:
        (1, 1, H, W) in [0, 1].

    Raises:
        UserError: If it cannot be read, or holds several labels.

    Warns:
        UserNotice: If it counts as something that may not be meant.
    """
    grey, alpha, chroma = read_mask_samples(path, "mask")
    brightest = float(grey.max() if alpha is None else (grey * (alpha > 0)).max())
    if (0 < brightest < _LABEL or (alpha is None and chroma > 0)) and bool(((grey == 0) | (grey == brightest)).all()):
        grey, brightest, chroma = (grey > 0).to(grey), 1.0, 0.0
    if alpha is None:
        _check_no_labels(grey, argument)
        if 0 < brightest < _DARK:
            raise UserError(
                f"{argument}: must be white where it counts, got nothing brighter than {brightest:.4f}, as of labels; "
                "make a mask of each label, or brighten it"
            )
        if chroma > _COLOURFUL:
            notice(f"{argument}: is in colours, which count as bright as they are (red 0.30, green 0.59, blue 0.11)")
        else:
            _warn_if_dim(brightest, argument)
        return grey
    if chroma > _COLOURFUL:
        return alpha
    if brightest < _DARK:
        if bool((alpha > 0).any()):
            notice(f"{argument}: a black shape on a transparent ground; the shape is what counts")
        return alpha
    _warn_if_dim(brightest, argument)
    return grey * alpha


def _check_no_labels(grey: Tensor, argument: str) -> None:
    """Refuse labels counted up from 0 beside the 255 of data sets in which it means that a pixel has none."""
    values = torch.unique(grey)
    if len(values) > _DARK * 255 + 2:
        return
    numbers = [float(value) * 255 for value in values]
    few = all(abs(number - round(number)) < 0.01 and (number < _DARK * 255 or number > 254) for number in numbers)
    if few and numbers[-1] > 254 and any(0 < round(number) < 254 for number in numbers):
        got = ", ".join(f"{number:.0f}" for number in numbers)
        raise UserError(
            f"{argument}: must be black and white, got the values {got}, as of labels and of what has none (255); make "
            "a mask of each label"
        )


def _warn_if_dim(brightest: float, argument: str) -> None:
    if 0 < brightest < _DIM:
        notice(f"{argument}: its brightest part counts {brightest:.0%}, as bright as it is; what is to count is white")
