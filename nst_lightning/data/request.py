"""What is asked for, resolved and checked once: paths, sizes, masks, shares, colours and start."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nst_lightning.data.mask_files import check_masks
from nst_lightning.data.styles import SMALLEST_SIZE, Style, StyleLike, parse_styles, picture_path
from nst_lightning.errors import UserError, check_at_least
from nst_lightning.faces import check_weights
from nst_lightning.images.io import check_image
from nst_lightning.images.missing import advice
from nst_lightning.images.resize import Resample, target_size
from nst_lightning.objective.regions import MOST

Side = Literal["long", "short"]
Start = Literal["content", "recolored", "white", "grey", "noise"]
Color = Literal["style", "luminance", "match", "histogram", "recolor"]

_CHOICES: dict[str, Any] = {"side": Side, "resample": Resample, "color": Color}
_FROM_CONTENT = ("content", "recolored")
FACES = "faces"  # stands for a mask of those that are found in the content
_LONGEST = 64  # width over height
_ASPECT_HEIGHT = 65536  # pixels of an imagined picture with the aspect asked for


@dataclass(frozen=True)
class Request:
    """A request whose files are there and whose numbers make sense; see `StyleTransferData` for what they mean."""

    content: str | None  # path of the content, or None for a texture
    styles: tuple[Style, ...]  # the styles, with their masks; paths are texts
    size: int  # pixels of the result's side
    side: Side  # which side sizes mean
    style_size: int | None  # pixels of the styles' side, or None for as large as they are, and the result is
    style_follows: bool  # whether styles shrink with the stage
    init: str  # content, recolored, white, grey, noise, or the path of a picture
    seed: int  # of the noise
    resample: Resample  # filter that resizes pictures
    color: Color  # whose colours the result has
    content_mask: str | None  # path of the content's mask, or None
    faces: bool  # whether the content's mask is made of the faces in it
    content_floor: float  # what of the content's weight is left where its mask is black, in [0, 1]
    # Height and width of the content, in pixels of its own; of a texture their ratio alone counts.
    content_shape: tuple[int, int]
    style_shapes: tuple[tuple[int, int], ...]  # height and width of each style, in pixels of its own
    found_regions: int = 0  # how many regions are to be found by what a network sees, 0 for none
    least_style_side: int = SMALLEST_SIZE  # pixels that a style's short side has at least, where no size is asked for

    @property
    def start_picture(self) -> str | None:
        """Path of the picture to start from, if it is another one than the content."""
        return None if self.init in get_args(Start) else self.init

    @property
    def starts_from_nothing(self) -> bool:
        """Whether a run starts from noise or one colour, and not from a picture."""
        return self.start_picture is None and (self.init not in _FROM_CONTENT or self.content is None)

    @property
    def files(self) -> dict[str, str]:
        """Argument and path of each picture and mask that is read."""
        found = {"data.content": self.content}
        for index, style in enumerate(self.styles):
            for name in ("path", "mask", "style_mask"):
                found[f"data.style[{index}].{name}"] = getattr(style, name)
        found["data.content_mask"] = self.content_mask
        found["data.init"] = self.start_picture
        return {argument: str(path) for argument, path in found.items() if path is not None}

    @property
    def inputs(self) -> list[Path]:
        """The files that are read, if they are still there."""
        files = self.files
        masks = [files.pop(name) for name in ("data.content", "data.content_mask") if name in files]
        return [path for path in map(Path, (*masks, *files.values())) if path.is_file()]

    @property
    def shares(self) -> list[float]:
        """Of each style in its region's blend; they sum to 1 there."""
        totals = dict.fromkeys((item.mask for item in self.styles), 0.0)
        for item in self.styles:
            totals[item.mask] += item.weight
        return [item.weight / totals[item.mask] for item in self.styles]

    @property
    def region_masks(self) -> list[str | Path | None]:
        """Masks of the parts of the picture with styles of their own: None for what the others leave.

        Styles with the same mask share a part; none if all styles are everywhere.
        """
        masks = list(dict.fromkeys(item.mask for item in self.styles))
        return [] if masks == [None] else masks

    @property
    def regions(self) -> int:
        """Number of parts of the picture with styles, or parts of them, of their own; 0 if there are none."""
        return self.found_regions or len(self.region_masks)

    def stage_size(self, scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the image in pixels, at a scale of the schedule."""
        height, width = target_size(*self.content_shape, self.size, self.side)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def style_sizes(self, scale: float = 1.0) -> list[tuple[int, int]]:
        """Height and width of each style image in pixels, at a scale of the schedule."""
        return [
            target_size(*shape, self._style_side(shape, item, scale), self.side)
            for shape, item in zip(self.style_shapes, self.styles, strict=True)
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


def resolve_request(
    content: str | Path | None,
    style: str | Sequence[StyleLike] | Style | Mapping[str, Any] | Path,
    size: int | Literal["content"],
    aspect: float | None,
    init: str | Path,
    seed: int | None,
    content_mask: str | Path | None,
    side: Side,
    color: Color,
    **options: Any,
) -> Request:
    """Make a request of the arguments of `StyleTransferData`; only the heads of the files are read.

    Raises:
        UserError: With the argument, if a number makes no sense, or a file is missing or of another shape.
    """
    _check_numbers(size, content, seed, **options)
    _check_words(side=side, resample=options["resample"], color=color)
    _check_texture(content, color, aspect)
    faces = _are_faces_asked_for(content_mask, content)
    path = None if content is None else picture_path(content, "data.content", "a path or null")
    styles = tuple(parse_styles(style))
    start = picture_path(init, "data.init", f"{', '.join(get_args(Start))} or a picture file")
    shape = None if path is None else check_image(path, name="data.content")
    style_shapes = tuple(check_image(item.path, name="data.style") for item in styles)
    if shape is None:
        shape = style_shapes[0] if aspect is None else (_ASPECT_HEIGHT, round(_ASPECT_HEIGHT * aspect))
    length = size if isinstance(size, int) else max(shape) if side == "long" else min(shape)
    if length < SMALLEST_SIZE:
        raise UserError(f"data.size: the content must have {SMALLEST_SIZE} px, got {length}; give a number of pixels")
    request = Request(
        content=path,
        styles=styles,
        size=length,
        side=side,
        init=start,
        seed=0 if seed is None else seed,
        color=color,
        content_mask=None if faces or content_mask is None else picture_path(content_mask, "data.content_mask"),
        faces=faces,
        content_shape=shape,
        style_shapes=style_shapes,
        **options,
    )
    check_masks(request)
    _check_regions(request)
    _check_start(start)
    return request


def _check_words(**words: str) -> None:
    """Refuse a word that is none of those that an argument knows."""
    for name, value in words.items():
        if value not in get_args(_CHOICES[name]):
            raise UserError(f"data.{name}: must be one of {', '.join(get_args(_CHOICES[name]))}, got {value}")


def _check_numbers(
    size: object, content: object, seed: int | None, *, style_size: int | None, content_floor: float, **_: Any
) -> None:
    """Refuse numbers out of their range, and a content's size where there is no content."""
    if size == "content":
        if content is None:
            raise UserError(
                "data.size: must be a number of pixels without a content, got content; give one, such as 512"
            )
    elif not isinstance(size, int):
        raise UserError(f"data.size: must be a number of pixels or content, got {size!r}; give one, such as 512")
    for name, pixels in (("size", size), ("style_size", style_size)):
        if isinstance(pixels, int) and pixels < SMALLEST_SIZE:
            raise UserError(f"data.{name}: must be at least {SMALLEST_SIZE} px, got {pixels}; choose a larger size")
    check_at_least("data.seed", seed or 0, 0, advice="")
    if not 0 <= content_floor <= 1:
        raise UserError(f"data.content_floor: must be from 0 to 1, got {content_floor}; 0.3 is the default")


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


def _are_faces_asked_for(content_mask: str | Path | None, content: str | Path | None) -> bool:
    """Whether the word stands for a mask, as a file's name alone does not; refuse it where no face can be found."""
    if not (isinstance(content_mask, str) and content_mask == FACES):
        return False
    if content is None:
        raise UserError("data.content_mask: faces are looked for in a content, got none; leave data.content_mask out")
    check_weights()
    return True


def _check_regions(request: Request) -> None:
    """Refuse a number of regions to be found that makes no sense, or beside masks that say where styles are."""
    count = request.found_regions
    if count and not 2 <= count <= MOST:
        raise UserError(f"data.regions: must be 0 or from 2 to {MOST}, got {count}; 3 is a good start")
    if count and request.content is None:
        raise UserError(f"data.regions: must be 0 without a content, got {count}; give data.content or leave it out")
    if count and request.region_masks:
        raise UserError(
            f"data.regions: must be 0 where a style has a mask, which says where it is to be, got {count}; leave "
            "the masks out, or data.regions"
        )


def _check_start(init: str) -> None:
    """Refuse a start that is neither a word nor a picture."""
    starts = get_args(Start)
    if init in starts:
        return
    if not Path(init).exists():
        meant = {"random": "noise", "gray": "grey", "image": "content", "photo": "content"}.get(init.lower())
        near = [meant] if meant else difflib.get_close_matches(init.lower(), starts, n=1)
        hint = f"did you mean {near[0]}?" if near else f"no such file; {advice(Path(init))}"
        raise UserError(f"data.init: must be {', '.join(starts)} or a picture file, got '{init}'; {hint}")
    check_image(init, name="data.init")
