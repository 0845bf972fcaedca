"""Kinds of files beyond the common ones: who reads them, and what is said where a reader lacks."""

import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from colours import CHECKER, ENCODINGS

from nst_lightning.errors import UserError
from nst_lightning.images import check_image, read_image, read_mask_samples

ROW = np.tile(CHECKER[None], (4, 1, 1))  # (4, 24, 3)


def pixels(path):
    picture = read_image(path)
    assert check_image(path) == (picture.height, picture.width)
    return picture.pixels[0].permute(1, 2, 0).double().numpy()


def png(path, samples, *chunks):
    """A PNG of (H, W, 3) samples in [0, 1] with 16 bits, by hand."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.rint(np.clip(samples, 0, 1) * 65535).astype(">u2")
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


CICP = {"p3": (12, 13), "bt2020": (9, 14), "linear": (1, 8), "srgb": (1, 13)}


@pytest.mark.parametrize("encoding", CICP)
def test_png_by_code_points(tmp_path, encoding):
    png(tmp_path / "x.png", ENCODINGS[encoding](ROW), (b"cICP", bytes([*CICP[encoding], 0, 1])))
    np.testing.assert_allclose(pixels(tmp_path / "x.png"), ROW, atol=0.5 / 255)


MISSING = {
    "heic": ("pillow_heif", "heif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "a HEIC picture"),
    "jxl": ("pillow_jxl", "jxl", imagecodecs.jpegxl_encode(np.zeros((8, 8, 3), np.uint8)), "a JPEG XL picture"),
}


@pytest.mark.parametrize("function", [check_image, read_image, read_mask_samples])
@pytest.mark.parametrize("kind", MISSING)
def test_an_extra_that_is_missing_is_named(tmp_path, monkeypatch, kind, function):
    module, extra, data, name = MISSING[kind]
    path = tmp_path / "x.dat"  # the kind is known by what is in the file
    path.write_bytes(data)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        function(path, name="data.content")
    assert str(caught.value) == (
        f"data.content: cannot read '{path}': reading {name} needs the extra '{extra}', which is not installed; "
        f"pip install 'nst_lightning[{extra}]', or save it as JPEG or PNG"
    )
