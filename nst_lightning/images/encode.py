"""The formats that pictures are written in, each with a profile and what is said of the picture."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin, TiffTags

from nst_lightning.errors import UserError, notice
from nst_lightning.images.avif import encode_avif
from nst_lightning.images.color import Array, extended_linear
from nst_lightning.images.exif import directory_bytes, exif_block, exif_directory, main_directory
from nst_lightning.images.metadata import Metadata, png_texts
from nst_lightning.images.profiles import ColorSpace
from nst_lightning.images.xmp import JPEG_SEGMENT, jpeg_segments, xmp_packet

_EXIF_HEAD = b"Exif\0\0"
_EXIF_TAG, _LOCATION_TAG, _XMP_TAG = 34665, 34853, 700
# zlib's Z_RLE: of what is like something before, runs of a byte alone are looked for. What filters leave of a painted
# picture has nothing else: its file is 3 % smaller, in a third to a half of the time.
_BY_RUNS = 3


@dataclass(frozen=True)
class Content:
    """What goes into a file."""

    values: Array  # ``(H, W, 3 or 4)``, uint8 for 8 bits a sample and uint16 for more
    bits: int  # bits a sample that are used
    quality: int  # 1 to 100, for formats that have it
    space: ColorSpace  # colour space of the values
    metadata: Metadata  # what is said of the picture

    def exif(self, limit: int = 1 << 24) -> bytes:
        """EXIF as a TIFF of its own, or nothing."""
        height, width = self.values.shape[:2]
        return exif_block(self.metadata, (height, width), self.space.is_srgb, limit)


Encoder = Callable[[BinaryIO, Content], None]


@dataclass(frozen=True)
class Format:
    """What a format can hold."""

    name: str  # its usual name
    bits: tuple[int, ...]  # bits a sample that it can hold
    alpha: bool  # whether it can hold alpha
    longest_side: int  # largest height or width in pixels
    encode: Encoder  # writes a file
    any_space: bool = True  # whether it can hold another colour space than sRGB


def format_of(path: Path, bits: int, name: str = "output", color_space: str = "srgb") -> Format:
    """The format that the suffix of a path stands for.

    One that is unknown, or does not hold so many bits a sample or that colour space, is refused by a UserError.
    """
    suffix = path.suffix.lower()
    found = FORMATS.get(suffix)
    if found is None:
        near = _INSTEAD.get(suffix)
        hint = f"{near} files are only read; .avif is as small" if near else "change the suffix of the path"
        raise UserError(f"{name}: must end in one of {', '.join(FORMATS)}, got '{path}'; {hint}")
    if bits not in _BITS:
        raise UserError(f"{name}: must have 8 or 16 bits a sample (AVIF 8, 10 or 12), got {bits}; choose one of them")
    if bits not in found.bits:
        *most, last = map(str, found.bits)
        held = f"{', '.join(most)} or {last}" if most else last
        others = "PNG or TIFF" if bits == 16 else "AVIF"
        raise UserError(
            f"{name}: {found.name} holds {held} bits a sample, got {bits} for '{path}'; choose {held} bits, or {others}"
        )
    if color_space != "srgb" and not found.any_space:
        raise UserError(
            f"color_space: must be srgb for {found.name}, whose encoder takes no other, got {color_space} for "
            f"'{path}'; choose AVIF, PNG or TIFF, or leave color_space out"
        )
    return found


def encode(kind: Format, file: BinaryIO, content: Content) -> None:
    """Write a picture; what is said of it and cannot be stored costs only itself, with a notice."""
    try:
        kind.encode(file, content)
    except OSError:  # of the disk
        raise
    except Exception as error:  # encoders fail in many ways at what cameras and programs put into EXIF and XMP
        if content.metadata == Metadata():
            raise
        file.seek(0)
        file.truncate()
        kind.encode(file, replace(content, metadata=Metadata()))
        reason = " ".join(str(error).split()) or type(error).__name__
        notice(f"written without date, author and settings, which {kind.name} does not take: {reason}")


def _jpeg(file: BinaryIO, content: Content) -> None:
    options = {"dpi": content.metadata.dpi} if content.metadata.dpi else {}
    exif, xmp = content.exif(JPEG_SEGMENT - len(_EXIF_HEAD)), jpeg_segments(content.metadata)
    # Without subsampling: styles are made of coloured strokes as fine as the pixels.
    _by_pillow(file, content, "JPEG", exif, quality=content.quality, subsampling="4:4:4", extra=xmp, **options)


def _webp(file: BinaryIO, content: Content) -> None:
    # exact: store colours under full transparency, which resampling may bring to light.
    _by_pillow(file, content, "WEBP", content.exif(), lossless=True, exact=True, xmp=xmp_packet(content.metadata))


def _by_pillow(file: BinaryIO, content: Content, kind: str, exif: bytes, **options: Any) -> None:
    exif = _EXIF_HEAD + exif if exif else b""
    Image.fromarray(content.values).save(file, kind, icc_profile=content.space.icc, exif=exif, **options)


def _png(file: BinaryIO, content: Content) -> None:
    metadata, space = content.metadata, content.space
    encoded = io.BytesIO(imagecodecs.png_encode(content.values, strategy=_BY_RUNS))
    file.write(encoded.read(33))  # signature and IHDR, behind which the other chunks may start
    if space.name == "display-p3":  # PNG, third edition, 11.3.2.6; readers that know it heed it first
        PngImagePlugin.putchunk(file, b"cICP", bytes([*space.cicp, 0, 1]))
    name = b"sRGB" if space.is_srgb else b"ICC profile"
    PngImagePlugin.putchunk(file, b"iCCP", name + b"\0\0" + zlib.compress(space.icc))
    if metadata.dpi:
        across, down = (round(number / 0.0254) for number in metadata.dpi)
        PngImagePlugin.putchunk(file, b"pHYs", struct.pack(">IIB", across, down, 1))  # a metre
    if exif := content.exif():
        PngImagePlugin.putchunk(file, b"eXIf", exif)
    texts = png_texts(metadata) | {"XML:com.adobe.xmp": xmp_packet(metadata).decode()}
    for keyword, text in texts.items():
        if text:
            PngImagePlugin.putchunk(file, b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode())
    file.write(encoded.getbuffer()[33:])


def _tiff(file: BinaryIO, content: Content) -> None:
    values, metadata, space = content.values, content.metadata, content.space
    # By itself tifffile goes to 64-bit offsets only without compression, which may yet not help.
    big = values.nbytes > 2**32 - 2**25
    said = content.exif() != b""
    written = main_directory(metadata) if said else {}
    packet = xmp_packet(metadata)
    exif = exif_directory(metadata, values.shape[:2], space.is_srgb)
    directories = {_EXIF_TAG: exif, _LOCATION_TAG: metadata.location}
    pointers = [(tag, tags) for tag, tags in directories.items() if tags and said and not big]
    tifffile.imwrite(
        file,
        values,
        photometric="rgb",
        extrasamples=["unassalpha"] if values.shape[2] == 4 else None,
        compression="zlib",
        predictor=True,
        bigtiff=big,
        byteorder="<",
        iccprofile=space.icc,
        description=None,
        software=False,
        metadata=None,
        resolution=metadata.dpi,
        resolutionunit=2 if metadata.dpi else None,
        extratags=[
            *((tag, kind, len(text), text, True) for tag, (kind, text) in written.items() if isinstance(text, bytes)),
            *([(_XMP_TAG, TiffTags.BYTE, len(packet), packet, True)] if packet else []),
            # By name, since tifffile leaves out what points at a directory when asked by number; 8 is any place.
            *((tifffile.TIFF.TAGS[tag], TiffTags.LONG, 1, 8, True) for tag, _ in pointers),
        ],
    )
    for pointer, tags in pointers:
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            place = tiff.pages[0].tags[pointer].offset + 8  # behind its number, type and count
        start = file.seek(0, io.SEEK_END)
        start += file.write(b"\0" * (start % 2))  # directories begin at even places
        file.write(directory_bytes(tags, start))
        file.seek(place)
        file.write(struct.pack("<I", start))


def _avif(file: BinaryIO, content: Content) -> None:
    exif, xmp = content.exif(), xmp_packet(content.metadata)
    file.write(encode_avif(content.values, content.bits, content.quality, content.space, exif, xmp))


def _jxl(file: BinaryIO, content: Content) -> None:
    values, quality = content.values, content.quality
    if content.bits == 16:  # imagecodecs says of 16 bits that they are linear light, and of 8 that they are not
        peak = np.float32(65535)
        values = values.copy()
        for row in values:
            row[:, :3] = extended_linear(row[:, :3] / peak) * peak + np.float32(0.5)
    options = {"lossless": True} if quality == 100 else {"distance": _distance(quality)}
    file.write(imagecodecs.jpegxl_encode(values, usecontainer=True, **options))
    # ISO/IEC 18181-2: boxes may follow the pixels; EXIF begins with where its TIFF does.
    for kind, head, data in ((b"Exif", b"\0\0\0\0", content.exif()), (b"xml ", b"", xmp_packet(content.metadata))):
        if data:
            file.write(struct.pack(">I4s", 8 + len(head + data), kind) + head + data)


def _distance(quality: int) -> float:
    """The distance that libjxl's own tools use for a JPEG's quality (JxlEncoderDistanceFromQuality)."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


_JPEG = Format("JPEG", (8,), alpha=False, longest_side=65_500, encode=_jpeg)  # libjpeg's JPEG_MAX_DIMENSION
_PNG = Format("PNG", (8, 16), alpha=True, longest_side=1_000_000, encode=_png)  # libpng's default limit
_TIFF = Format("TIFF", (8, 16), alpha=True, longest_side=2**31 - 1, encode=_tiff)
_WEBP = Format("WebP", (8,), alpha=True, longest_side=16_383, encode=_webp)  # 14 bits in its header
_AVIF = Format("AVIF", (8, 10, 12), alpha=True, longest_side=32_768, encode=_avif)  # what libavif decodes by default
# The longest side of libjxl's level 5, which is what decoders must take.
_JXL = Format("JPEG XL", (8, 16), alpha=True, longest_side=2**18, encode=_jxl, any_space=False)
FORMATS = {".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".tif": _TIFF, ".tiff": _TIFF, ".webp": _WEBP, ".avif": _AVIF}
FORMATS[".jxl"] = _JXL
_BITS = sorted({bits for kind in FORMATS.values() for bits in kind.bits})
_INSTEAD = {".heic": "HEIC", ".heif": "HEIF", ".hif": "HEIF"}
