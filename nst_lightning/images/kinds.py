"""What a file is that is not read as a picture, by its first bytes, and what its owner can do about it."""

import re
from typing import NamedTuple

KNOWN_BYTES = 4096  # number of first bytes of a file that are looked at here


class Kind(NamedTuple):
    """What a file is, with its article, and what to do."""

    name: str
    advice: str


_SAVE = "open it in a program for such files and save it as PNG or TIFF"
_KRITA = "open it in Krita and export it as PNG or TIFF"
_OPEN_RASTER = "open it in Krita or GIMP and export it as PNG or TIFF"
_DRAWING = "open it in Inkscape or a browser and save it as PNG in the size that is wanted"
_PAGE = "save the page as PNG in the size that is wanted"
_FRAME = "save one frame of it as PNG"
_WITHIN = "save the picture in it as PNG"
_UNPACK = "unpack it and give a picture in it"
_OTHER = "choose a picture"
_UNDOTTED = "give the file of the same name without the leading '._'"
_FLOAT = "open it in a program for such files, choose the exposure and save it as PNG or TIFF"

# What a file begins with, and what that says; the first that fits counts. Formats that are read have no place here.
_KINDS = (
    # Programs that paint
    (rb"8BPS", "a Photoshop document", "open it in Photoshop, GIMP or Krita and save it as PNG or TIFF"),
    (rb"gimp xcf", "a GIMP document (XCF)", "open it in GIMP and export it as PNG or TIFF"),
    (rb"\0\xffKA", "an Affinity document", "open it in Affinity and export it as PNG or TIFF"),
    (rb"CSFCHUNK", "a Clip Studio document", "open it in Clip Studio and export it as PNG or TIFF"),
    (rb"Paint Shop Pro Image File", "a PaintShop Pro document", _SAVE),
    (rb"BLENDER", "a Blender document", "render it to PNG or TIFF"),
    # Pictures of kinds that are not read
    (rb"v/1\x01", "an OpenEXR picture", _FLOAT),
    (rb"#\?RADIANCE|#\?RGBE", "a Radiance HDR picture", _FLOAT),
    (rb"\0\0\x01\0", "an icon (ICO)", _SAVE),
    (rb"icns", "an icon of macOS (ICNS)", _SAVE),
    (rb"SIMPLE  =", "a FITS file", _FLOAT),
    (rb".{128}DICM", "a DICOM file", _SAVE),
    (rb".{344}n\+1\0", "a NIfTI volume", _SAVE),
    (rb"DDS ", "a DDS texture", _SAVE),
    (rb"\xabKTX", "a KTX texture", _SAVE),
    (rb"qoif", "a QOI picture", _SAVE),
    (rb"FLIF", "a FLIF picture", _SAVE),
    (rb"BPG\xfb", "a BPG picture", _SAVE),
    (rb"II\xbc\x01", "a JPEG XR picture", _SAVE),
    (rb"\x01\xda", "an SGI picture", _SAVE),
    (rb"Y\xa6j\x95", "a Sun raster picture", _SAVE),
    (rb"\n\x05\x01", "a PCX picture", _SAVE),
    (rb"\x8aMNG", "an MNG animation", _FRAME),
    (rb"\x8bJNG", "a JNG picture", _SAVE),
    (rb"AT&TFORM", "a DjVu document", _SAVE),
    # Drawings and documents
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript drawing (EPS)", _DRAWING),
    (rb"\xd7\xcd\xc6\x9a", "a Windows drawing (WMF)", _DRAWING),
    (rb".{40} EMF", "a Windows drawing (EMF)", _DRAWING),
    (rb"\xd0\xcf\x11\xe0", "a document of an office program", _WITHIN),
    (rb"\{\\rtf", "a text document (RTF)", _WITHIN),
    # Sound and films
    (rb"ID3", "a sound file (MP3)", _OTHER),
    (rb"fLaC", "a sound file (FLAC)", _OTHER),
    (rb"OggS", "a sound or video file (Ogg)", _OTHER),
    (rb"MThd", "a sound file (MIDI)", _OTHER),
    (rb"#!AMR", "a sound file (AMR)", _OTHER),
    (rb"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _FRAME),
    (rb"FLV\x01", "a video (FLV)", _FRAME),
    (rb"\0\0\x01\xba|\0\0\x01\xb3", "a video (MPEG)", _FRAME),
    (rb"0&\xb2u\x8ef\xcf\x11", "a video or sound file (Windows Media)", _FRAME),
    # Archives
    (rb"PK\x05\x06", "an empty ZIP archive", _OTHER),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (rb"7z\xbc\xaf'\x1c", "a 7-Zip archive", _UNPACK),
    (rb"\x1f\x8b", "a gzip archive", _UNPACK),
    (rb"BZh", "a bzip2 archive", _UNPACK),
    (rb"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (rb"\(\xb5/\xfd", "a Zstandard archive", _UNPACK),
    (rb".{257}ustar", "a tar archive", _UNPACK),
    # Data and programs
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", _SAVE),
    (rb"\x93NUMPY", "a NumPy array", _SAVE),
    (rb"SQLite format 3\0", "an SQLite database", _OTHER),
    (rb"\x7fELF", "a program", _OTHER),
    (rb"MZ", "a program of Windows", _OTHER),
    (rb"OTTO|\0\x01\0\0\0|wOF", "a font", _OTHER),
    (rb"L\0\0\0\x01\x14\x02\0", "a shortcut of Windows", "give the path of the file that it leads to"),
    (rb"\0\x05\x16\x07", "what macOS notes about a file, not the file", _UNDOTTED),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    # What is not told by fixed bytes
    (rb"\0\0\x02\0(?!\0\0)", "a cursor (CUR)", _SAVE),  # TGA begins so, too, and has no palette there
    (rb".{0,1019}%PDF-", "a PDF document", _PAGE),  # where readers look for it
    (rb"\xff[\xf1-\xf3\xf9-\xfb][^\xff]", "a sound file (MP3 or AAC)", _OTHER),  # frames without tags before
    # Containers that hold many kinds, by the name of the kind within
    (rb"(RIFF|RIFX|RF64).{4}CDR", "a CorelDRAW document", _DRAWING),
    (rb"(RIFF|RIFX|RF64).{4}WAVE", "a sound file (WAV)", _OTHER),
    (rb"(RIFF|RIFX|RF64).{4}AVI ", "a video (AVI)", _FRAME),
    (rb"(RIFF|RIFX|RF64).{4}ACON", "an animated cursor (ANI)", _SAVE),
    (rb"(RIFF|RIFX|RF64).{4}RMID", "a sound file (MIDI)", _OTHER),
    (rb"(RIFF|RIFX|RF64)(?!.{4}WEBP)", "a RIFF file without a picture", _OTHER),
    (rb"FORM.{4}AIF[FC]", "a sound file (AIFF)", _OTHER),
    (rb"FORM.{4}ILBM", "an Amiga picture (IFF)", _SAVE),
    (rb"FORM(?!.{4}WEBP)", "an IFF file", _OTHER),
    (rb"(?!RIFF).{4}(moov|mdat|wide|ftypqt  )", "a video (MOV)", _FRAME),  # ISO base media, as AVIF and HEIF are
    (rb".{4}ftypM4A ", "a sound file (M4A)", _OTHER),
    (rb".{4}ftypM4B ", "a sound file (M4B)", _OTHER),
    (rb".{4}ftyp(?i:isom|iso[2-9]|mp4[12]|avc1|M4V|3gp|3g2|dash|MSNV|f4v|mmp4|XAVC)", "a video (MP4)", _FRAME),
    # ZIP archives: what they are stands first and uncompressed, that it may be found here
    (rb"PK\x03\x04.{26}mimetypeapplication/x-krita", "a Krita document", _KRITA),
    (rb"PK\x03\x04.{26}mimetypeimage/openraster", "an OpenRaster document", _OPEN_RASTER),
    (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis", "a document of an office program", _WITHIN),
    (rb"PK\x03\x04.{26}mimetypeapplication/epub", "a book (EPUB)", _WITHIN),
    (rb"PK\x03\x04.{0,177}\[Content_Types\]\.xml", "a document of an office program", _WITHIN),
    (rb"PK\x03\x04", "a ZIP archive", _UNPACK),
)
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body|script|meta)\b", re.IGNORECASE)
_SVG = re.compile(rb"<(!doctype\s+svg|svg)\b", re.IGNORECASE)


def kind_of(start: bytes) -> Kind | None:
    """Tell by its first `KNOWN_BYTES` what a file is that is surely not read as a picture; None for any other."""
    for pattern, name, advice in _KINDS:
        if re.match(pattern, start, re.DOTALL):
            return Kind(name, advice)
    return _text(start)


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
