"""Slight damage that every viewer opens is read and told of; what is lost is counted, and too much is refused."""

import io
import re
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import check_image, read_image

RNG = np.random.default_rng(0)
COARSE = np.kron(RNG.integers(20, 236, (12, 16, 3)), np.ones((16, 16, 1)))  # no grey of 128 and no black
RGB8 = np.clip(COARSE + RNG.integers(-9, 10, COARSE.shape), 1, 254).astype(np.uint8)  # 192 x 256
RGB16 = RGB8.astype(np.uint16) * 257 - 3
HEIGHT, WIDTH = RGB8.shape[:2]


def saved(kind, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(RGB8)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


def chunk(kind, data, *, wrong=False):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def png(*before, pixels=None, behind=b""):
    """A PNG of `RGB8` by hand: chunks before its pixels, the compressed pixels, and what is behind them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", DEFLATED) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + body + behind + chunk(b"IEND", b"")


DEFLATED = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB8))


def read(path, data):
    """Pixels of a file in 0..255, and the notices; its size must be known before."""
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert check_image(path) == (HEIGHT, WIDTH)
        assert not caught  # once is enough, and what is only looked at for its size need not be read
        picture = read_image(path)
    assert all(issubclass(item.category, UserNotice) for item in caught)
    notices = [str(item.message) for item in caught]
    assert all(notice.startswith(f"'{path}' ") for notice in notices)
    return picture.pixels[0].permute(1, 2, 0).double().numpy() * 255, [n.removeprefix(f"'{path}' ") for n in notices]


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_image(path, name="data.content")
    message = str(caught.value)
    assert message.startswith(f"data.content: cannot read '{path}': ")
    return message


def per_cent(notice):
    found = re.fullmatch(r"is cut short: ([\d.]+) % of its pixels are missing", notice)
    assert found, notice
    return float(found[1])


class TestPng:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (png(chunk(b"tEXt", b"Comment\0hello", wrong=True)), "has a wrong checksum in tEXt, which no pixel"),
            (png(chunk(b"gAMA", struct.pack(">I", 45455), wrong=True)), "has a wrong checksum in gAMA"),
            (png(chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no"), wrong=True)), "has a wrong checksum in iCCP"),
            (png(behind=chunk(b"tIME", bytes(7), wrong=True)), "has a wrong checksum in tIME"),
            (png(pixels=chunk(b"IDAT", DEFLATED, wrong=True)), "has a wrong checksum in IDAT, which no pixel"),
            (png(pixels=chunk(b"IDAT", DEFLATED[:-4] + b"oops")), "has a wrong checksum of its pixels, and"),
            (png(pixels=chunk(b"IDAT", DEFLATED[:-4])), None),
            (png(pixels=chunk(b"IDAT", DEFLATED) + b"\0\0\0\0IEND"), None),
            (png()[:-4], "is cut short, of which no pixel is missing"),
            (png()[:-12], "is cut short, of which no pixel is missing"),
            (png()[:-18], "is cut short, of which no pixel is missing"),
            (png() + b"rubbish" * 9, None),
            (b"\r\n" + png(), "has 2 bytes before the picture, which are passed over"),
            # A text of a gigabyte
            (png(chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 24)))), "has notes that cannot be read; they are"),
            (png(chunk(b"acTL", struct.pack(">II", 9, 0)), chunk(b"fcTL", bytes(26))), None),
        ],
    )
    def test_no_pixel_is_lost(self, tmp_path, data, said):
        pixels, notices = read(tmp_path / "x.png", data)
        np.testing.assert_allclose(pixels, RGB8, atol=1e-4)
        if said is not None:
            assert len(notices) == 1
            assert notices[0].startswith(said)

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("share", [0.99, 0.9, 0.8])
    def test_what_is_missing_is_counted(self, tmp_path, bits, share):
        values = RGB8 if bits == 8 else RGB16
        data = imagecodecs.png_encode(values)
        pixels, notices = read(tmp_path / "x.png", data[: int(len(data) * share)])
        missing = per_cent(notices[0]) / 100
        there = np.abs(pixels - values / (1 if bits == 8 else 257)).max(-1) < 1e-3
        rows = there.all(1)
        assert rows[: rows.argmin()].all()
        assert not rows[rows.argmin() :].any()
        assert abs((1 - rows.mean()) - missing) < 1.5 / HEIGHT + 0.006

    def test_interlaced(self, tmp_path):
        # By hand: the seven passes, each a picture of its own.
        passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        raw = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in RGB8[y::dy, x::dx])
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1))
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)[:-6000])
        pixels, notices = read(tmp_path / "x.png", data)
        missing = per_cent(notices[0]) / 100
        np.testing.assert_allclose(pixels[::2], RGB8[::2], atol=1e-4)  # the last pass is every second row
        assert abs((np.abs(pixels - RGB8).max(-1) > 1e-3).mean() - missing) < 0.02

    @pytest.mark.parametrize("place", [2000, 20_000])
    def test_wrong_pixels_are_refused(self, tmp_path, place):
        wrong = bytearray(png())
        wrong[place] ^= 1
        assert "the file is damaged (the checksums of its pixels are wrong)" in refused(
            tmp_path / "x.png", bytes(wrong)
        )

    def test_half_is_refused(self, tmp_path):
        data = imagecodecs.png_encode(RGB8)
        assert re.search(
            r"the file is truncated: 5\d % of its pixels are missing, and at most 25 % may be; ",
            refused(tmp_path / "x", data[: len(data) // 2]),
        )

    @pytest.mark.parametrize("where", [29, 20])
    def test_a_wrong_header_is_refused(self, tmp_path, where):
        wrong = bytearray(png())
        wrong[where] ^= 1
        refused(tmp_path / "x.png", bytes(wrong))


JPEGS = {
    "baseline": saved("JPEG", quality=90),
    "4:4:4": saved("JPEG", quality=90, subsampling=0),
    "optimised": saved("JPEG", quality=90, optimize=True),
    "restarts": saved("JPEG", quality=90, restart_marker_blocks=5),
    "grey": saved("JPEG", Image.fromarray(RGB8).convert("L"), quality=90),
    "cmyk": saved("JPEG", Image.fromarray(RGB8).convert("CMYK"), quality=90),
}


def whole_of(tmp_path, kind):
    return read(tmp_path / "whole.jpg", JPEGS[kind])[0]


@pytest.mark.parametrize("kind", sorted(JPEGS))
class TestJpeg:
    @pytest.mark.parametrize("data", [lambda jpeg: jpeg[:-2], lambda jpeg: jpeg[:-1]], ids=["no EOI", "half of EOI"])
    def test_without_its_end(self, tmp_path, kind, data):
        pixels, notices = read(tmp_path / "x.jpg", data(JPEGS[kind]))
        np.testing.assert_array_equal(pixels, whole_of(tmp_path, kind))
        assert notices == ["is cut short, of which no pixel is missing"]

    @pytest.mark.parametrize("ended", [False, True])
    @pytest.mark.parametrize("share", [0.98, 0.9, 0.8])
    def test_what_is_missing_is_counted(self, tmp_path, kind, share, ended):
        """Whether the file says that it ends there or not: libjpeg takes both for an end, without a word."""
        data = JPEGS[kind][: int(len(JPEGS[kind]) * share)]
        pixels, notices = read(tmp_path / "x.jpg", data.rstrip(b"\xff") + b"\xff\xd9" * ended)
        whole = whole_of(tmp_path, kind)
        missing = per_cent(notices[0]) / 100
        differ = np.abs(pixels - whole).max(-1) > 0
        # Blocks go row by row. Chroma that is interpolated makes one more row and column of pixels differ.
        across, down = (8, 8) if kind in {"4:4:4", "grey", "cmyk"} else (16, 16)
        blocks = differ.reshape(HEIGHT // down, down, WIDTH // across, across)[:, 1:-1, :, 1:-1].any((1, 3)).ravel()
        assert abs(blocks.mean() - missing) < 3 / len(blocks) + 0.006
        first = blocks.argmax()
        np.testing.assert_array_equal(
            pixels[: first // (WIDTH // across) * down - 1], whole[: first // (WIDTH // across) * down - 1]
        )

    def test_half_is_refused(self, tmp_path, kind):
        message = refused(tmp_path / "x.jpg", JPEGS[kind][: len(JPEGS[kind]) // 2])
        assert re.search(
            r"the file is truncated: [56]\d % of its pixels are missing, and at most 25 % may be; save it again or",
            message,
        )

    def test_rubbish_around_and_between(self, tmp_path, kind):
        jpeg = JPEGS[kind]
        scan = jpeg.index(b"\xff\xda")
        pixels, notices = read(tmp_path / "x.jpg", jpeg[:scan] + b"abc" + jpeg[scan:] + b"rubbish" * 50)
        np.testing.assert_array_equal(pixels, whole_of(tmp_path, kind))
        assert notices == []
        pixels, notices = read(tmp_path / "x.jpg", b"\n\n\n" + jpeg)
        np.testing.assert_array_equal(pixels, whole_of(tmp_path, kind))
        assert notices == ["has 3 bytes before the picture, which are passed over"]

    def test_room_that_was_never_filled(self, tmp_path, kind):
        data = JPEGS[kind][: int(len(JPEGS[kind]) * 0.9)]
        assert 5 < per_cent(read(tmp_path / "x.jpg", data + bytes(5000))[1][0]) < 20


class TestJpegInPasses:
    JPEG = saved("JPEG", quality=90, progressive=True)

    def test_short_of_its_last_bytes(self, tmp_path):
        whole = read(tmp_path / "whole.jpg", self.JPEG)[0]
        pixels, notices = read(tmp_path / "x.jpg", self.JPEG[:-2])
        np.testing.assert_array_equal(pixels, whole)
        pixels, notices = read(tmp_path / "x.jpg", self.JPEG[:-100])
        assert notices == ["is cut short: its finest detail is missing"]
        assert np.abs(pixels - whole).mean() < 2

    def test_a_quarter_is_refused(self, tmp_path):
        message = refused(tmp_path / "x.jpg", self.JPEG[: len(self.JPEG) // 4])
        assert re.search(
            r"the file is truncated: \d\d % of its pixels are missing, and at most 25 % may be; save it again or",
            message,
        )


class TestNotesOfJpeg:
    JPEG = JPEGS["baseline"]

    @pytest.mark.parametrize(
        "note",
        [
            b"\xff\xe1\0\x20Exif\0\0MM\0*\0\0\xff\xff\xff" + bytes(15),
            b"\xff\xe1\0\x0aExif\0\0XX",
            b"\xff\xe2\0\x10MPF\0II*\0\x08\0\0\0\xff\xff",
            b"\xff\xed\0\x20Photoshop 3.0\x008BIM\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xff\xe0\0\x04ab",
            b"\xff\xfe\0\x06\xff\xfe\xff\xfe",
        ],
        ids=["EXIF", "EXIF without a start", "MPF", "Photoshop", "APP0", "comment"],
    )
    def test_damaged_notes_cost_no_pixel(self, tmp_path, note):
        whole = read(tmp_path / "whole.jpg", self.JPEG)[0]
        pixels, _ = read(tmp_path / "x.jpg", self.JPEG[:2] + note + self.JPEG[2:])
        np.testing.assert_array_equal(pixels, whole)

    def test_notes_that_pillow_does_not_survive(self, tmp_path, monkeypatch):
        from PIL import JpegImagePlugin

        def fail(*_):
            raise struct.error("of a note")

        name, description, _ = JpegImagePlugin.MARKER[0xFFED]
        monkeypatch.setitem(JpegImagePlugin.MARKER, 0xFFED, (name, description, fail))
        whole = read(tmp_path / "whole.jpg", self.JPEG)[0]
        pixels, notices = read(tmp_path / "x.jpg", self.JPEG[:2] + b"\xff\xed\0\x08abcdef" + self.JPEG[2:])
        np.testing.assert_array_equal(pixels, whole)
        assert notices == ["has notes (such as EXIF) that cannot be read; they are left aside"]


class TestWebp:
    @pytest.mark.parametrize("lossless", [False, True])
    @pytest.mark.parametrize("length", [0, 100, 1 << 20, (1 << 32) - 1])
    def test_wrong_length(self, tmp_path, lossless, length):
        webp = saved("WEBP", lossless=lossless)
        whole = read(tmp_path / "whole.webp", webp)[0]
        pixels, notices = read(tmp_path / "x.webp", webp[:4] + struct.pack("<I", length) + webp[8:])
        np.testing.assert_array_equal(pixels, whole)
        assert notices == ["says that it has another length than it has"]

    @pytest.mark.parametrize("lossless", [False, True])
    def test_short_of_its_last_bytes(self, tmp_path, lossless):
        webp = saved("WEBP", lossless=lossless)
        whole = read(tmp_path / "whole.webp", webp)[0]
        pixels, notices = read(tmp_path / "x.webp", webp[: int(len(webp) * 0.95)])
        assert 4 < per_cent(notices[0]) < 6
        same = (np.abs(pixels - whole).max(-1) < 1).mean(1) > 0.99
        assert same[: HEIGHT * 8 // 10].all()

    @pytest.mark.parametrize("quality", range(70, 76))
    def test_short_of_one_byte(self, tmp_path, quality):
        """That may be one that fills up to an even number, of which nothing is missing, or one that is needed."""
        webp = saved("WEBP", quality=quality)
        length = struct.unpack_from("<I", webp, 16)[0]
        whole = read(tmp_path / "whole.webp", webp)[0]
        pixels, notices = read(tmp_path / "x.webp", webp[:-1])
        if length % 2:
            np.testing.assert_array_equal(pixels, whole)
            assert notices == ["says that it has another length than it has"]
        else:
            assert 0 < per_cent(notices[0]) < 1

    def test_half_is_refused(self, tmp_path):
        webp = saved("WEBP")
        assert "the file is truncated: 50 % of its pixels are missing" in refused(
            tmp_path / "x", webp[: len(webp) // 2]
        )


OTHERS = {
    "gif": saved("GIF"),
    "bmp": saved("BMP"),
    "ppm": saved("PPM"),
    "tga": saved("TGA"),
    "tga rle": saved("TGA", compression="tga_rle"),
    "tiff": saved("TIFF"),
    "tiff in strips": tiff(RGB8, rowsperstrip=16),
    "tiff lzw": tiff(RGB8, compression="lzw", rowsperstrip=16),
    "tiff deflate": tiff(RGB8, compression="zlib", rowsperstrip=16, predictor=True),
    "tiff jpeg": tiff(RGB8, compression="jpeg", rowsperstrip=16),
    "tiff tiles": tiff(RGB8, compression="zlib", tile=(32, 32)),
    "tiff 16 bits": tiff(RGB16),
    "tiff 16 bits in strips": tiff(RGB16, rowsperstrip=16),
    "tiff 16 bits deflate": tiff(RGB16, compression="zlib", rowsperstrip=16),
    "tiff 16 bits tiles": tiff(RGB16, compression="lzw", tile=(32, 32)),
    "tiff 16 bits planar": tiff(np.moveaxis(RGB16, -1, 0).copy(), planarconfig="separate", rowsperstrip=16),
}


@pytest.mark.parametrize("kind", sorted(OTHERS))
class TestOtherKinds:
    @pytest.mark.parametrize("share", [0.98, 0.9, 0.85])
    def test_what_is_missing_is_counted(self, tmp_path, kind, share):
        whole, _ = read(tmp_path / "whole", OTHERS[kind])
        pixels, notices = read(tmp_path / "x", OTHERS[kind][: int(len(OTHERS[kind]) * share)])
        missing = per_cent(notices[0]) / 100
        lost = (np.abs(pixels - whole) > 0).mean() if "planar" in kind else (np.abs(pixels - whole).max(-1) > 0).mean()
        assert missing < 0.25
        assert abs(lost - missing) < 0.007

    def test_half_is_refused(self, tmp_path, kind):
        refused(tmp_path / "x", OTHERS[kind][: len(OTHERS[kind]) // 2])


@pytest.mark.parametrize(("encode", "said"), [("jpegxl_encode", "truncated"), ("jpeg2k_encode", "damaged")])
def test_refusals_name_no_functions_of_libraries(tmp_path, encode, said):
    assert refused(tmp_path / "x", getattr(imagecodecs, encode)(RGB8)[:-2]).endswith(
        f"the file is {said}; save it again or choose another picture"
    )


def test_a_gif_without_its_trailer(tmp_path):
    gif = OTHERS["gif"]
    np.testing.assert_array_equal(read(tmp_path / "x.gif", gif[:-1])[0], read(tmp_path / "whole.gif", gif)[0])


@pytest.mark.parametrize(("place", "value"), [(2, 0), (2, 2**31 - 1), (34, 1), (34, 2**32 - 1)])
def test_wrong_lengths_in_bmp(tmp_path, place, value):
    bmp = bytearray(OTHERS["bmp"])
    bmp[place : place + 4] = struct.pack("<I", value)
    np.testing.assert_allclose(read(tmp_path / "x.bmp", bytes(bmp))[0], RGB8, atol=1e-4)


def test_a_damaged_strip_of_many(tmp_path):
    data = bytearray(OTHERS["tiff 16 bits deflate"])
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        start = file.pages[0].dataoffsets[3]
    data[start : start + 40] = bytes(40)
    pixels, notices = read(tmp_path / "x.tif", bytes(data))
    assert per_cent(notices[0]) == pytest.approx(100 * 16 / HEIGHT, abs=0.1)
    assert not pixels[48:64].any()
    np.testing.assert_allclose(np.delete(pixels, range(48, 64), 0), np.delete(RGB16, range(48, 64), 0) / 257, atol=1e-3)


def test_programs_that_refuse_truncated_files_go_on_to(tmp_path):
    read(tmp_path / "x.jpg", JPEGS["baseline"][:-2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_wrong_bytes_among_the_pixels_of_a_jpeg_are_told(tmp_path):
    """libjpeg goes on at the next code that fits, and says nothing through Pillow."""
    picture = np.random.default_rng(0).integers(0, 255, (12, 18, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).resize((180, 120), Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
    data = file.getvalue()
    start = data.index(b"\xff\xda") + 14
    middle = (start + len(data)) // 2
    (tmp_path / "photo.jpg").write_bytes(data[:middle] + data[start + 40 : start + 200] + data[middle:])
    with pytest.warns(UserNotice, match="is damaged: some of its bytes are wrong"):
        assert read_image(tmp_path / "photo.jpg").pixels.shape == (1, 3, 120, 180)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(3, 5), (17, 33), (16, 16), (120, 49)])
@pytest.mark.parametrize("how", [{"quality": 30, "subsampling": 2}, {"quality": 100, "restart_marker_blocks": 2}])
def test_sound_jpegs_are_read_without_a_word(tmp_path, mode, size, how):
    for index, picture in enumerate((Image.new(mode, size), Image.effect_noise(size, 60).convert(mode))):
        picture.save(tmp_path / f"{index}.jpg", **how)
        read_image(tmp_path / f"{index}.jpg")
