"""Pictures that a decoder of Pillow's gives up on: what it had decoded by then."""

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

from nst_lightning.images.limits import MOST_PER_BYTE
from nst_lightning.images.mending import jpeg
from nst_lightning.images.mending.damage import MOST_MISSING, told
from nst_lightning.images.opening import is_cut, remark

_ROW_BY_ROW = ("TIFF", "GIF", "BMP", "DIB", "PPM", "TGA")


def load(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Decode a picture that Pillow has opened from a file, or as much of it as can be; returns it, or another one.

    Raises:
        CutError: The file ends early, and more than a quarter of the pixels are missing.
        Exception: What Pillow raises, where it is damaged otherwise and as much is missing.
    """
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        size = file.seek(0, io.SEEK_END)
        if image.format not in _ROW_BY_ROW or image.width * image.height > MOST_PER_BYTE * size:
            raise
        dark, light = (_decoded_over(file, image.format, level) for level in (0, 1))
        # What differs between two that were decoded onto unlike canvases is canvas.
        differ = np.asarray(dark) != np.asarray(light)
        missing = float(np.mean(differ if differ.ndim == 2 else differ.any(-1)))
        if missing > MOST_MISSING and not is_cut(error):
            raise
        remark(told(missing))
        return dark
    if image.format in ("JPEG", "MPO"):
        _tell_of_damage(image, file)
    return image


def _decoded_over(file: BinaryIO, kind: str | None, level: int) -> Image.Image:
    file.seek(0)
    image = Image.open(file, formats=[kind or ""])
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
