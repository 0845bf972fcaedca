"""PNG and TIFF that Pillow would spoil or refuse: more than 8 bits a sample, and some spaces and codings of TIFF."""

from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import TiffImagePlugin

from nst_lightning.images.color import CHANNELS, Array, Raster, Space, as_linear, full_range, split_alpha, unassociated
from nst_lightning.images.limits import check_pixels
from nst_lightning.images.mending.partial import samples
from nst_lightning.images.opening import UnsupportedError

_EXTRA_ASSOCIATED, _EXTRA_UNASSOCIATED = 1, 2  # TIFF 6.0, ExtraSamples
_WHITE_IS_ZERO, _CIELAB, _ICCLAB, _ITULAB = 0, 8, 9, 10  # PhotometricInterpretation
_SPACES: dict[int, Space] = {_WHITE_IS_ZERO: "GRAY", 1: "GRAY", 2: "RGB", 5: "CMYK", _CIELAB: "LAB", _ICCLAB: "LAB"}
_WEBP = 50001  # a compression that Pillow knows and its builds leave out
_MOST_SAMPLES = 16  # samples of a pixel, more than any picture has; each needs the memory of a grey picture


def is_deep_png(start: bytes) -> bool:
    """Whether a file that starts so is a PNG with 16 bits a sample (byte 24, in IHDR, is the bit depth)."""
    return start[:8] == b"\x89PNG\r\n\x1a\n" and start[12:16] == b"IHDR" and start[24:25] == b"\x10"


def is_tiff(start: bytes) -> bool:
    """Whether a file that starts so is a TIFF or a BigTIFF of either byte order."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class TiffHeader(NamedTuple):
    """First page of a TIFF: size as stored, EXIF orientation, and whether ``read_deep_tiff`` is for it."""

    height: int
    width: int
    orientation: int
    deep: bool


def read_tiff_header(file: BinaryIO) -> TiffHeader:
    """Read the first directory of a TIFF.

    Raises:
        TooLargeError: Memory does not hold the picture, or one of its tiles.
        UnsupportedError: Its samples are deep and of a kind that ``read_deep_tiff`` has no rule for.
    """
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        height, width = int(page.imagelength), int(page.imagewidth)
        deep = (
            page.sampleformat == 3
            or (isinstance(page.bitspersample, int) and page.bitspersample > 8)
            or page.photometric in (_ICCLAB, _ITULAB)
            or page.compression == _WEBP
            or page.compression not in TiffImagePlugin.COMPRESSION_INFO
            or (tiff.is_bigtiff and tiff.byteorder == ">")  # which Pillow calls a damaged file
        )
        if deep:
            check_pixels(height * width, file)
            _check_supported(page)
            # A tile is decoded whole, whatever part of it lies within the picture.
            check_pixels(page.tilewidth * page.tilelength * page.tiledepth, file)
        return TiffHeader(height, width, page.tags.valueof(274, default=1), deep)


def read_deep_tiff(file: BinaryIO) -> Raster:
    """Decode the first page of a TIFF that ``read_tiff_header`` calls deep.

    Raises:
        NotFiniteError: A sample is NaN or infinite.
    """
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        _check_supported(page)
        values = samples(page)
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            values = np.moveaxis(values, 0, -1)
        values = values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
        space = _SPACES[int(page.photometric)]
        extras = tuple(int(extra) for extra in page.extrasamples)
        photometric, icc, bits = page.photometric, page.iccprofile, page.bitspersample
    linear = values.dtype.kind == "f" and icc is None and space in ("GRAY", "RGB")
    if space == "LAB":
        values = _lab(values, as_icc=photometric == _ICCLAB)
    values = full_range(values, bits)
    colours = CHANNELS[space]
    if photometric == _WHITE_IS_ZERO:
        values = values.copy()
        values[..., 0] = (1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max) - values[..., 0]
    # A fourth sample that nothing is said of is alpha (as Pillow reads it); one marked unspecified is not.
    described = extras or ((_EXTRA_UNASSOCIATED,) if values.shape[2] == colours + 1 else ())
    if not described or described[0] not in (_EXTRA_ASSOCIATED, _EXTRA_UNASSOCIATED):
        rgb, alpha = values[..., :colours], None
    else:
        rgb, alpha = split_alpha(values[..., : colours + 1], space)
        if described[0] == _EXTRA_ASSOCIATED and alpha is not None:
            rgb = unassociated(rgb, alpha)
    raster = Raster(rgb, space, alpha, icc)
    return as_linear(raster) if linear else raster


def _check_supported(page: Any) -> None:
    space = _SPACES.get(int(page.photometric))
    if space is None:
        raise UnsupportedError(
            f"it stores {getattr(page.photometric, 'name', page.photometric)} samples of {page.bitspersample} bits"
        )
    if page.dtype is None or page.dtype.kind not in "uf":
        raise UnsupportedError("its samples are neither unsigned integers nor floating-point numbers")
    if not CHANNELS[space] <= page.samplesperpixel <= _MOST_SAMPLES:
        raise UnsupportedError(f"it has {page.samplesperpixel} samples a pixel for {space}")
    if page.imagedepth != 1:
        raise UnsupportedError("it holds a volume")
    if space == "LAB" and page.dtype.itemsize > 2:
        raise UnsupportedError(f"it stores L*a*b* of {8 * page.dtype.itemsize} bits")


def _lab(values: Array, *, as_icc: bool) -> Array:
    """L*a*b* of TIFF, of 8 or 16 bits, as ICC profiles of version 4 have it, where every integer is used.

    ``CIELAB`` (TIFF 6.0, section 23) has signed a* and b*; ``ICCLAB`` (Adobe's supplement of 2002) has them offset, and
    with 16 bits is that of ICC profiles of version 2: L* of 100 is 0xff00.
    """
    if values.dtype == np.uint8:
        return values if as_icc else values ^ np.array([0, 128, 128], np.uint8)
    scaled = values[..., :3].astype(np.float32)
    if as_icc:
        scaled *= np.float32(65535 / 65280)
    else:
        scaled[..., 1:] = (values[..., 1:3] ^ np.uint16(0x8000)) * np.float32(257 / 256)
    return np.rint(np.clip(scaled, 0, 65535)).astype(np.uint16)
