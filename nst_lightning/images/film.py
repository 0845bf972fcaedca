"""Films: MP4 (H.264) by PyAV, animated WebP and GIF by Pillow."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from nst_lightning.errors import UserError
from nst_lightning.files.atomic import keeping
from nst_lightning.files.folders import make_folder
from nst_lightning.images.io import check_place

_MOSAIC, _PIECE = 8, 128  # pictures that a palette is made of, and pixels of each


class Shot(NamedTuple):
    """A picture of a film."""

    picture: Callable[[], Image.Image]  # gives it, RGB, when it is needed: a film may be larger than memory
    frames: int  # how long it is shown


@dataclass(frozen=True)
class FilmFormat:
    """A kind of film.

    Attributes:
        fps: Frames a second that suit it.
        longest: Long side in pixels that suits it.
        even: Whether both sides have to be even.
        write: Writes shots of one size, at so many frames a second, to a file by its name.
    """

    fps: int
    longest: int
    even: bool
    write: Callable[[str, Sequence[Shot], Fraction], None]


def film_format(path: Path, name: str = "timelapse") -> FilmFormat:
    """The kind of film that the suffix of a path stands for.

    Raises:
        UserError: The suffix is unknown, or what writes such films is not installed.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise UserError(f"{name}: must end in one of {', '.join(FORMATS)}, got '{path}'; change the suffix of the path")
    if found.even and importlib.util.find_spec("av") is None:
        raise UserError(
            f"{name}: MP4 needs PyAV, which is not installed, got '{path}'; pip install 'nst_lightning[video]', or "
            "choose .webp or .gif"
        )
    return found


def check_film(path: Path, name: str = "timelapse") -> FilmFormat:
    """As `film_format`, and see to it that the film can be written, before hours of work go into it.

    Raises:
        UserError: Likewise, or the path or its folder is not writable.
    """
    found = film_format(path, name)
    check_place(path, name)
    return found


def write_film(
    path: Path,
    shots: Sequence[Shot],
    size: tuple[int, int],
    rate: Fraction,
    replaceable: Callable[[Path], bool] | None,
    owner: str = "",
) -> Path | None:
    """Write a film, whole or not at all.

    Args:
        path: Its suffix says the format.
        shots: In their order; pictures of another size are resized, and those shown for no frame left out.
        size: Height and width; odd ones lose a pixel where the format takes none.
        rate: Frames a second.
        replaceable: Says whether a file that is at `path` may be lost; else it is moved aside.
        owner: Who writes, in letters and digits, for `nst_lightning.files.atomic.sweep`.

    Returns:
        Where the file that was at `path` is now; None if it was replaced, or there was none.

    Raises:
        UserError: As for `film_format`.
        OSError: It cannot be written.
    """
    kind = film_format(path)
    height, width = (max(2, side - side % 2) for side in size) if kind.even else size
    fitting = [Shot(partial(_resized, shot.picture, (width, height)), shot.frames) for shot in shots if shot.frames > 0]
    make_folder(path.parent)
    with keeping(path, replaceable, owner) as new:
        kind.write(new.file.name, fitting, rate)
    return new.aside


def _resized(picture: Callable[[], Image.Image], size: tuple[int, int]) -> Image.Image:
    """A picture at another size, width and height."""
    found = picture()
    return found if found.size == size else found.resize(size, Image.Resampling.BICUBIC)


def _write_mp4(name: str, shots: Sequence[Shot], rate: Fraction) -> None:
    import av  # noqa: PLC0415 - an extra, which takes a tenth of a second

    width, height = shots[0].picture().size
    with av.open(name, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"  # what every player takes
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # 16 to 235
        moment = 0
        for shot in shots:
            frame = av.VideoFrame.from_ndarray(np.asarray(shot.picture()), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.time_base = 1 / rate
            for _ in range(shot.frames):
                frame.pts = moment
                moment += 1
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_webp(name: str, shots: Sequence[Shot], rate: Fraction) -> None:
    pictures = (shot.picture() for shot in shots)
    _write_animation(name, pictures, _durations(shots, rate), format="WEBP", quality=80, method=2)


def _write_gif(name: str, shots: Sequence[Shot], rate: Fraction) -> None:
    palette = _palette([shot.picture() for shot in shots[:: max(1, len(shots) // _MOSAIC)]])
    pictures = (shot.picture().quantize(palette=palette) for shot in shots)
    _write_animation(name, pictures, _durations(shots, rate), format="GIF")


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """A picture with the colours of all pictures; one palette for each of them would take seconds, and flicker."""
    mosaic = Image.new("RGB", (_PIECE, _PIECE * len(pictures)))
    for index, picture in enumerate(pictures):
        mosaic.paste(picture.resize((_PIECE, _PIECE)), (0, _PIECE * index))
    return mosaic.quantize(256)


def _durations(shots: Sequence[Shot], rate: Fraction) -> list[int]:
    """Milliseconds of each shot; GIF counts in hundredths of a second, of which rounding shall not eat any."""
    ends = np.rint(np.cumsum([0, *(float(100 * shot.frames / rate) for shot in shots)]))
    return [max(20, 10 * int(length)) for length in np.diff(ends)]


def _write_animation(name: str, pictures: Iterator[Image.Image], durations: list[int], **options: Any) -> None:
    first = next(pictures)
    with Path(name).open("r+b") as file:
        first.save(file, save_all=True, append_images=pictures, duration=durations, loop=0, **options)


_MP4 = FilmFormat(fps=30, longest=720, even=True, write=_write_mp4)
_WEBP = FilmFormat(fps=15, longest=720, even=False, write=_write_webp)
_GIF = FilmFormat(fps=10, longest=480, even=False, write=_write_gif)
FORMATS = {".mp4": _MP4, ".webp": _WEBP, ".gif": _GIF}
