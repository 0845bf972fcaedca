"""Files of kinds that are not read are called what they are, and never damaged."""

import gzip
import io
import json
import sqlite3
import tarfile
import wave
import zipfile

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from nst_lightning.errors import UserError
from nst_lightning.images import check_image, read_image

RGB = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def by_pillow(kind):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    return buffer.getvalue()


def by_matplotlib(kind):
    buffer = io.BytesIO()
    figure = matplotlib.figure.Figure((1, 1))
    figure.add_subplot().plot([0, 1])
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def sound():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2000))
    return buffer.getvalue()


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in members.items():
            file.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        data = by_pillow("PNG")
        entry = tarfile.TarInfo("x.png")
        entry.size = len(data)
        file.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def database(folder):
    with sqlite3.connect(folder / "x.sqlite") as connection:
        connection.execute("create table x (y)")
    connection.close()
    return (folder / "x.sqlite").read_bytes()


def box(kind, data):
    return (len(data) + 8).to_bytes(4, "big") + kind + data


JPEG = by_pillow("JPEG")
PAGE = b"\xef\xbb\xbf\n <!DOCTYPE html>\n<html><head><title>404</title></head><body><svg></svg></body></html>"
KINDS = {
    # Written by other programs and libraries
    "EPS": by_pillow("EPS"),
    "EPS of matplotlib": (by_matplotlib("eps"), "EPS"),
    "PDF": by_pillow("PDF"),
    "PDF of matplotlib": (by_matplotlib("pdf"), "PDF"),
    "SVG": by_matplotlib("svg"),
    "ICO": by_pillow("ICO"),
    "ICNS": by_pillow("ICNS"),
    "PCX": by_pillow("PCX"),
    "SGI": by_pillow("SGI"),
    "DDS": by_pillow("DDS"),
    "WAV": sound(),
    "ZIP": zipped(x="text"),
    "Krita": zipped(mimetype="application/x-krita", maindoc="x"),
    "OpenRaster": zipped(mimetype="image/openraster", stack="x"),
    "office": zipped(**{"[Content_Types].xml": "<Types/>", "word__document.xml": "x"}),
    "tar": tarred(),
    "gzip": gzip.compress(JPEG),
    # By hand, from the formats' descriptions
    "Photoshop": b"8BPS\0\1" + bytes(60) + JPEG,
    "XCF": b"gimp xcf v011\0" + bytes(60),
    "OpenEXR": b"\x76\x2f\x31\x01\2\0\0\0channels\0" + bytes(60),
    "Radiance": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 4\n" + bytes(64),
    "CUR": b"\0\0\2\0\1\0\x20\x20\0\0\0\0\0\0" + bytes(200),
    "ANI": b"RIFF\x40\0\0\0ACONanih" + bytes(60),
    "AVI": b"RIFF\x40\0\0\0AVI LIST" + bytes(60),
    "AIFF": b"FORM\0\0\0\x40AIFFCOMM" + bytes(60),
    "MP3": b"ID3\3\0\0\0\0\x10\0APIC\0\0\1\0\0\0\0image/jpeg\0" + JPEG,
    "MP3 without tags": (b"\xff\xfb\x90\x64" + bytes(400), "MP3"),
    "FLAC": b"fLaC\0\0\0\x22" + bytes(60),
    "Ogg": b"OggS\0\2" + bytes(60),
    "M4A": box(b"ftyp", b"M4A \0\0\2\0M4A mp42isom") + box(b"mdat", JPEG),
    "MP4": box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + box(b"mdat", JPEG),
    "MOV": box(b"ftyp", b"qt  \0\0\2\0qt  ") + box(b"mdat", JPEG),
    "MOV of old": (box(b"wide", b"") + box(b"mdat", JPEG), "MOV"),
    "Matroska": b"\x1a\x45\xdf\xa3" + bytes(60),
    "FITS": b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                  -32".ljust(2800),
    "DICOM": bytes(128) + b"DICM" + bytes(60),
    "web page": PAGE,
    "web page in XHTML": (b'<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"/>', "web page"),
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "text": b"hello",
    "text of a server": (json.dumps({"error": "not found"}).encode(), "text"),
    "text in UTF-8": ("Ein schönes Bild € hier nicht".encode(), "text"),
    "text in UTF-16": ("Ein schönes Bild".encode("utf-16"), "text"),
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "macOS": b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60),
}


@pytest.mark.parametrize("function", [check_image, read_image])
@pytest.mark.parametrize("name", sorted(KINDS))
def test_called_what_it_is(tmp_path, name, function):
    data, expected = KINDS[name] if isinstance(KINDS[name], tuple) else (KINDS[name], name)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        function(path, name="data.content")
    message = str(caught.value)
    before, _, after = message.partition(f"got '{path}', which is ")
    assert before == "data.content: needs a JPEG, PNG, WebP, TIFF, AVIF, HEIC or JPEG XL picture, "
    what, _, advice = after.partition("; ")
    assert expected in what
    assert advice
    assert "damaged" not in message


def test_database(tmp_path):
    (tmp_path / "x.png").write_bytes(database(tmp_path))
    with pytest.raises(UserError, match="which is an SQLite database; choose a picture"):
        check_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "TGA", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "txt"])
def test_no_picture_is_taken_for_another_kind(tmp_path, kind, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(by_pillow(kind))
    assert check_image(path) == (32, 32)
    read_image(path)


@pytest.mark.parametrize("text", [b"P1\n2 2\n1 0\n0 1\n", b"P3\n2 2 255\n" + b"1 2 3 " * 4])
def test_pictures_that_are_texts(tmp_path, text):
    (tmp_path / "x").write_bytes(text)
    assert check_image(tmp_path / "x") == (2, 2)
