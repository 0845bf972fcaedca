"""Opening files that may be anything: from each failure to one line for the user."""

import contextlib
import re
import stat
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from nst_lightning.errors import UserError, notice
from nst_lightning.images.kinds import KNOWN_BYTES, kind_of
from nst_lightning.images.missing import advice
from nst_lightning.images.silence import quiet

_SIGNATURES = re.compile(rb"\xff\xd8|\x89PNG|RIFF....WEBP|II[*+]\0|MM\0[*+]|GIF8|BM", re.DOTALL)
_CUT = re.compile(
    r"truncat|too small|too short|premature|failed to read|end of file|unexpected end|NEED_MORE_INPUT", re.IGNORECASE
)
_OF_LIBRARY = re.compile(r"[a-z]_[a-z]|[a-z][A-Z]|decoder object|^\w+Error$")  # names in a library, of no help to users
_AGAIN = "save it again or choose another picture"
_WANTED = "needs a JPEG, PNG, WebP, TIFF, AVIF, HEIC or JPEG XL picture"


class KnownError(ValueError):
    """What is the matter with a file, which is no damage that could be mended."""

    advice = _AGAIN


class UnsupportedError(KnownError):
    """The file is sound, and holds something that is not read as a picture."""

    advice = "save it as RGB with 8 or 16 bits"


class RawFileError(KnownError):
    """A raw file of a camera, and nothing to develop it with."""


class MissingExtraError(KnownError):
    """What reads a kind of picture (named with its article) is not installed; an extra of this package brings it."""

    def __init__(self, kind: str, extra: str) -> None:
        super().__init__(f"reading {kind} needs the extra '{extra}', which is not installed")
        self.advice = f"pip install 'nst_lightning[{extra}]', or save it as JPEG or PNG"


class CutError(KnownError):
    """Too much of a picture is missing; the message says how much."""


class NotFiniteError(KnownError):
    """Floating-point samples hold NaN or infinity."""


_remarks: ContextVar[list[str] | None] = ContextVar("remarks", default=None)  # on the file that is open


def is_cut(error: Exception) -> bool:
    """Whether a decoder says that a file ends too early."""
    return _CUT.search(str(error)) is not None


def remark(text: str) -> None:
    """Say something of the picture that is `opened`: a notice that begins with its path, once it has been read."""
    remarks = _remarks.get()
    if remarks is not None and text not in remarks:
        remarks.append(text)


@contextlib.contextmanager
def opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """Open a picture for decoding; whatever goes wrong, then or in the body, becomes a UserError.

    Its message begins with the name of the argument that gave the path. What was said by `remark` in the body becomes
    notices.
    """
    start = b""
    remarks: list[str] = []
    token = _remarks.set(remarks)
    try:
        _check_regular(path, name)
        with path.open("rb") as file, quiet():
            start = file.read(KNOWN_BYTES)
            file.seek(0)
            kind = kind_of(start)
            if kind is not None:
                raise UserError(f"{name}: {_WANTED}, got '{path}', which is {kind.name}; {kind.advice}")
            yield file
    except UserError:
        raise
    except Exception as error:  # decoders of damaged data raise nearly anything: struct.error, IndexError ...
        raise UserError(f"{name}: {_explained(error, path, start)}") from error
    finally:
        _remarks.reset(token)
    for text in remarks:
        notice(f"'{path}' {text}", stacklevel=4)


def _explained(error: Exception, path: Path, start: bytes) -> str:
    """What went wrong, and what to do."""
    if isinstance(error, UnidentifiedImageError) and not _SIGNATURES.match(start):
        return f"{_WANTED}, got '{path}', which is none; convert it or choose another picture"
    if isinstance(error, NotFiniteError):
        return f"needs finite pixels, got NaN or infinity in '{path}'; {_AGAIN}"
    if isinstance(error, RawFileError):
        return (
            f"needs a picture, got '{path}', a raw file of a camera, which must be developed first: save it as "
            "TIFF or PNG with the camera's program, darktable or RawTherapee, or pip install 'nst_lightning[raw]'"
        )
    reason, advice = _reason(error)
    return f"cannot read '{path}': {reason}; {advice}"


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, KnownError):
        return str(error), error.advice
    if isinstance(error, PermissionError):
        return "permission denied", "make it readable or choose another picture"
    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        reason = "memory does not suffice" if isinstance(error, MemoryError) else "it is too large"
        return reason, "make the picture smaller"
    if isinstance(error, UnidentifiedImageError):
        return "its header is damaged", _AGAIN
    if is_cut(error):
        return "the file is truncated", _AGAIN
    reason = str(error) or type(error).__name__
    return "the file is damaged" + ("" if _OF_LIBRARY.search(reason) else f" ({reason})"), _AGAIN


def _check_regular(path: Path, name: str) -> None:
    try:
        status = path.stat()
    except PermissionError:
        raise
    except (OSError, ValueError) as error:  # also a name that no file can have: too long, or with a NUL
        raise UserError(
            f"{name}: needs an existing picture, got '{path}', which does not exist; {advice(path)}"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{name}: needs a picture, got the folder '{path}'; give the path of one file in it")
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for a writer
        raise UserError(
            f"{name}: needs a regular file, got '{path}', a pipe or device; save the picture to a file first"
        )
    if status.st_size == 0:
        raise UserError(f"{name}: cannot read '{path}': the file is empty; {_AGAIN}")
