"""XMP of pictures, and IPTC's older records, which XMP has names for: read and written."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from nst_lightning.errors import notice
from nst_lightning.images.metadata import Metadata

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

JPEG_SEGMENT = 65_533  # most bytes of a segment behind its length
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


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
        notice("the content's XMP is too long for JPEG, and left out")
        first = _JPEG_XMP + _packet([pointer])
    step = JPEG_SEGMENT - len(_JPEG_EXTENSION) - len(name) - 8
    parts = [
        _JPEG_EXTENSION + name + struct.pack(">II", len(rest), start) + rest[start : start + step]
        for start in range(0, len(rest), step)
    ]
    return b"".join(_segment(part) for part in (first, *parts))


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


def add_xmp(metadata: Metadata, packet: Any, keep_location: bool) -> None:
    """Copy what a new picture may say from an XMP packet; with the place if ``keep_location``."""
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


def add_iptc(metadata: Metadata, records: Mapping[tuple[int, int], Any]) -> None:
    """Add what IPTC's older records say and XMP does not."""
    encoding = "utf-8" if records.get((1, 90)) == b"\x1b%G" else "latin-1"
    known = {element.tag for element in metadata.xmp}
    for record, (prefix, local, container) in _FROM_IPTC.items():
        values = records.get(record)
        tag = f"{{{_NAMESPACES[prefix]}}}{local}"
        if not values or tag in known:
            continue
        values = values if isinstance(values, list) else [values]
        texts = [_plain(value.decode(encoding, "replace")) for value in values]
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


def settings_of(text: str) -> dict[str, str]:
    """Settings from JSON; none from any other text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def extended_packet(image: Image.Image) -> bytes:
    """The part of a JPEG's XMP that went on in further segments."""
    parts = {}
    for _, data in getattr(image, "applist", []):
        if data.startswith(_JPEG_EXTENSION):
            rest = data[len(_JPEG_EXTENSION) + 32 :]
            parts[struct.unpack(">I", rest[4:8])[0]] = rest[8:]
    return b"".join(parts[start] for start in sorted(parts))


def settings_in(packet: Any) -> dict[str, str]:
    """The settings that this program wrote into an XMP packet; empty where there are none."""
    return settings_of(next((e.text for e in _properties(packet) if e.tag == _SETTINGS), None) or "")
