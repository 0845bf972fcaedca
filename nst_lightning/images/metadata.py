"""What a picture says of itself beside its pixels: date, camera, author and caption, and how it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from PIL import TiffTags

LARGEST_VALUE = 1 << 14  # most bytes of one value; longer ones are no words of an author
_FROM_PNG = {"Description": 270, "Author": 315, "Copyright": 33432}
_TO_PNG = ("Title", "Author", "Description", "Copyright", "Creation Time", "Comment")


@dataclass
class Metadata:
    """What is said of a picture."""

    # EXIF's first directory: values by tag, each with its TIFF type.
    main: dict[int, tuple[int, Any]] = field(default_factory=dict)
    exif: dict[int, tuple[int, Any]] = field(default_factory=dict)  # EXIF's own directory, the same
    location: dict[int, tuple[int, Any]] = field(default_factory=dict)  # EXIF's place, the same
    xmp: list[ElementTree.Element] = field(default_factory=list)  # XMP properties
    texts: dict[str, str] = field(default_factory=dict)  # texts of a PNG by keyword
    dpi: tuple[float, float] | None = None  # pixels an inch across and down, or None
    settings: dict[str, str] = field(default_factory=dict)  # how the picture was made, by this program

    @property
    def software(self) -> str:
        """The program that the settings are of."""
        return self.settings.get("Software", "")


def png_texts(metadata: Metadata) -> dict[str, str]:
    """Texts of a PNG by their keywords (PNG, third edition, 11.3.3)."""
    texts = dict(metadata.texts)
    for keyword, tag in _FROM_PNG.items():
        if keyword not in texts and tag in metadata.main:
            texts[keyword] = metadata.main[tag][1].decode("utf-8", "replace")
    return texts | ({"Software": metadata.software} if metadata.software else {})


def add_png_texts(metadata: Metadata, info: Mapping[str, Any]) -> None:
    """Copy the words of an author from a PNG's texts, as Pillow names them, into texts and EXIF."""
    for keyword in _TO_PNG:
        text = info.get(keyword)
        if isinstance(text, str) and 0 < len(text) <= LARGEST_VALUE:
            metadata.texts[keyword] = str(text)
    for keyword, tag in _FROM_PNG.items():
        if keyword in metadata.texts:
            metadata.main.setdefault(tag, (TiffTags.ASCII, metadata.texts[keyword].encode()))


def without_folders(configuration: Any, *, files: bool = False) -> Any:
    """A configuration that can be shown to anyone: of each path the file's name, and nothing of a folder.

    With `files` all paths in it are those of files; by default only those in ``data`` are surely so.
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
