"""What a file says of its colours beside a profile, and Pillow does not tell or heed."""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from PIL import Image

from nst_lightning.images import bmff
from nst_lightning.images.codepoints import CodePoints, adobe_rgb_profile, profile_of_gamma

_EXIF_IFD, _INTEROP_IFD, _COLOR_SPACE, _INTEROP_INDEX = 0x8769, 0xA005, 0xA001, 1
_ADOBE_RGB, _UNCALIBRATED = 2, 0xFFFF


class Tags(NamedTuple):
    """Colours of a picture."""

    icc: bytes | None = None  # the profile in the file, or one for what else it says
    points: CodePoints | None = None  # code points, where there is no profile
    narrow: bool = False  # whether colours lie in the range of video: 16 to 235 of 8 bits
    bits: int = 8  # bits a sample where Pillow would return only 8; else 8
    # Left, top, width and height of the part that is to be shown, before it is turned; None for all.
    crop: tuple[int, int, int, int] | None = None


def read_tags(image: Image.Image, file: BinaryIO) -> Tags:
    """What a picture's file says of its colours; Pillow has opened and not decoded it, and it is left anywhere."""
    icc = image.info.get("icc_profile") or None
    if image.format == "PNG":
        return _png(file, icc)
    if image.format == "AVIF":
        return _avif(file, icc, image.size)
    if icc is None and image.format in ("JPEG", "MPO") and image.mode != "CMYK":
        return Tags(_profile_of_exif(image))
    if icc is None and image.format == "BMP":
        return Tags(_bmp(file))
    return Tags(icc)


def png_places(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG: kind, where the content begins, at which the file is, and how long it is."""
    place = 8
    while file.seek(place) and len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        yield kind, place + 8, length
        place += 12 + length


def png_chunks(file: BinaryIO, wanted: set[bytes], *, behind_pixels: bool = False) -> dict[bytes, bytes]:
    """Content of the first chunk of each kind in a PNG, of those before the pixels or of all."""
    found: dict[bytes, bytes] = {}
    for kind, _, length in png_places(file):
        if kind == b"IDAT" and not behind_pixels:
            break
        if kind in wanted and kind not in found:
            found[kind] = file.read(length)
    return found


def _png(file: BinaryIO, icc: bytes | None) -> Tags:
    """By cICP, iCCP, sRGB, and gAMA with cHRM, in this order (PNG, third edition, 4.3)."""
    chunks = png_chunks(file, {b"cICP", b"sRGB", b"gAMA", b"cHRM"})
    code = chunks.get(b"cICP", b"")
    if len(code) == 4:
        points = CodePoints(code[0], code[1])
        if code[2] == 0 and (points.known or icc is None):
            return Tags(None, points, narrow=code[3] == 0)
    if icc is not None or b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return Tags(icc)
    gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
    corners = None
    if len(chunks.get(b"cHRM", b"")) == 32:
        numbers = [number / 100_000 for number in struct.unpack(">8I", chunks[b"cHRM"])]
        corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    return Tags(profile_of_gamma(gamma, corners))


def _avif(file: BinaryIO, icc: bytes | None, size: tuple[int, int]) -> Tags:
    meta = bmff.top_box(file, b"meta")
    properties = bmff.primary_properties(meta) if meta else []
    if not properties:  # a sequence without a still picture: its first sample entry
        entry = bmff.first_box(bmff.top_box(file, b"moov") or b"", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
        entry = bmff.first_box((entry or b"")[8:], b"av01")
        properties = list(bmff.boxes((entry or b"")[78:]))
    bits, points, crop = 8, None, None
    for kind, content in properties:
        if kind == b"colr" and points is None:
            points = bmff.nclx(content)
        elif kind == b"av1C" and len(content) >= 4 and content[2] & 0x40:  # high_bitdepth
            bits = 12 if content[2] & 0x20 else 10
        elif kind == b"clap" and len(content) == 32:
            crop = _clean_aperture(content, *size)
    return Tags(icc, points if icc is None else None, bits=bits, crop=crop)


def _clean_aperture(content: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Left, top, width and height by a ``clap`` box (ISO/IEC 14496-12, 12.1.4); None for one of no sense."""
    numbers = struct.unpack(">8i", content)
    if any(under <= 0 for under in numbers[1::2]):
        return None
    crop_width, crop_height, right, down = (Fraction(*numbers[place : place + 2]) for place in range(0, 8, 2))
    left, top = (width - crop_width) / 2 + right, (height - crop_height) / 2 + down
    beyond = min(left, top) < 0 or left + crop_width > width or top + crop_height > height
    if min(crop_width, crop_height) < 1 or beyond:
        return None
    return int(left), int(top), int(crop_width), int(crop_height)


def _profile_of_exif(image: Image.Image) -> bytes | None:
    """Adobe RGB where a camera says so, which it does by EXIF and no profile (Exif 2.32, DCF 2.0)."""
    if "exif" not in image.info:
        return None
    try:
        exif = Image.Image.getexif(image)
        space = exif.get_ifd(_EXIF_IFD).get(_COLOR_SPACE)
        index = exif.get_ifd(_INTEROP_IFD).get(_INTEROP_INDEX) if space == _UNCALIBRATED else None
    except Exception:  # damaged EXIF, which fails in many ways, is no reason to refuse the picture
        return None
    if isinstance(index, bytes):
        index = index.decode("latin-1")
    said = space == _ADOBE_RGB or (isinstance(index, str) and index.startswith("R03"))
    return adobe_rgb_profile() if said else None


def _bmp(file: BinaryIO) -> bytes | None:
    """The profile in a BMP of version 5 (BITMAPV5HEADER); one that is only linked to is not looked for."""
    file.seek(14)
    header = file.read(124)
    if len(header) < 124 or struct.unpack_from("<I", header)[0] < 124 or header[56:60] != b"DEBM":  # 'MBED'
        return None
    place, size = struct.unpack_from("<II", header, 112)
    length = file.seek(0, io.SEEK_END)
    if not 128 <= size <= length:
        return None
    file.seek(14 + place)
    return file.read(size) or None
