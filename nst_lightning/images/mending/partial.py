"""Pictures that a decoder gives up on: what it had decoded by then, or what other strips or tiles of a TIFF hold."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from nst_lightning.images.limits import MOST_PER_BYTE
from nst_lightning.images.mending import jpeg
from nst_lightning.images.mending.damage import MOST_MISSING, told
from nst_lightning.images.opening import is_cut, remark

_Decoded = TypeVar("_Decoded")
_ROW_BY_ROW = ("TIFF", "GIF", "BMP", "DIB", "PPM", "TGA")


def load(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Decode a picture that Pillow has opened from a file, or as much of it as can be; returns it, or another one."""
    size = file.seek(0, io.SEEK_END)
    if image.format in _ROW_BY_ROW and image.width * image.height <= MOST_PER_BYTE * size:
        return _or_partly(partial(_loaded, image), partial(_over_canvases, file, image.format))
    image.load()
    if image.format in ("JPEG", "MPO"):
        _tell_of_damage(image, file)
    return image


def samples(page: Any) -> Any:
    """All samples of a tifffile.TiffPage, as ``asarray()`` gives them; zero where a strip or tile is not decodable."""
    return _or_partly(page.asarray, partial(_decodable, page))


def _or_partly(whole: Callable[[], _Decoded], partly: Callable[[], tuple[_Decoded, float]]) -> _Decoded:
    """What decoding gives; if it fails, what can be had with the fraction of the pixels that it misses.

    Raises:
        CutError: The file ends early, and more than a quarter of the pixels are missing.
        Exception: What the decoder raises, where it is damaged otherwise and as much is missing.
    """
    try:
        return whole()
    except MemoryError:
        raise
    except Exception as error:
        decoded, missing = partly()
        if missing > MOST_MISSING and not is_cut(error):
            raise
        remark(told(missing))
        return decoded


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _over_canvases(file: BinaryIO, kind: str) -> tuple[Image.Image, float]:
    dark, light = (_decoded_over(file, kind, level) for level in (0, 1))
    # What differs between two that were decoded onto unlike canvases is canvas.
    differ = np.asarray(dark) != np.asarray(light)
    return dark, float(np.mean(differ if differ.ndim == 2 else differ.any(-1)))


def _decoded_over(file: BinaryIO, kind: str, level: int) -> Image.Image:
    file.seek(0)
    image = Image.open(file, formats=[kind])
    prepare = image.load_prepare

    def prepare_canvas() -> None:
        prepare()
        bands = len(image.getbands())
        canvas = Image.new(image.mode, image.size, (level,) * bands if bands > 1 else level)
        image.im.paste(canvas.im, (0, 0, *image.size))

    image.load_prepare = prepare_canvas  # type: ignore[method-assign]
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        image.tile = []
    return image


def _decodable(page: Any) -> tuple[Any, float]:
    values = np.zeros(page.shaped, page.dtype)
    there, handle = 0.0, page.parent.filehandle
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        handle.seek(offset)
        data = handle.read(count)
        if len(data) < count and (page.compression != 1 or not data):
            continue
        fraction = len(data) / count if count else 1.0
        try:
            segment, (s, d, h, w, _), shape = page.decode(data.ljust(count, b"\0"), index)
            block = segment[: page.imagedepth - d, : page.imagelength - h, : page.imagewidth - w]
            values[s, d : d + shape[0], h : h + shape[1], w : w + shape[2]] = block
        except MemoryError:
            raise
        except Exception:  # a decoder of damaged data
            continue
        there += fraction * block.size
    return values.reshape(page.shape), 1 - there / values.size


def _tell_of_damage(image: Image.Image, file: BinaryIO) -> None:
    """Say what libjpeg does not: that a JPEG ends early although it says that it ends, or that its bytes are wrong."""
    file.seek(0)
    data = file.read()
    last = np.asarray(image.crop((max(0, image.width - 8), image.height - 1, image.width, image.height)))
    if ((last >= 127) & (last <= 128)).all():  # the grey that libjpeg fills up with
        missing = jpeg.early_end(data)
        if missing:
            remark(told(missing))
            return
    if jpeg.has_spare_bytes(data, image):
        remark("is damaged: some of its bytes are wrong, and parts may be out of place or of wrong colours")
