"""What a file is that is not read as a picture, by its first bytes, and what its owner can do about it."""

import re
from typing import NamedTuple

KNOWN_BYTES = 4096  # number of first bytes of a file that are looked at here


class Kind(NamedTuple):
    """What a file is, with its article, and what to do."""

    name: str
    advice: str


_SAVE = "open it in a program for such files and save it as PNG or TIFF"
_DRAWING = "open it in Inkscape or a browser and save it as PNG in the size that is wanted"
_FRAME = "save one frame of it as PNG"
_UNPACK = "unpack it and give a picture in it"
_OTHER = "choose a picture"
_UNDOTTED = "give the file of the same name without the leading '._'"
_FLOAT = "open it in a program for such files, choose the exposure and save it as PNG or TIFF"

# Where the bytes begin, the bytes, and what they say. Formats that are read have no place here.
_SIGNATURES: tuple[tuple[int, bytes | tuple[bytes, ...], str, str], ...] = (
    # Programs that paint
    (0, b"8BPS", "a Photoshop document", "open it in Photoshop, GIMP or Krita and save it as PNG or TIFF"),
    (0, b"gimp xcf", "a GIMP document (XCF)", "open it in GIMP and export it as PNG or TIFF"),
    (0, b"\0\xffKA", "an Affinity document", "open it in Affinity and export it as PNG or TIFF"),
    (0, b"CSFCHUNK", "a Clip Studio document", "open it in Clip Studio and export it as PNG or TIFF"),
    (0, b"Paint Shop Pro Image File", "a PaintShop Pro document", _SAVE),
    (0, b"BLENDER", "a Blender document", "render it to PNG or TIFF"),
    # Pictures of kinds that are not read
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture", _FLOAT),
    (0, (b"#?RADIANCE", b"#?RGBE"), "a Radiance HDR picture", _FLOAT),
    (0, b"\0\0\1\0", "an icon (ICO)", _SAVE),
    (0, b"icns", "an icon of macOS (ICNS)", _SAVE),
    (0, b"SIMPLE  =", "a FITS file", _FLOAT),
    (128, b"DICM", "a DICOM file", _SAVE),
    (344, b"n+1\0", "a NIfTI volume", _SAVE),
    (0, b"DDS ", "a DDS texture", _SAVE),
    (0, b"\xabKTX", "a KTX texture", _SAVE),
    (0, b"qoif", "a QOI picture", _SAVE),
    (0, b"FLIF", "a FLIF picture", _SAVE),
    (0, b"BPG\xfb", "a BPG picture", _SAVE),
    (0, b"II\xbc\x01", "a JPEG XR picture", _SAVE),
    (0, b"\x01\xda", "an SGI picture", _SAVE),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster picture", _SAVE),
    (0, b"\x0a\x05\x01", "a PCX picture", _SAVE),
    (0, b"\x8aMNG", "an MNG animation", _FRAME),
    (0, b"\x8bJNG", "a JNG picture", _SAVE),
    (0, b"AT&TFORM", "a DjVu document", _SAVE),
    # Drawings and documents
    (0, (b"%!PS", b"\xc5\xd0\xd3\xc6"), "a PostScript drawing (EPS)", _DRAWING),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows drawing (WMF)", _DRAWING),
    (40, b" EMF", "a Windows drawing (EMF)", _DRAWING),
    (0, b"\xd0\xcf\x11\xe0", "a document of an office program", "save the picture in it as PNG"),
    (0, b"{\\rtf", "a text document (RTF)", "save the picture in it as PNG"),
    # Sound and films
    (0, b"ID3", "a sound file (MP3)", _OTHER),
    (0, b"fLaC", "a sound file (FLAC)", _OTHER),
    (0, b"OggS", "a sound or video file (Ogg)", _OTHER),
    (0, b"MThd", "a sound file (MIDI)", _OTHER),
    (0, b"#!AMR", "a sound file (AMR)", _OTHER),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _FRAME),
    (0, b"FLV\1", "a video (FLV)", _FRAME),
    (0, (b"\0\0\1\xba", b"\0\0\1\xb3"), "a video (MPEG)", _FRAME),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video or sound file (Windows Media)", _FRAME),
    # Archives
    (0, b"PK\5\6", "an empty ZIP archive", _OTHER),
    (0, b"Rar!\x1a\7", "a RAR archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    # Data and programs
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _SAVE),
    (0, b"\x93NUMPY", "a NumPy array", _SAVE),
    (0, b"SQLite format 3\0", "an SQLite database", _OTHER),
    (0, b"\x7fELF", "a program", _OTHER),
    (0, b"MZ", "a program of Windows", _OTHER),
    (0, (b"OTTO", b"\0\1\0\0\0", b"wOF"), "a font", _OTHER),
    (0, b"L\0\0\0\1\x14\2\0", "a shortcut of Windows", "give the path of the file that it leads to"),
    (0, b"\0\5\x16\7", "what macOS notes about a file, not the file", _UNDOTTED),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
)

# Containers that hold many kinds, by the name of the kind within.
_RIFF = {
    b"WAVE": Kind("a sound file (WAV)", _OTHER),
    b"AVI ": Kind("a video (AVI)", _FRAME),
    b"ACON": Kind("an animated cursor (ANI)", _SAVE),
    b"RMID": Kind("a sound file (MIDI)", _OTHER),
}
_AIFF = Kind("a sound file (AIFF)", _OTHER)
_FORM = {b"AIFF": _AIFF, b"AIFC": _AIFF, b"ILBM": Kind("an Amiga picture (IFF)", _SAVE)}
_BRANDS = {  # of ISO base media files; those of AVIF and HEIF are pictures
    b"M4A ": Kind("a sound file (M4A)", _OTHER),
    b"M4B ": Kind("a sound file (M4B)", _OTHER),
    b"qt  ": Kind("a video (MOV)", _FRAME),
}
_VIDEO_BRAND = re.compile(rb"isom|iso[2-9]|mp4[12]|avc1|M4V|3gp|3g2|dash|MSNV|f4v|mmp4|XAVC", re.IGNORECASE)
_ZIPPED = {
    b"application/x-krita": Kind("a Krita document", "open it in Krita and export it as PNG or TIFF"),
    b"image/openraster": Kind("an OpenRaster document", "open it in Krita or GIMP and export it as PNG or TIFF"),
    b"application/vnd.oasis": Kind("a document of an office program", "save the picture in it as PNG"),
    b"application/epub": Kind("a book (EPUB)", "save the picture in it as PNG"),
}
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body|script|meta)\b", re.IGNORECASE)
_SVG = re.compile(rb"<(!doctype\s+svg|svg)\b", re.IGNORECASE)
_MPEG_SOUND = re.compile(rb"\xff[\xf1-\xf3\xf9-\xfb][^\xff]")  # frames of MP3 (layer III) and AAC without tags before


def kind_of(start: bytes) -> Kind | None:
    """Tell by its first `KNOWN_BYTES` what a file is that is surely not read as a picture; None for any other."""
    return _signed(start) or _container(start) or _text(start)


def _signed(start: bytes) -> Kind | None:
    for place, signature, name, advice in _SIGNATURES:
        if start.startswith(signature, place):
            return Kind(name, advice)
    if start.startswith(b"\0\0\2\0") and start[4:6] != b"\0\0":  # TGA begins so, too, and has no palette there
        return Kind("a cursor (CUR)", _SAVE)
    if b"%PDF-" in start[:1024]:  # where readers look for it
        return Kind("a PDF document", "save the page as PNG in the size that is wanted")
    return Kind("a sound file (MP3 or AAC)", _OTHER) if _MPEG_SOUND.match(start) else None


def _container(start: bytes) -> Kind | None:
    if start.startswith((b"RIFF", b"RIFX", b"RF64", b"FORM")):
        return _chunked(start)
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return _base_media(start)
    return _zipped(start) if start.startswith(b"PK\3\4") else None


def _chunked(start: bytes) -> Kind | None:
    within = start[8:12]
    if within == b"WEBP":
        return None
    if start.startswith(b"FORM"):
        return _FORM.get(within, Kind("an IFF file", _OTHER))
    if within[:3] == b"CDR":
        return Kind("a CorelDRAW document", _DRAWING)
    return _RIFF.get(within, Kind("a RIFF file without a picture", _OTHER))


def _base_media(start: bytes) -> Kind | None:
    if start[4:8] != b"ftyp":
        return Kind("a video (MOV)", _FRAME)
    brand = start[8:12]
    if brand in _BRANDS:
        return _BRANDS[brand]
    return Kind("a video (MP4)", _FRAME) if _VIDEO_BRAND.match(brand) else None


def _zipped(start: bytes) -> Kind:
    if start[30:38] == b"mimetype":  # stored first and uncompressed, that it may be found here
        for mime, kind in _ZIPPED.items():
            if start.startswith(mime, 38):
                return kind
    if b"[Content_Types].xml" in start[:200]:
        return Kind("a document of an office program", "save the picture in it as PNG")
    return Kind("a ZIP archive", _UNPACK)


def _text(start: bytes) -> Kind | None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) and len(start) % 2 == 0:
        start = start.decode("utf-16", errors="replace").encode()
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        if _SVG.search(text) and not _HTML.match(text):
            return Kind("an SVG drawing", _DRAWING)
        if _HTML.search(text):
            return Kind("a web page (HTML)", "the page was saved in place of the picture: save the picture itself")
        return Kind("an XML text", _OTHER)
    if re.match(rb"P[1-7Ff]\s", text) or re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]", text):
        return None
    try:
        text[:-3].decode()  # its last character may be cut
    except UnicodeDecodeError:
        return None
    return Kind("a text file", _OTHER) if text else None
