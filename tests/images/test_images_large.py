"""Large pictures: what memory holds is read, a JPEG in a fraction of its size; bombs are refused before they go off."""

import io
import resource
import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from nst_lightning import StyleTransferData
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import check_image, limits, read_image

PIXELS = 40 * 50
RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def error_of(path, function=read_image):
    with pytest.raises(UserError) as caught:
        function(path, name="data.content")
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "PATH")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8):
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 99)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


def jpeg(width, height):
    data = saved("JPEG")
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif(width, height):
    data = saved("GIF")
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp(width, height):
    data = saved("BMP")
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def tga(width, height):
    data = saved("TGA")
    data[12:16] = struct.pack("<HH", width, height)
    return bytes(data)


def webp(width, height):
    canvas = struct.pack("<II", 0, width - 1)[:7] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + bytes(saved("WEBP")[12:])
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(width, height, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((40, 50, 3), options.pop("kind", np.uint8)), photometric="rgb", **options)
    buffer.seek(0)
    with tifffile.TiffFile(buffer, mode="r+") as file:
        for tag, value in (("ImageWidth", width), ("ImageLength", height), ("RowsPerStrip", height)):
            file.pages[0].tags[tag].overwrite(value)
        return buffer.getvalue()


BOMBS = {
    "png": png(60_000, 60_000),
    "png 16 bits": png(60_000, 60_000, 16),
    "jpeg": jpeg(60_000, 60_000),
    "gif": gif(60_000, 60_000),
    "bmp": bmp(60_000, 60_000),
    "tga": tga(60_000, 60_000),
    "webp": webp(60_000, 60_000),
    "ppm": b"P6 60000 60000 255\n" + bytes(99),
    "ppm 16 bits": b"P6 60000 60000 65535\n" + bytes(99),
    "tiff": tiff(60_000, 60_000, compression="zlib"),
    "tiff 16 bits": tiff(60_000, 60_000, kind=np.uint16, compression="zlib"),
}


@pytest.mark.parametrize("function", [check_image, read_image])
@pytest.mark.parametrize("kind", sorted(BOMBS))
@pytest.mark.parametrize("free", [1 << 50, None])
def test_bombs(tmp_path, kind, function, free, monkeypatch):
    """However much memory there is: so small a file holds no such picture."""
    if free is not None:
        monkeypatch.setattr(limits, "free_host_memory", lambda: free)
    path = tmp_path / "x"
    path.write_bytes(BOMBS[kind])
    before = peak()
    assert error_of(path, function) == (
        f"data.content: cannot read 'PATH': it says that it has 3600 megapixels, which a file of {len(BOMBS[kind])} "
        "bytes cannot hold; make the picture smaller or choose another one"
    )
    assert peak() - before < 1 << 26


FILES = {
    "png": bytes(saved("PNG")),
    "gif": bytes(saved("GIF")),
    "webp": bytes(saved("WEBP")),
    "bmp": bytes(saved("BMP")),
    "tiff": bytes(saved("TIFF")),
    "jpeg 2000": bytes(saved("JPEG2000")),
    "avif": bytes(saved("AVIF")),
}


@pytest.mark.parametrize("function", [check_image, read_image])
class TestFreeMemory:
    @pytest.mark.parametrize("kind", sorted(FILES))
    def test_is_the_limit(self, tmp_path, kind, function, monkeypatch):
        path = tmp_path / "x"
        path.write_bytes(FILES[kind])
        monkeypatch.setattr(limits, "free_host_memory", lambda: PIXELS * limits.BYTES)
        function(path)
        monkeypatch.setattr(limits, "free_host_memory", lambda: PIXELS * limits.BYTES - 1)
        assert error_of(path, function) == (
            "data.content: cannot read 'PATH': its 0 megapixels need 0.0 GiB of memory, of which 0.0 GiB are free; "
            "make the picture smaller or choose another one"
        )

    @pytest.mark.parametrize("kind", sorted(FILES))
    def test_pillows_limit_is_none(self, tmp_path, kind, function, monkeypatch):
        path = tmp_path / "x"
        path.write_bytes(FILES[kind])
        monkeypatch.setattr(limits, "LARGE", 100)
        monkeypatch.setattr("nst_lightning.images.decode.LARGE", 100)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
        function(path)
        assert Image.MAX_IMAGE_PIXELS == 50

    def test_where_it_is_unknown_pillows_limit_holds(self, tmp_path, function, monkeypatch):
        path = tmp_path / "x"
        path.write_bytes(FILES["png"])
        monkeypatch.setattr(limits, "free_host_memory", lambda: 0)
        function(path)
        monkeypatch.setattr(limits, "LARGE", PIXELS - 1)
        assert "it has 0 megapixels, and at most 0 megapixels are read here" in error_of(path, function)


class TestReduction:
    """What part of a JPEG's size is decoded, of 16000 x 12000 px."""

    @pytest.mark.parametrize(
        ("free", "needed", "factor"),
        [
            (1 << 50, None, 1),
            (1 << 50, (512, 683), 8),  # 1500 x 2000 is more than twice that
            (1 << 50, (760, 1000), 4),
            (1 << 50, (3000, 4000), 2),
            (1 << 50, (3100, 4000), 1),
            (192_000_000 * limits.BYTES // 4, None, 2),
            (192_000_000 * limits.BYTES // 64, None, 8),
            (192_000_000 * limits.BYTES // 64, (512, 683), 8),
            (192_000_000 * limits.BYTES // 16, (3000, 4000), 4),  # all of what is needed, and no more
        ],
    )
    def test_by_memory_and_need(self, monkeypatch, free, needed, factor):
        monkeypatch.setattr(limits, "free_host_memory", lambda: free)
        assert limits.reduction(12_000, 16_000, needed) == factor

    def test_below_the_limit_all_is_decoded(self, monkeypatch):
        monkeypatch.setattr(limits, "free_host_memory", lambda: 1 << 50)
        assert limits.reduction(10_000, 17_000, (64, 64)) == 1

    def test_what_is_to_be_enlarged_is_decoded_as_it_is(self, monkeypatch):
        monkeypatch.setattr(limits, "free_host_memory", lambda: 1 << 50)
        assert limits.reduction(750, 1000, (3000, 4000)) == 1
        assert limits.reduction(750, 1000, (700, 1001)) == 1
        assert limits.reduction(12_000, 16_000, (24_000, 32_000)) == 1

    @pytest.mark.parametrize("needed", [(3001, 4001), (12_000, 16_000)])
    def test_refused(self, monkeypatch, needed):
        monkeypatch.setattr(limits, "free_host_memory", lambda: 192_000_000 * limits.BYTES // 16)
        with pytest.raises(limits.TooLargeError, match=r"its 192 megapixels do not fit into 0\.4 GiB of free memory"):
            limits.reduction(12_000, 16_000, needed)


class TestJpeg:
    @pytest.fixture
    def ramp(self, tmp_path):
        """A smooth picture of 320 x 240 px, lying on its side."""
        y, x = np.mgrid[:240, :320]
        values = np.stack([x * 0.7 + 20, y * 0.9 + 20, 200 - x * 0.3], -1).astype(np.uint8)
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(values).save(tmp_path / "x.jpg", quality=98, subsampling=0, exif=exif)
        return tmp_path / "x.jpg"

    def test_decoded_in_a_fraction(self, ramp, monkeypatch):
        whole = read_image(ramp).pixels
        monkeypatch.setattr(limits, "LARGE", 320 * 240 - 1)
        assert read_image(ramp).pixels.shape == whole.shape
        small = read_image(ramp, needed=(40, 30)).pixels
        assert small.shape == (1, 3, 80, 60)
        assert check_image(ramp) == (320, 240)
        expected = torch.nn.functional.avg_pool2d(whole, 4)
        assert float((small - expected).abs().max()) < 3 / 255

    def test_a_run_of_a_size_above_the_pictures(self, ramp):
        data = StyleTransferData(str(ramp), str(ramp), size=640)
        assert data.stage_size() == (640, 480)
        assert data.stage_images().content.shape == (1, 3, 640, 480)

    def test_memory_for_a_fraction_only(self, ramp, monkeypatch):
        monkeypatch.setattr(limits, "free_host_memory", lambda: 320 * 240 * limits.BYTES // 4)
        assert check_image(ramp) == (320, 240)
        with pytest.warns(UserNotice, match="is read in 1/2 of its size, as memory does not hold more"):
            assert read_image(ramp).pixels.shape == (1, 3, 160, 120)

    def test_the_run_gets_what_it_needs(self, ramp, pair, monkeypatch):
        plain = StyleTransferData(str(ramp), str(pair[1]), size=64)
        monkeypatch.setattr(limits, "LARGE", 320 * 240 - 1)
        reduced = StyleTransferData(str(ramp), str(pair[1]), size=64)
        assert reduced.stage_size() == plain.stage_size() == (64, 48)
        assert reduced.content.pixels.shape == (1, 3, 160, 120)
        difference = reduced.stage_images().content - plain.stage_images().content
        assert float(difference.abs().max()) < 3 / 255


def test_above_pillows_limit(tmp_path):
    """180 megapixels, for real."""
    path = tmp_path / "x.jpg"
    Image.new("L", (18_000, 10_000), 77).save(path)
    assert check_image(path) == (10_000, 18_000)
    picture = read_image(path, needed=(64, 64))
    assert picture.pixels.shape == (1, 3, 1250, 2250)
    assert float((picture.pixels * 255 - 77).abs().max()) < 1
