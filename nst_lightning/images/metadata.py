"""What a picture says of itself beside its pixels: date, camera, author and caption, and how it was made."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

from PIL import Image, IptcImagePlugin, PngImagePlugin, TiffTags, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import bmff, heif, jpeg12, jxl
from nst_lightning.images.decode import readable_formats
from nst_lightning.images.deep import is_tiff
from nst_lightning.images.limits import open_image
from nst_lightning.images.opening import opened

# EXIF 3.0 (CIPA DC-008) by its numbers. Not all that a file has: thumbnails and maker notes show and describe another
# picture, serial numbers and places are private, and positions in pixels are no longer right.
_EXIF, _LOCATION = 34665, 34853  # tags that point at the other directories
_DESCRIPTION, _SOFTWARE, _ORIENTATION = 270, 305, 274
_RESOLUTION = (282, 283, 296)  # tags of the resolution in x and y, and of its unit
_XMP, _IPTC = 700, 33723  # tags of a TIFF
_COPIED_MAIN = {
    *(_DESCRIPTION, 271, 272),  # make and model of the camera
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
_TEXTS = {_DESCRIPTION, 271, 272, _SOFTWARE, 306, 315, 33432, 36867, 36868, 36880, 36881, 36882, 42032, 42035, 42036}
_LARGEST_BOX = 1 << 26
_LARGEST = 1 << 14  # most bytes of one value; longer ones are no words of an author

_NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "x": "adobe:ns:meta/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "cc": "http://creativecommons.org/ns#",
    "nst": "urn:nst-lightning:xmp:1.0:",
}
for _prefix, _uri in _NAMESPACES.items():  # the names that people and programs know them by
    ElementTree.register_namespace(_prefix, _uri)
_RDF = f"{{{_NAMESPACES['rdf']}}}"
_SETTINGS = f"{{{_NAMESPACES['nst']}}}Settings"
_EXTENDED = f"{{{_NAMESPACES['xmpNote']}}}HasExtendedXMP"
_COPIED_XMP = {
    "dc": "creator contributor rights title description subject date",
    "xmp": "CreateDate",
    "xmpRights": "*",
    "photoshop": "Credit Source Headline DateCreated AuthorsPosition CaptionWriter Instructions",
    "exif": "DateTimeOriginal DateTimeDigitized",
    "tiff": "Make Model Artist Copyright ImageDescription",
    "aux": "Lens",
    "Iptc4xmpCore": "CreatorContactInfo",
    "plus": "*",
    "cc": "*",
}
_PLACES_XMP = {
    "exif": "GPS",
    "photoshop": "City State Country",
    "Iptc4xmpCore": "Location CountryCode",
    "Iptc4xmpExt": "LocationCreated LocationShown",
}
# What IPTC's older records are called in XMP (Metadata Working Group, Guidelines for Handling Image Metadata 2.0).
_FROM_IPTC = {
    (2, 5): ("dc", "title", "Alt"),
    (2, 25): ("dc", "subject", "Bag"),
    (2, 40): ("photoshop", "Instructions", ""),
    (2, 55): ("photoshop", "DateCreated", ""),
    (2, 80): ("dc", "creator", "Seq"),
    (2, 85): ("photoshop", "AuthorsPosition", ""),
    (2, 105): ("photoshop", "Headline", ""),
    (2, 110): ("photoshop", "Credit", ""),
    (2, 115): ("photoshop", "Source", ""),
    (2, 116): ("dc", "rights", "Alt"),
    (2, 120): ("dc", "description", "Alt"),
}
_FROM_PNG = {"Description": _DESCRIPTION, "Author": 315, "Copyright": 33432}
_TO_PNG = ("Title", "Author", "Description", "Copyright", "Creation Time", "Comment")

JPEG_SEGMENT = 65_533  # most bytes of a segment behind its length
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


@dataclass
class Metadata:
    """What is said of a picture.

    Attributes:
        main: EXIF's first directory: values by tag, each with its TIFF type.
        exif: EXIF's own directory, the same.
        location: EXIF's place, the same.
        xmp: XMP properties.
        texts: Texts of a PNG by keyword.
        dpi: Pixels an inch across and down, or None.
        settings: How the picture was made, by this program.
    """

    main: dict[int, tuple[int, Any]] = field(default_factory=dict)
    exif: dict[int, tuple[int, Any]] = field(default_factory=dict)
    location: dict[int, tuple[int, Any]] = field(default_factory=dict)
    xmp: list[ElementTree.Element] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def software(self) -> str:
        """The program that the settings are of."""
        return self.settings.get("Software", "")


def read_origin(path: Path, *, name: str = "data.content", keep_location: bool = False) -> Metadata:
    """What a file says of itself that a picture made from it says, too.

    Args:
        path: The file.
        name: Configuration argument that gave it, for the notice.
        keep_location: Whether that includes where it was photographed.

    Warns:
        UserNotice: That cannot be read; the result is empty.
    """
    try:
        with opened(path, name) as file:
            return _read(file, keep_location)
    except UserError as error:
        reason = str(error).rsplit("; ", 1)[0]
        warnings.warn(f"date, author and so on are not kept: {reason}", UserNotice, stacklevel=2)
        return Metadata()


def read_settings(path: Path) -> dict[str, str]:
    """The settings that this program wrote into a picture; empty where there are none.

    Raises:
        UserError: The file cannot be read as a picture.
    """
    with opened(path, "image") as file:
        packets, description = _texts_of_ours(file)
    for packet in packets:
        found = next((e.text for e in _properties(packet) if e.tag == _SETTINGS), None)
        if found:
            return _settings(found)
    return _settings(description)  # where they were until version 0.1


def exif_block(metadata: Metadata, size: tuple[int, int], srgb: bool, limit: int = 1 << 24) -> bytes:
    """EXIF for a new file, as a TIFF of its own; empty where there is nothing to say.

    Args:
        metadata: What to say.
        size: Height and width in pixels.
        srgb: Whether the pixels are in sRGB.
        limit: The most bytes it may have; the longest values give way.
    """
    if not (metadata.main or metadata.exif or metadata.location or metadata.software or metadata.dpi):
        return b""
    main, exif = main_directory(metadata), exif_directory(metadata, size, srgb)
    while len(block := _tiff(main, exif, metadata.location)) > limit:
        longest = max((main, exif), key=lambda part: _longest(part)[1])
        tag = _longest(longest)[0]
        warnings.warn(f"the content's EXIF tag {tag} is too long here, and left out", UserNotice, stacklevel=2)
        del longest[tag]
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


def xmp_packet(metadata: Metadata) -> bytes:
    """XMP for a new file; empty where there is nothing to say."""
    if not (metadata.xmp or metadata.settings):
        return b""
    return _packet([*metadata.xmp, *_own_properties(metadata)])


def jpeg_segments(metadata: Metadata) -> bytes:
    """The same as segments of a JPEG, which hold 64 KiB each: what is longer goes on in others.

    See XMP Specification Part 3, 1.1.3.1.
    """
    packet = xmp_packet(metadata)
    if not packet:
        return b""
    if len(_JPEG_XMP) + len(packet) <= JPEG_SEGMENT:
        return _segment(_JPEG_XMP + packet)
    rest = _tree(_own_properties(metadata))
    name = hashlib.md5(rest, usedforsecurity=False).hexdigest().upper().encode()
    pointer = ElementTree.Element(_EXTENDED)
    pointer.text = name.decode()
    first = _JPEG_XMP + _packet([*metadata.xmp, pointer])
    if len(first) > JPEG_SEGMENT:
        warnings.warn("the content's XMP is too long for JPEG, and left out", UserNotice, stacklevel=2)
        first = _JPEG_XMP + _packet([pointer])
    step = JPEG_SEGMENT - len(_JPEG_EXTENSION) - len(name) - 8
    parts = [
        _JPEG_EXTENSION + name + struct.pack(">II", len(rest), start) + rest[start : start + step]
        for start in range(0, len(rest), step)
    ]
    return b"".join(_segment(part) for part in (first, *parts))


def png_texts(metadata: Metadata) -> dict[str, str]:
    """Texts of a PNG by their keywords (PNG, third edition, 11.3.3)."""
    texts = dict(metadata.texts)
    for keyword, tag in _FROM_PNG.items():
        if keyword not in texts and tag in metadata.main:
            texts[keyword] = metadata.main[tag][1].decode("utf-8", "replace")
    return texts | ({"Software": metadata.software} if metadata.software else {})


def without_folders(configuration: Any, *, files: bool = False) -> Any:
    """A configuration that can be shown to anyone: of each path the file's name, and nothing of a folder.

    Args:
        configuration: Nested mappings and lists as YAML has them.
        files: Whether all paths in it are those of files; by default only the part ``data`` is so.
    """
    if isinstance(configuration, dict):
        return {
            key: None
            if _is_folder(str(key)) and isinstance(value, str)
            else without_folders(value, files=files or key == "data")
            for key, value in configuration.items()
        }
    if isinstance(configuration, list):
        return [without_folders(value, files=files) for value in configuration]
    if not isinstance(configuration, str) or not re.search(r"[/\\]|^~", configuration):
        return configuration
    name = re.split(r"[/\\]", configuration)[-1]
    # What may be a folder may be named after a person.
    return name if files or "." in name.strip(".") else ""


def _is_folder(key: str) -> bool:
    """Whether an argument of this name (of ours, of Lightning's callbacks, loggers and profilers) is a folder."""
    return key == "fallback" or re.search(r"(^|_)(dir|folder|root|dirpath)$", key) is not None


def _longest(tags: Mapping[int, tuple[int, Any]]) -> tuple[int, int]:
    """Tag and length of the longest text or bytes."""
    sizes = {tag: len(value) for tag, (_, value) in tags.items() if isinstance(value, bytes)}
    tag = max(sizes, key=sizes.__getitem__)
    return tag, sizes[tag]


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


def _own_properties(metadata: Metadata) -> list[ElementTree.Element]:
    if not metadata.settings:
        return []
    tool = ElementTree.Element(f"{{{_NAMESPACES['xmp']}}}CreatorTool")
    tool.text = metadata.software
    settings = ElementTree.Element(_SETTINGS)
    settings.text = json.dumps(metadata.settings)  # it escapes what XML cannot hold
    return [tool, settings] if tool.text else [settings]


def _tree(properties: list[ElementTree.Element]) -> bytes:
    root = ElementTree.Element(f"{{{_NAMESPACES['x']}}}xmpmeta")
    description = ElementTree.SubElement(ElementTree.SubElement(root, f"{_RDF}RDF"), f"{_RDF}Description")
    description.set(f"{_RDF}about", "")
    description.extend(properties)
    text: bytes = ElementTree.tostring(root, encoding="utf-8")
    return text


def _packet(properties: list[ElementTree.Element]) -> bytes:
    begin = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'.encode()
    return begin + _tree(properties) + b'<?xpacket end="w"?>'


def _segment(data: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


def _read(file: BinaryIO, keep_location: bool) -> Metadata:
    metadata = Metadata()
    if is_tiff(file.read(4)):
        _add_exif(metadata, file, keep_location)
        directory = _directory(file)
        packet, iptc = directory.get(_XMP), _iptc_of_tiff(file)
    else:
        info, iptc = _info(file)
        if isinstance(info.get("exif"), bytes):
            with contextlib.suppress(Exception):  # damaged in any way; the rest may be sound
                _add_exif(metadata, io.BytesIO(info["exif"].removeprefix(b"Exif\0\0")), keep_location)
        packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
        if "dpi" in info and all(0 < number < 1e6 for number in info["dpi"]):
            metadata.dpi = (float(info["dpi"][0]), float(info["dpi"][1]))
        _add_png_texts(metadata, info)
    _add_xmp(metadata, packet, keep_location)
    _add_iptc(metadata, iptc or {})
    # What an older version of this program put there is no caption.
    if "nst_lightning" in _settings(metadata.texts.get("Description", "")).get("Software", ""):
        del metadata.texts["Description"]
    caption = metadata.main.get(_DESCRIPTION, (0, b""))[1].decode("latin-1")
    if "nst_lightning" in _settings(caption).get("Software", ""):
        del metadata.main[_DESCRIPTION]
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
                file.seek(8)
                info |= _png_info(file)
            return info, iptc
    except UnidentifiedImageError:  # for another reader, whose files say nothing of this sort
        return {}, None


def _directory(file: BinaryIO, offset: int | None = None) -> Directory:
    """Read a directory of the TIFF that a file holds: the first, or that at an offset."""
    file.seek(0)
    head = file.read(16)
    directory = Directory(head if head[2:4] in (b"+\0", b"\0+") else head[:8])  # with 64-bit offsets or without
    file.seek(directory.next if offset is None else offset)
    directory.load(file)
    return directory


def _add_exif(metadata: Metadata, file: BinaryIO, keep_location: bool) -> None:
    main = _directory(file)
    metadata.main = dict(_chosen(main, _COPIED_MAIN))
    _add_resolution(metadata, main)
    if _EXIF in main:
        metadata.exif = dict(_chosen(_directory(file, int(main[_EXIF])), _COPIED_EXIF))
    if keep_location and _LOCATION in main:
        metadata.location = dict(_chosen(_directory(file, int(main[_LOCATION])), range(32)))


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
        if not isinstance(value, (bytes, tuple)) or 0 < len(value) <= _LARGEST:
            yield tag, (kind, value)


def _add_resolution(metadata: Metadata, directory: Directory) -> None:
    across, down, unit = (directory.get(tag) for tag in _RESOLUTION)
    if unit not in (None, 2, 3) or not across or not down:
        return
    inches = 2.54 if unit == 3 else 1.0
    dpi = float(across) * inches, float(down) * inches
    if all(0 < number < 1e6 for number in dpi):
        metadata.dpi = dpi


def _png_info(file: BinaryIO) -> dict[str, Any]:
    """What the chunks of a PNG say, also behind the pixels, where ExifTool puts it and Pillow looks only when decoding.

    Args:
        file: The file, behind its signature.
    """
    stream = PngImagePlugin.PngStream(file)
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        begin = file.tell()
        if kind in {b"tEXt", b"zTXt", b"iTXt", b"eXIf"}:
            with contextlib.suppress(ValueError):  # one that unfolds to more than it may
                stream.call(kind, begin, length)
        file.seek(begin + length + 4)
    return {str(key): value for key, value in stream.im_info.items()}


def _add_png_texts(metadata: Metadata, info: Mapping[str, Any]) -> None:
    for keyword in _TO_PNG:
        text = info.get(keyword)
        if isinstance(text, str) and 0 < len(text) <= _LARGEST:
            metadata.texts[keyword] = str(text)
    for keyword, tag in _FROM_PNG.items():
        if keyword in metadata.texts:
            metadata.main.setdefault(tag, (TiffTags.ASCII, metadata.texts[keyword].encode()))


def _add_xmp(metadata: Metadata, packet: Any, keep_location: bool) -> None:
    for element in _properties(packet):
        space, _, local = element.tag.removeprefix("{").partition("}")
        prefix = next((p for p, uri in _NAMESPACES.items() if uri == space), "")
        if _names(_COPIED_XMP, prefix, local) or (keep_location and _names(_PLACES_XMP, prefix, local)):
            metadata.xmp.append(element)


def _names(table: Mapping[str, str], prefix: str, local: str) -> bool:
    names = table.get(prefix, "").split()
    return local in names or "*" in names or ("GPS" in names and local.startswith("GPS"))


def _properties(packet: Any) -> list[ElementTree.Element]:
    """XMP's properties, attributes as elements; none of what is no XMP."""
    if isinstance(packet, tuple):  # Pillow's way to give bytes of a TIFF
        packet = bytes(packet)
    text = packet.encode() if isinstance(packet, str) else packet
    if not isinstance(text, bytes) or b"<!DOCTYPE" in text or b"<!ENTITY" in text:  # XMP has none
        return []
    try:
        root = ElementTree.fromstring(text.strip(b"\0 \t\r\n"))
    except (ElementTree.ParseError, ValueError, LookupError):  # LookupError: an encoding that nobody knows
        return []
    found = []
    for description in root.iter(f"{_RDF}Description"):
        for name, value in description.attrib.items():
            element = ElementTree.Element(name)
            element.text = value
            if not name.startswith(_RDF):
                found.append(element)
        found += list(description)
    return found


def _iptc_of_tiff(file: BinaryIO) -> Any:
    file.seek(0)
    # Suppressed: it is of a kind that Pillow does not know.
    with contextlib.suppress(Exception), Image.open(file, formats=["TIFF"]) as image:
        return IptcImagePlugin.getiptcinfo(image)
    return None


def _add_iptc(metadata: Metadata, records: Mapping[tuple[int, int], Any]) -> None:
    """Add what IPTC's older records say and XMP does not."""
    encoding = "utf-8" if records.get((1, 90)) == b"\x1b%G" else "latin-1"
    known = {element.tag for element in metadata.xmp}
    for record, (prefix, local, container) in _FROM_IPTC.items():
        values = records.get(record)
        tag = f"{{{_NAMESPACES[prefix]}}}{local}"
        if not values or tag in known:
            continue
        texts = [
            _plain(value.decode(encoding, "replace")) for value in (values if isinstance(values, list) else [values])
        ]
        if record == (2, 55):
            texts = [re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", texts[0])]
        element = ElementTree.Element(tag)
        if container:
            items = ElementTree.SubElement(element, f"{_RDF}{container}")
            for text in texts:
                item = ElementTree.SubElement(items, f"{_RDF}li")
                item.text = text
                if container == "Alt":
                    item.set("{http://www.w3.org/XML/1998/namespace}lang", "x-default")
        else:
            element.text = texts[0]
        metadata.xmp.append(element)


def _plain(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def _settings(text: str) -> dict[str, str]:
    """Settings from JSON; none from any other text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _texts_of_ours(file: BinaryIO) -> tuple[list[Any], str]:
    """XMP packets of a picture, and its description, in which older versions put the settings."""
    start = file.read(16)
    file.seek(0)
    if is_tiff(start):
        directory = _directory(file)
        return [directory.get(_XMP)], str(directory.get(_DESCRIPTION, ""))
    if jxl.accepts(start):
        return [bmff.top_box(file, b"xml ", most=_LARGEST_BOX)], ""
    with open_image(file, readable_formats()) as image:
        packets = [_extended(image), image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")]
        # Not the method of PNG images, which decodes them.
        exif = Image.Image.getexif(image)
        return packets, str(image.info.get("Description") or exif.get(_DESCRIPTION, ""))


def _extended(image: Image.Image) -> bytes:
    """The part of a JPEG's XMP that went on in further segments."""
    parts = {}
    for _, data in getattr(image, "applist", []):
        if data.startswith(_JPEG_EXTENSION):
            rest = data[len(_JPEG_EXTENSION) + 32 :]
            parts[struct.unpack(">I", rest[4:8])[0]] = rest[8:]
    return b"".join(parts[start] for start in sorted(parts))
