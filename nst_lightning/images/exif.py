"""EXIF of pictures: its directories in files of any kind, read and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from PIL import TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from nst_lightning.errors import notice
from nst_lightning.images.metadata import LARGEST_VALUE, Metadata

# EXIF 3.0 (CIPA DC-008) by its numbers. Not all that a file has: thumbnails and maker notes show and describe another
# picture, serial numbers and places are private, and positions in pixels are no longer right.
_EXIF, _LOCATION = 34665, 34853  # tags that point at the other directories
DESCRIPTION, _SOFTWARE, _ORIENTATION = 270, 305, 274
_RESOLUTION = (282, 283, 296)  # tags of the resolution in x and y, and of its unit
_COPIED_MAIN = {
    *(DESCRIPTION, 271, 272),  # make and model of the camera
    *(306, 315, 33432),  # date of change, artist, copyright
    *(40091, 40092, 40093, 40094, 40095),  # Windows' title, comment, author, keywords, subject
}
_COPIED_EXIF = {
    *(33434, 33437, 34850, 34855, 34864, 34865, 34866),  # exposure time, F number, programme, sensitivity
    *(36867, 36868, 36880, 36881, 36882, 37520, 37521, 37522),  # dates, their time zones and fractions
    *(37377, 37378, 37379, 37380, 37381, 37382, 37383, 37384, 37385, 37386),  # from shutter speed to focal length
    *(37510, 41483, 41495, 41985, 41986, 41987, 41988, 41989, 41990, 41991, 41992, 41993, 41994, 41996),
    *(42032, 42034, 42035, 42036, 42038, 42039),  # owner, lens, title, photographer
}
_TEXTS = {DESCRIPTION, 271, 272, _SOFTWARE, 306, 315, 33432, 36867, 36868, 36880, 36881, 36882, 42032, 42035, 42036}


def exif_block(metadata: Metadata, size: tuple[int, int], srgb: bool, limit: int = 1 << 24) -> bytes:
    """EXIF for a new file of a height and width, as a TIFF of its own; empty where there is nothing to say.

    Where it would have more bytes than the limit, the longest values give way.
    """
    if not (metadata.main or metadata.exif or metadata.location or metadata.software or metadata.dpi):
        return b""
    main, exif = main_directory(metadata), exif_directory(metadata, size, srgb)
    while len(block := _tiff(main, exif, metadata.location)) > limit:
        values = [(value, tag, part) for part in (main, exif) for tag, (_, value) in part.items()]
        _, tag, part = max(values, key=lambda found: len(found[0]) if isinstance(found[0], bytes) else 0)
        notice(f"the content's EXIF tag {tag} is too long here, and left out")
        del part[tag]
    return block


def main_directory(metadata: Metadata) -> dict[int, tuple[int, Any]]:
    """EXIF's first directory for a new file: upright, of this program, with the content's resolution."""
    main = {**metadata.main, _ORIENTATION: (TiffTags.SHORT, 1)}
    if metadata.software:
        main[_SOFTWARE] = (TiffTags.ASCII, metadata.software.encode())
    if metadata.dpi is not None:
        across, down, unit = _RESOLUTION
        main |= {across: (TiffTags.RATIONAL, metadata.dpi[0]), down: (TiffTags.RATIONAL, metadata.dpi[1])}
        main[unit] = (TiffTags.SHORT, 2)  # inches
    return main


def exif_directory(metadata: Metadata, size: tuple[int, int], srgb: bool) -> dict[int, tuple[int, Any]]:
    """EXIF's own directory for a new file, with that file's size and colour space."""
    height, width = size
    return {
        **metadata.exif,
        36864: (TiffTags.UNDEFINED, b"0232"),  # the version of EXIF that all tags above but the titles are in
        37121: (TiffTags.UNDEFINED, b"\1\2\3\0"),  # Y, Cb, Cr; this and the next must be there
        40960: (TiffTags.UNDEFINED, b"0100"),
        40961: (TiffTags.SHORT, 1 if srgb else 0xFFFF),
        40962: (TiffTags.LONG, width),
        40963: (TiffTags.LONG, height),
    }


def directory_bytes(tags: Mapping[int, tuple[int, Any]], offset: int) -> bytes:
    """A directory of a little-endian TIFF that lies at an offset."""
    directory = Directory()
    for tag, (kind, value) in tags.items():
        directory.tagtype[tag] = kind
        directory[tag] = value
    return directory.tobytes(offset)


def _tiff(
    main: dict[int, tuple[int, Any]], exif: dict[int, tuple[int, Any]], location: dict[int, tuple[int, Any]]
) -> bytes:
    pointers = {_EXIF: (TiffTags.LONG, 8)} | ({_LOCATION: (TiffTags.LONG, 8)} if location else {})
    parts = [directory_bytes(main | pointers, 8)]
    for pointer, tags in zip(pointers, (exif, location), strict=False):
        start = 8 + sum(map(len, parts))
        pointers[pointer] = (TiffTags.LONG, start)
        parts.append(directory_bytes(tags, start))
    parts[0] = directory_bytes(main | pointers, 8)
    return b"II*\0\x08\0\0\0" + b"".join(parts)


def directory_of(file: BinaryIO, offset: int | None = None) -> Directory:
    """Read a directory of the TIFF that a file holds: the first, or that at an offset."""
    file.seek(0)
    head = file.read(16)
    directory = Directory(head if head[2:4] in (b"+\0", b"\0+") else head[:8])  # with 64-bit offsets or without
    file.seek(directory.next if offset is None else offset)
    directory.load(file)
    return directory


def add_exif(metadata: Metadata, file: BinaryIO, keep_location: bool) -> None:
    """Copy what a new picture may say from a TIFF, or EXIF on its own; with the place if ``keep_location``."""
    main = directory_of(file)
    metadata.main = dict(_chosen(main, _COPIED_MAIN))
    _add_resolution(metadata, main)
    if _EXIF in main:
        metadata.exif = dict(_chosen(directory_of(file, int(main[_EXIF])), _COPIED_EXIF))
    if keep_location and _LOCATION in main:
        metadata.location = dict(_chosen(directory_of(file, int(main[_LOCATION])), range(32)))


def _chosen(directory: Directory, tags: Any) -> Iterator[tuple[int, tuple[int, Any]]]:
    for tag in directory:
        if tag not in tags:
            continue
        kind, value = directory.tagtype[tag], directory[tag]
        if isinstance(value, str):
            # Pillow reads Latin-1 whatever it is, and would write ASCII: these are the bytes of the file.
            value = value.rstrip("\0").encode("latin-1", "replace")
            kind = TiffTags.ASCII
        if tag in _TEXTS and not isinstance(value, bytes):
            continue
        if not isinstance(value, (bytes, tuple)) or 0 < len(value) <= LARGEST_VALUE:
            yield tag, (kind, value)


def _add_resolution(metadata: Metadata, directory: Directory) -> None:
    across, down, unit = (directory.get(tag) for tag in _RESOLUTION)
    if unit not in (None, 2, 3) or not across or not down:
        return
    inches = 2.54 if unit == 3 else 1.0
    dpi = float(across) * inches, float(down) * inches
    if all(0 < number < 1e6 for number in dpi):
        metadata.dpi = dpi
