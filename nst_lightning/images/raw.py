"""Raw files of cameras: what a sensor saw, to be developed, which LibRaw does (the extra ``raw``).

All that reads a file raises RawFileError where there is no rawpy, and UnsupportedError for a camera unknown to LibRaw.
"""

import io
import re
from typing import Any, BinaryIO

import numpy as np

from nst_lightning.images.color import Raster
from nst_lightning.images.opening import CutError, RawFileError, UnsupportedError, remark
from nst_lightning.images.silence import caught_lines

_SIGNATURES = (
    (0, b"FUJIFILMCCD-RAW"),  # RAF
    (4, b"ftypcrx "),  # CR3
    (8, b"CR\2"),  # CR2, which is a TIFF, too, and does not say of its pages what they are
    (6, b"HEAPCCDR"),  # CRW
    (0, b"IIU\0"),  # RW2
    (0, (b"IIRO", b"IIRS", b"MMOR")),  # ORF
    (8, (b"IIII", b"MMMM")),  # IIQ, a TIFF, too
    (0, b"\0MRM"),  # MRW
    (0, b"FOVb"),  # X3F
    (0, b"ARRI"),
)
# What LibRaw's default handler of data errors writes.
_SAID = re.compile(r": (Unexpected end of file|data corrupted at )")


def accepts(start: bytes) -> bool:
    """Whether a file that starts so is raw; one that starts as any other TIFF can be, too."""
    return any(start.startswith(signature, place) for place, signature in _SIGNATURES)


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width of a raw file's picture, upright, without developing it."""
    with _opened(file) as raw:
        sizes = raw.sizes
        height, width = sizes.iheight, sizes.iwidth
        # Cameras with oblong pixels: dcraw stretches the shorter side.
        if sizes.pixel_aspect < 1:
            height = int(height / sizes.pixel_aspect + 0.5)
        elif sizes.pixel_aspect > 1:
            width = int(width * sizes.pixel_aspect + 0.5)
        return (width, height) if sizes.flip & 4 else (height, width)


def read(file: BinaryIO) -> Raster:
    """Develop a raw file as dcraw does: camera's white balance, upright, brightened until 1 % of it is white.

    Returns:
        ``(H, W, 3)`` uint16, sRGB.

    Raises:
        CutError: The file ends early.
    """
    lines: list[str] = []
    try:
        with _opened(file) as raw, caught_lines(_SAID, lines):
            # The gamma is sRGB's; LibRaw's own is that of BT.709.
            values = raw.postprocess(use_camera_wb=True, output_bps=16, gamma=(2.4, 12.92))
    finally:
        # It says so by a line on standard error; some kinds it goes on with, whatever lay in memory.
        if any("end of file" in line for line in lines):
            raise CutError("the file is truncated")
    if lines:
        remark("has places where its data are damaged, which may be seen")
    return Raster(np.ascontiguousarray(values), "RGB")


def _opened(file: BinaryIO) -> Any:
    """An opened rawpy.RawPy."""
    try:
        import rawpy  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise RawFileError("there is no rawpy") from error

    file.seek(0)
    try:
        return rawpy.imread(io.BytesIO(file.read()))
    except rawpy.LibRawFileUnsupportedError as error:
        raise UnsupportedError("it is a raw file of a kind that LibRaw does not know") from error
