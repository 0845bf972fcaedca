"""PNG and TIFF with more than 8 bits a sample, of which Pillow would keep only 8."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from nst_lightning.images.color import Array, Raster, Space, split_alpha, to_unit
from nst_lightning.images.opening import NotFiniteError, UnsupportedError

_EXTRA_ASSOCIATED, _EXTRA_UNASSOCIATED = 1, 2  # TIFF 6.0, ExtraSamples
_WHITE_IS_ZERO = 0
_SPACES: dict[int, Space] = {0: "GRAY", 1: "GRAY", 2: "RGB", 5: "CMYK"}  # by PhotometricInterpretation
_LEAST_SAMPLES: dict[Space, int] = {"GRAY": 1, "RGB": 3, "CMYK": 4, "LAB": 3}
_MOST_SAMPLES = 16  # more than any picture has; each costs as much memory as a picture in grey


def is_deep_png(start: bytes) -> bool:
    """Whether a file that starts so is a PNG with 16 bits a sample (byte 24, in IHDR, is the bit depth)."""
    return start[:8] == b"\x89PNG\r\n\x1a\n" and start[12:16] == b"IHDR" and start[24:25] == b"\x10"


def is_tiff(start: bytes) -> bool:
    """Whether a file that starts so is a TIFF or a BigTIFF of either byte order."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_deep_png(data: bytes, icc: bytes | None) -> Raster:
    """Decode a 16-bit PNG; transparency by colour key comes as alpha."""
    values = np.asarray(imagecodecs.png_decode(data))
    if values.ndim == 2:
        values = values[..., None]
    space: Space = "GRAY" if values.shape[2] <= 2 else "RGB"
    colours, alpha = split_alpha(values, space)
    return Raster(colours, space, alpha, icc)


@dataclass(frozen=True)
class TiffHeader:
    """First page of a TIFF: size as stored, EXIF orientation, and whether ``read_deep_tiff`` is for it."""

    height: int
    width: int
    orientation: int
    deep: bool


@contextlib.contextmanager
def _first_page(file: BinaryIO) -> Iterator[Any]:
    with tifffile.TiffFile(file) as tiff:
        yield tiff.pages[0]


def read_tiff_header(file: BinaryIO) -> TiffHeader:
    """Read the first directory of a TIFF.

    Raises:
        Image.DecompressionBombError: The picture, or one of its tiles, is above twice Pillow's limit.
        UnsupportedError: Its samples are deep and of a kind that ``read_deep_tiff`` has no rule for.
    """
    with _first_page(file) as page:
        height, width = int(page.imagelength), int(page.imagewidth)
        deep = page.sampleformat == 3 or (isinstance(page.bitspersample, int) and page.bitspersample > 8)
        deep |= page.parent.is_bigtiff and page.parent.byteorder == ">"  # which Pillow takes for a damaged file
        if deep:
            _check_pixels(height * width)
            _check_supported(page)
            # A tile is decoded whole, whatever part of it lies within the picture.
            _check_pixels(page.tilewidth * page.tilelength * page.tiledepth)
        orientation = page.tags.valueof(274, default=1)
    return TiffHeader(height, width, orientation if orientation in range(1, 9) else 1, deep)


def read_deep_tiff(file: BinaryIO) -> Raster:
    """Decode the first page of a TIFF with more than 8 bits a sample, or floating-point samples.

    Floating-point samples are taken to lie in ``[0, 1]`` and clipped to it.

    Raises:
        NotFiniteError: A sample is NaN or infinite.
        UnsupportedError: See ``read_tiff_header``.
    """
    with _first_page(file) as page:
        _check_supported(page)
        values = page.asarray()
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            values = np.moveaxis(values, 0, -1)
        values = values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
        space = _SPACES[int(page.photometric)]
        extras = tuple(int(extra) for extra in page.extrasamples)
        inverted = page.photometric == _WHITE_IS_ZERO
        icc, bits = page.iccprofile, page.bitspersample
    values = _native(values, bits)
    colours = _LEAST_SAMPLES[space]
    if inverted:
        values = values.copy()
        values[..., 0] = (1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max) - values[..., 0]
    # A fourth sample that nothing is said of is alpha (as Pillow reads it); one marked unspecified is not.
    described = extras or ((_EXTRA_UNASSOCIATED,) if values.shape[2] == colours + 1 else ())
    if not described or described[0] not in (_EXTRA_ASSOCIATED, _EXTRA_UNASSOCIATED):
        return Raster(values[..., :colours], space, None, icc)
    rgb, alpha = split_alpha(values[..., : colours + 1], space)
    if described[0] == _EXTRA_ASSOCIATED and alpha is not None:
        opacity = alpha[..., None]
        rgb = np.clip(to_unit(rgb) / np.where(opacity > 0, opacity, 1), 0, 1, dtype=np.float32)
    return Raster(rgb, space, alpha, icc)


def read_tiff_description(file: BinaryIO) -> str:
    """The ImageDescription of the first page of a TIFF; empty where there is none."""
    with _first_page(file) as page:
        return str(page.description)


def _check_pixels(pixels: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > 2 * limit:  # as Pillow: a warning from once, an error from twice
        raise Image.DecompressionBombError(f"{pixels} pixels exceed the limit of {2 * limit}")


def _check_supported(page: Any) -> None:
    space = _SPACES.get(int(page.photometric))
    if space is None:
        raise UnsupportedError(
            f"it stores {getattr(page.photometric, 'name', page.photometric)} samples of {page.bitspersample} bits"
        )
    if page.dtype is None or page.dtype.kind not in "uf":
        raise UnsupportedError("its samples are neither unsigned integers nor floating-point numbers")
    if not _LEAST_SAMPLES[space] <= page.samplesperpixel <= _MOST_SAMPLES:
        raise UnsupportedError(f"it has {page.samplesperpixel} samples a pixel for {space}")
    if page.imagedepth != 1:
        raise UnsupportedError("it holds a volume")


def _native(values: Array, bits: int) -> Array:
    """Samples as uint16 of full range or float32; refuses what is not finite."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise NotFiniteError("its samples hold NaN or infinity")
        return values.astype(np.float32)
    if bits == 16:
        return values.astype(np.uint16)
    return (values / (2.0**bits - 1)).astype(np.float32)  # 10, 12 or 14 bits in 16, and 24 or 32
