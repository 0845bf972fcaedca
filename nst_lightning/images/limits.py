"""How large a picture may be: what free memory holds, and no more than so small a file can mean."""

import contextlib
import io
import re
import threading
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, ImageFile

from nst_lightning.hardware.host import free_host_memory
from nst_lightning.images.opening import UnsupportedError

LARGE = 178_956_970  # number of pixels from which Pillow refuses a file as a decompression bomb
BYTES = 32  # most bytes of memory for a pixel, from a file of three colours to a tensor
MOST_PER_BYTE = 10_000  # most pixels for a byte of a file: a plain PNG of one bit has 8256
_REDUCTIONS = (1, 2, 4, 8)  # factors by which libjpeg can decode smaller
_pillow = threading.RLock()


class TooLargeError(UnsupportedError):
    """A picture that memory does not hold, or that is none."""

    advice = "make the picture smaller or choose another one"


def check_pixels(pixels: int, file: BinaryIO) -> None:
    """Refuse by a TooLargeError a picture that memory does not hold, or that a file so small cannot, undecoded.

    A JPEG can be decoded in an eighth of its size. The file is left where it stands.
    """
    at = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    reducible = file.read(2) == b"\xff\xd8"
    file.seek(at)
    if pixels > max(LARGE, MOST_PER_BYTE * size):
        raise TooLargeError(f"it says that it has {_mega(pixels)}, which a file of {size} bytes cannot hold")
    free, least = free_host_memory(), pixels // _REDUCTIONS[-1] ** 2 if reducible else pixels
    if free and least * BYTES > free:
        raise TooLargeError(
            f"its {_mega(pixels)} need {_gibi(least * BYTES)} of memory, of which {_gibi(free)} are free"
        )
    if not free and least > LARGE:
        raise TooLargeError(f"it has {_mega(pixels)}, and at most {_mega(LARGE)} are read here")


def reduction(height: int, width: int, needed: tuple[int, int] | None) -> int:
    """How much smaller to decode a JPEG that is large, by libjpeg's reduced inverse transforms.

    Returns:
        1, 2, 4 or 8. A picture below `LARGE`, or of which no height and width are `needed`, is decoded as it is, if
        memory holds it; else it has twice the size needed, that what is left to shrink decides how sharp the result
        is, and less only where memory lacks.

    Raises:
        TooLargeError: Memory does not hold it in the size needed.
    """
    free = free_host_memory()

    def fits(factor: int) -> bool:
        pixels = height * width // factor**2
        return pixels * BYTES <= free if free else pixels <= LARGE

    def enough(factor: int, times: int) -> bool:
        return needed is None or (height // factor >= times * needed[0] and width // factor >= times * needed[1])

    reduce = height * width > LARGE and needed is not None
    wanted = [factor for factor in reversed(_REDUCTIONS) if reduce and enough(factor, 2)]
    wanted += [factor for factor in _REDUCTIONS if factor == 1 or enough(factor, 1)]  # what is to be enlarged stays
    for factor in wanted:
        if fits(factor):
            return factor
    raise TooLargeError(
        f"its {_mega(height * width)} do not fit into {_gibi(free)} of free memory in the size that is needed"
    )


@contextlib.contextmanager
def open_image(file: BinaryIO, formats: list[str]) -> Iterator[ImageFile.ImageFile]:
    """Open a picture by Pillow, whose own limit of pixels gives way to that of `check_pixels`."""
    file.seek(0)
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        # Its words are all there is: some formats allocate memory when they are opened, so that it comes first.
        found = re.search(r"\d+", str(error))
        check_pixels(int(found[0]) if found else 1 << 62, file)
        file.seek(0)
        with without_pillows_limit():
            image = Image.open(file, formats=formats)
    with image:
        check_pixels(image.width * image.height, file)
        yield image


@contextlib.contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Let Pillow, whose limit is the whole process's, decode a picture that is known to fit; one thread at a time."""
    with _pillow:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _mega(pixels: int) -> str:
    return f"{pixels / 1e6:.0f} megapixels"


def _gibi(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
