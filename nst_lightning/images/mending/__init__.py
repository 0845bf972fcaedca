"""Files with slight damage that every viewer opens: read, and told of.

Bytes are mended before they are decoded, so that each decoder, whatever it makes of damage, gets a sound file. All that
mends or decodes raises CutError where more than a quarter of the pixels are missing.
"""

import io
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from PIL import UnidentifiedImageError

from nst_lightning.images.mending import jpeg, png, webp
from nst_lightning.images.mending.damage import Mended
from nst_lightning.images.opening import KnownError, remark

_Result = TypeVar("_Result")
_MOST_BEFORE = 512  # most bytes skipped before a picture, such as a server's script sends before it
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def attempt(file: BinaryIO, action: Callable[[BinaryIO], _Result], *, pixels: bool) -> _Result:
    """Read something from a picture, from its start; if the file is damaged, from what can be made of it.

    Only if pixels are read is it worth going through the whole file, and are there notices. What ``action`` raises
    is raised where nothing can be mended.
    """
    file.seek(0)
    mended = _unlike_what_it_says(file, pixels)
    if mended is None:
        file.seek(0)
        try:
            return action(file)
        except (KnownError, MemoryError):
            raise
        except Exception as error:
            begin = _begin(file) if isinstance(error, UnidentifiedImageError) else 0
            if begin:
                file.seek(begin)
                result = attempt(io.BytesIO(file.read()), action, pixels=pixels)
                if pixels:
                    remark(f"has {begin} bytes before the picture, which are passed over")
                return result
            mended = _without_notes(file, pixels)
            if mended is None:
                raise
    result = action(io.BytesIO(mended.data))
    if pixels:
        remark(mended.said)
    return result


def _unlike_what_it_says(file: BinaryIO, pixels: bool) -> Mended | None:
    """Mend what decoders would not notice, or not survive; None for a file that looks sound."""
    start = file.read(16)
    file.seek(0)
    if png.accepts(start):
        return png.mend(file.read(), pixels)
    if webp.accepts(start):
        return webp.mend(file.read(), pixels)
    return jpeg.mend(file.read()) if pixels and start.startswith(_JPEG) else None


def _without_notes(file: BinaryIO, pixels: bool) -> Mended | None:
    """What a file is without the parts that no pixel needs, after a decoder did not survive them."""
    file.seek(0)
    data = file.read()
    if png.accepts(data):
        return png.rebuild(data, pixels)
    return jpeg.without_notes(data) if data.startswith(_JPEG) else None


def _begin(file: BinaryIO) -> int:
    """Where a JPEG or PNG begins in a file whose first bytes say nothing; 0 if there is none."""
    file.seek(0)
    start = file.read(_MOST_BEFORE + len(_PNG))
    return min((place for place in (start.find(_JPEG), start.find(_PNG)) if place > 0), default=0)
