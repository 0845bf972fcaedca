"""Which directory of a TIFF holds its picture: the first may be a preview of what lies in a later one."""

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import tifffile

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType (TIFF 6.0)
_OLD_REDUCED = 2  # value of SubfileType, which it replaced
_RAW = (32803, 34892)  # PhotometricInterpretation: colour filter array (TIFF/EP), LinearRaw (DNG)
_DNG_VERSION = 50706
_ORIENTATION, _ICC = 274, 34675
_FEW, _MANY = 4, 64  # number of pages looked at; files of measurements have thousands


class _Page(NamedTuple):
    offset: int
    pixels: int
    full: bool
    raw: bool


def is_raw_tiff(file: BinaryIO) -> bool:
    """Whether the picture of a TIFF is what a camera's sensor saw, to be developed, whatever previews are there, too.

    The file stands at its start before and afterwards.
    """
    with tifffile.TiffFile(file) as tiff:
        pages = _pages(tiff)
        first = pages[0]
        sensor = max((page.pixels for page in pages if page.raw), default=0)
        if sensor:
            found = first.raw or not (first.full and first.pixels >= sensor)
        else:
            found = _DNG_VERSION in tiff.pages[0].tags and not any(page.full for page in pages)
    file.seek(0)
    return found


def with_picture_first(file: BinaryIO) -> BinaryIO:
    """Let a TIFF whose first page is a reduced one begin with the full picture.

    That is the largest page not marked as reduced or as a mask, among the first page's own (SubIFDs) and those that
    follow. Its orientation and profile are the first page's where it has none of its own. Returns the same file, at its
    start; or one that begins so and has the rest from ``file``.
    """
    with tifffile.TiffFile(file) as tiff:
        pages = _pages(tiff)
        others = [page for page in pages[1:] if page.full and not page.raw]
        if pages[0].full or not others:
            file.seek(0)
            return file
        offset = max(others, key=lambda page: page.pixels).offset
        directory = _merged(file, tiff, offset, tiff.pages[0].offset)
        length = file.seek(0, io.SEEK_END)
        end = length + length % 2  # directories begin at even places
        order = b"II" if tiff.byteorder == "<" else b"MM"
        layout, numbers = ("2sHHHQ", (43, 8, 0, end)) if tiff.is_bigtiff else ("2sHI", (42, end))
        header = struct.pack(tiff.byteorder + layout, order, *numbers)
    return cast("BinaryIO", io.BufferedReader(_Overlaid(file, header, length, b"\0" * (end - length) + directory)))


def _pages(tiff: tifffile.TiffFile) -> list[_Page]:
    """The first page, those within it, and those that follow."""
    pages = [_page(tiff.pages[0])]
    most = _FEW if pages[0].full else _MANY
    pages.extend(_page(page) for page in itertools.islice(_rest(tiff), most))
    return pages


def _rest(tiff: tifffile.TiffFile) -> Iterator[Any]:
    try:
        first: Any = tiff.pages[0]
        if first.subifds:
            yield from first.pages
        for index in itertools.count(1):
            yield tiff.pages[index]
    except Exception:  # the end of the chain, or a damaged link in it, which is no matter for the pages before
        return


def _page(page: Any) -> _Page:
    subfile = int(page.tags.valueof(254, default=0))
    reduced = bool(subfile & (_REDUCED | _MASK)) or page.tags.valueof(255, default=1) == _OLD_REDUCED
    photometric = page.tags.valueof(262, default=1)
    return _Page(page.offset, int(page.imagelength) * int(page.imagewidth), not reduced, photometric in _RAW)


def _merged(file: BinaryIO, tiff: tifffile.TiffFile, offset: int, first: int) -> bytes:
    """A directory like that at ``offset``, with the first one's orientation and profile where it lacks them."""
    entries = _entries(file, tiff, first)
    inherited = {tag: entries[tag] for tag in (_ORIENTATION, _ICC) if tag in entries}
    merged = inherited | _entries(file, tiff, offset)
    count, link = ("Q", "Q") if tiff.is_bigtiff else ("H", "I")
    body = b"".join(merged[tag] for tag in sorted(merged))
    return struct.pack(tiff.byteorder + count, len(merged)) + body + struct.pack(tiff.byteorder + link, 0)


def _entries(file: BinaryIO, tiff: tifffile.TiffFile, offset: int) -> dict[int, bytes]:
    """The entries of a directory as they are stored, by their tags; where they point to stays where it is."""
    count, size = ("Q", 20) if tiff.is_bigtiff else ("H", 12)
    file.seek(offset)
    (entries,) = struct.unpack(tiff.byteorder + count, file.read(struct.calcsize(count)))
    stored = [file.read(size) for _ in range(entries)]
    return {struct.unpack(f"{tiff.byteorder}H", entry[:2])[0]: entry for entry in stored}


class _Overlaid(io.RawIOBase):
    """A file of a length that begins with other bytes and has more behind its end."""

    def __init__(self, file: BinaryIO, start: bytes, length: int, more: bytes) -> None:
        self._file, self._start, self._length, self._more = file, start, length, more
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._length + len(self._more)
        self._position = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        begin = self._position
        if begin < len(self._start):
            found = self._start[begin:]
        elif begin < self._length:
            self._file.seek(begin)
            found = self._file.read(min(len(buffer), self._length - begin))
        else:
            found = self._more[begin - self._length :]
        count = min(len(found), len(buffer))
        buffer[:count] = found[:count]
        self._position += count
        return count
