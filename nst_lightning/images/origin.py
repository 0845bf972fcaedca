"""What the file of a picture says of itself, whatever its kind: for pictures made from it, and for going on."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, IptcImagePlugin, PngImagePlugin, UnidentifiedImageError

from nst_lightning.errors import UserError, notice
from nst_lightning.images import bmff, heif, jpeg12, jxl
from nst_lightning.images.decode import readable_formats
from nst_lightning.images.deep import is_tiff
from nst_lightning.images.exif import DESCRIPTION, add_exif, directory_of
from nst_lightning.images.limits import open_image
from nst_lightning.images.metadata import Metadata, add_png_texts
from nst_lightning.images.opening import opened
from nst_lightning.images.tags import png_places
from nst_lightning.images.xmp import add_iptc, add_xmp, extended_packet, settings_in, settings_of

_XMP = 700  # tag of a TIFF
_LARGEST_BOX = 1 << 26


def read_origin(path: Path, *, name: str = "data.content", keep_location: bool = False) -> Metadata:
    """What a file says of itself that a picture made from it says, too; nothing, with a notice, if it is unreadable.

    Its place is in it only if ``keep_location``.
    """
    try:
        with opened(path, name) as file:
            return _read(file, keep_location)
    except UserError as error:
        reason = str(error).rsplit("; ", 1)[0]
        notice(f"date, author and so on are not kept: {reason}")
        return Metadata()


def read_settings(path: Path) -> dict[str, str]:
    """The settings that this program wrote into a picture; empty where there are none, a UserError if it is none."""
    with opened(path, "image") as file:
        packets, description = _texts_of_ours(file)
    for packet in packets:
        if found := settings_in(packet):
            return found
    return settings_of(description)  # where they were until version 0.1


def _read(file: BinaryIO, keep_location: bool) -> Metadata:
    metadata = Metadata()
    if is_tiff(file.read(4)):
        add_exif(metadata, file, keep_location)
        directory = directory_of(file)
        packet, iptc = directory.get(_XMP), _iptc_of_tiff(file)
    else:
        info, iptc = _info(file)
        if isinstance(info.get("exif"), bytes):
            with contextlib.suppress(Exception):  # damaged in any way; the rest may be sound
                add_exif(metadata, io.BytesIO(info["exif"].removeprefix(b"Exif\0\0")), keep_location)
        packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
        if "dpi" in info and all(0 < number < 1e6 for number in info["dpi"]):
            metadata.dpi = (float(info["dpi"][0]), float(info["dpi"][1]))
        add_png_texts(metadata, info)
    add_xmp(metadata, packet, keep_location)
    add_iptc(metadata, iptc or {})
    # What an older version of this program put there is no caption.
    if "nst_lightning" in settings_of(metadata.texts.get("Description", "")).get("Software", ""):
        del metadata.texts["Description"]
    caption = metadata.main.get(DESCRIPTION, (0, b""))[1].decode("latin-1")
    if "nst_lightning" in settings_of(caption).get("Software", ""):
        del metadata.main[DESCRIPTION]
    return metadata


def _info(file: BinaryIO) -> tuple[dict[str, Any], Any]:
    """What a file that is no TIFF says, by the names that Pillow has for it, and IPTC's records."""
    file.seek(0)
    start = file.read(4096)
    if jxl.accepts(start):
        exif, packet = (bmff.top_box(file, kind, most=_LARGEST_BOX) for kind in (b"Exif", b"xml "))
        return {"exif": exif[4 + int.from_bytes(exif[:4], "big") :] if exif else None, "xmp": packet}, None
    if heif.accepts(start):
        return heif.read_info(file), None
    if jpeg12.accepts(file):
        with jpeg12.header_of(file) as image:
            return {**image.info}, IptcImagePlugin.getiptcinfo(image)
    try:
        with open_image(file, readable_formats()) as image:
            info: dict[Any, Any] = {**image.info}
            iptc = IptcImagePlugin.getiptcinfo(image)
            if image.format == "PNG":
                info |= _png_info(file)
            return info, iptc
    except UnidentifiedImageError:  # for another reader, whose files say nothing of this sort
        return {}, None


def _png_info(file: BinaryIO) -> dict[str, Any]:
    """What the chunks of a PNG say, behind the pixels, too, where ExifTool puts it and Pillow looks late."""
    stream = PngImagePlugin.PngStream(file)
    for kind, begin, length in png_places(file):
        if kind in {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}:
            with contextlib.suppress(ValueError):  # one that unfolds to more than it may
                stream.call(kind, begin, length)
    return {str(key): value for key, value in stream.im_info.items()}


def _iptc_of_tiff(file: BinaryIO) -> Any:
    file.seek(0)
    # Suppressed: it is of a kind that Pillow does not know.
    with contextlib.suppress(Exception), Image.open(file, formats=["TIFF"]) as image:
        return IptcImagePlugin.getiptcinfo(image)
    return None


def _texts_of_ours(file: BinaryIO) -> tuple[list[Any], str]:
    """XMP packets of a picture, and its description, in which older versions put the settings."""
    start = file.read(16)
    file.seek(0)
    if is_tiff(start):
        directory = directory_of(file)
        return [directory.get(_XMP)], str(directory.get(DESCRIPTION, ""))
    if jxl.accepts(start):
        return [bmff.top_box(file, b"xml ", most=_LARGEST_BOX)], ""
    with open_image(file, readable_formats()) as image:
        packets = [extended_packet(image), image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")]
        # Not the method of PNG images, which decodes them.
        exif = Image.Image.getexif(image)
        return packets, str(image.info.get("Description") or exif.get(DESCRIPTION, ""))
