"""Kinds of files beyond the common ones: who reads them, and what is said where a reader lacks."""

import struct
import sys
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from colours import BT2020, CHECKER, ENCODINGS, SRGB, light_to_srgb, nits_to_hlg, nits_to_pq, rgb_to_xyz
from PIL import Image

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import check_image, jxl, read_image, read_mask_samples

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


def notices(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_image(path)
    assert all(issubclass(each.category, UserNotice) for each in caught)
    return [str(each.message).replace(str(path), "PATH") for each in caught]


class TestHdr:
    @pytest.mark.parametrize(("name", "transfer", "encode"), [("PQ", 16, nits_to_pq), ("HLG", 18, nits_to_hlg)])
    def test_white_is_203_and_highlights_are_clipped(self, tmp_path, name, transfer, encode):
        nits = np.array([0, 2.03, 20.3, 101.5, 203, 400, 1000])
        path = tmp_path / "x.png"
        png(path, encode(nits[None, :, None].repeat(3, 2).repeat(2, 0)), (b"cICP", bytes([9, transfer, 0, 1])))
        with pytest.warns(UserNotice) as caught:
            values = pixels(path)
        np.testing.assert_allclose(values[0, :, 0], light_to_srgb(np.minimum(nits / 203, 1)), atol=1e-3)
        assert {str(each.message) for each in caught} == {
            f"'{path}' is an HDR picture ({name}): its white of 203 cd/m2 becomes white, and so does what is brighter"
        }

    def test_a_bright_colour_is_clipped_in_srgb_and_not_before(self, tmp_path):
        """An orange of BT.2020 with red above white: green and blue stay where their light is."""
        nits = np.array([[[300.0, 120.0, 40.0]] * 2] * 2)
        png(tmp_path / "x.png", nits_to_pq(nits), (b"cICP", bytes([9, 16, 0, 1])))
        light = nits[0, 0] / 203 @ (np.linalg.inv(rgb_to_xyz(SRGB)) @ rgb_to_xyz(BT2020)).T
        assert light[0] > 1 > light[1]
        with pytest.warns(UserNotice, match="HDR"):
            np.testing.assert_allclose(pixels(tmp_path / "x.png")[0, 0], light_to_srgb(light), atol=1e-3)

    def test_a_mask_is_not_converted(self, tmp_path):
        png(tmp_path / "x.png", np.full((2, 2, 3), 0.5), (b"cICP", bytes([9, 16, 0, 1])))
        np.testing.assert_allclose(read_mask_samples(tmp_path / "x.png")[0], 0.5, atol=1e-4)

    def test_primaries_without_hdr_say_nothing(self, tmp_path):
        png(tmp_path / "x.png", ROW, (b"cICP", bytes([12, 13, 0, 1])))
        assert notices(tmp_path / "x.png") == []


class TestPngChunks:
    def test_code_points_that_nobody_knows(self, tmp_path):
        png(tmp_path / "x.png", ROW, (b"cICP", bytes([1, 9, 0, 1])))
        assert notices(tmp_path / "x.png") == [
            "the colours of 'PATH' have code points (CICP 1/9) that are not known here; its pixels are taken as sRGB"
        ]

    @pytest.mark.parametrize(
        "chunk",
        [
            (b"cICP", bytes([2, 2, 0, 1])),  # unspecified
            (b"cICP", bytes([12, 13, 6, 1])),  # a matrix, which PNG cannot have
            (b"cICP", b"\x0c"),
            (b"gAMA", struct.pack(">I", 0)),
            (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),  # alone
        ],
    )
    def test_what_says_nothing_means_srgb(self, tmp_path, chunk):
        png(tmp_path / "x.png", ROW, chunk)
        np.testing.assert_allclose(pixels(tmp_path / "x.png"), ROW, atol=1e-4)

    @pytest.mark.parametrize("numbers", [(0,) * 8, (31270, 0, 64000, 33000, 30000, 60000, 15000, 6000), (1,) * 8])
    def test_chromaticities_of_no_colour_space(self, tmp_path, numbers):
        gamma = (b"gAMA", struct.pack(">I", 100_000))
        png(tmp_path / "x.png", ENCODINGS["linear"](ROW), gamma, (b"cHRM", struct.pack(">8I", *numbers)))
        assert pixels(tmp_path / "x.png").shape == ROW.shape


class TestCameras:
    def camera_jpeg(self, path, mode="RGB", space=65535, index="R03", **options):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA001] = space
        exif.get_ifd(0x8769)[0xA005] = {1: index}
        Image.new(mode, (16, 16), options.pop("color", (100, 150, 100))).save(
            path, "JPEG", exif=exif, quality=100, **options
        )

    def test_a_profile_goes_before_exif(self, tmp_path):
        self.camera_jpeg(tmp_path / "x.jpg", icc_profile=imagecodecs.cms_profile("srgb"))
        np.testing.assert_allclose(pixels(tmp_path / "x.jpg")[0, 0] * 255, (100, 150, 100), atol=1)

    def test_r98_is_srgb(self, tmp_path):
        self.camera_jpeg(tmp_path / "x.jpg", index="R98")
        np.testing.assert_allclose(pixels(tmp_path / "x.jpg")[0, 0] * 255, (100, 150, 100), atol=1)

    def test_adobe_rgb_is_no_word_for_ink(self, tmp_path):
        self.camera_jpeg(tmp_path / "x.jpg", "CMYK", color=(0, 0, 0, 51))
        assert notices(tmp_path / "x.jpg") == []
        np.testing.assert_allclose(pixels(tmp_path / "x.jpg"), 0.8, atol=1 / 255)


def jp2(code, height, width, channels, *boxes):
    def box(kind, data):
        return struct.pack(">I4s", 8 + len(data), kind) + data

    header = box(b"ihdr", struct.pack(">IIHBBBB", height, width, channels, 7, 7, 0, 0))
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return head + box(b"jp2h", header + b"".join(box(*each) for each in boxes)) + box(b"jp2c", code)


class TestJpeg2000:
    def code(self, values):
        return imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k", mct=False)

    def test_palette(self, tmp_path):
        index = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(4, 0).repeat(4, 1)
        palette = np.array([[255, 0, 0], [0, 250, 0], [0, 0, 200], [9, 8, 7]], np.uint8)
        boxes = [
            (b"colr", b"\1\0\0" + struct.pack(">I", 16)),
            (b"pclr", struct.pack(">HB", 4, 3) + b"\7\7\7" + palette.tobytes()),
            (b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3))),
        ]
        (tmp_path / "x.jp2").write_bytes(jp2(self.code(index), 8, 8, 1, *boxes))
        np.testing.assert_allclose(pixels(tmp_path / "x.jp2") * 255, palette[index], atol=1e-4)

    def test_ink(self, tmp_path):
        ink = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
        (tmp_path / "x.jp2").write_bytes(jp2(self.code(ink), 8, 8, 4, (b"colr", b"\1\0\0" + struct.pack(">I", 12))))
        share = ink / 255
        np.testing.assert_allclose(pixels(tmp_path / "x.jp2"), (1 - share[..., :3]) * (1 - share[..., 3:]), atol=1e-6)

    def test_a_space_that_is_not_read_is_refused(self, tmp_path):
        lab = (b"colr", b"\1\0\0" + struct.pack(">I", 14))
        (tmp_path / "x.jp2").write_bytes(jp2(self.code(np.zeros((8, 8, 3), np.uint8)), 8, 8, 3, lab))
        with pytest.raises(UserError, match="its colour space is the one of number 14 in JPEG 2000; save it as RGB"):
            read_image(tmp_path / "x.jp2")

    @pytest.mark.parametrize("bits", [1, 4, 12])
    def test_few_and_many_bits(self, tmp_path, bits):
        values = (np.arange(64).reshape(8, 8) * 67 % 2**bits).astype(np.uint8 if bits <= 8 else np.uint16)
        data = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k", bitspersample=bits)
        (tmp_path / "x.j2k").write_bytes(data)
        np.testing.assert_allclose(pixels(tmp_path / "x.j2k")[..., 0], values / (2**bits - 1), atol=1e-6)


def test_a_profile_that_a_bmp_only_links_to_is_not_looked_for(tmp_path):
    rows = bytes(8 * 8 * 3)
    link = str(tmp_path / "no.icc").encode("cp1252")
    header = struct.pack("<IiiHHIIiiII", 124, 8, 8, 1, 24, 0, len(rows), 2835, 2835, 0, 0) + bytes(16) + b"KNIL"
    header += bytes(48) + struct.pack("<IIII", 4, 124 + len(rows), len(link), 0)
    head = b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(link), 0, 0, 138)
    (tmp_path / "x.bmp").write_bytes(head + header + rows + link)
    assert notices(tmp_path / "x.bmp") == []


@pytest.mark.parametrize(
    "text",
    ["P3 2 2 1023 1 2", "P6 2 2 1023 \0\1", "PF 2 2 -1.0 \0", "P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 9\nENDHDR\n"],
)
def test_netpbm_that_is_cut(tmp_path, text):
    (tmp_path / "x.ppm").write_bytes(text.encode())
    with pytest.raises(UserError, match="the file is truncated"):
        read_image(tmp_path / "x.ppm")


@pytest.mark.parametrize("size", [(2, 3), (8, 8), (300, 200), (256, 64), (9, 520), (600, 500)])
@pytest.mark.parametrize("level", [0, 2])
def test_size_and_depth_of_jpeg_xl_without_decoding(tmp_path, size, level):
    """Heights and widths in every form that the header has for them."""
    values = np.zeros((*size, 3), np.uint16)
    values[0, 0] = 65535
    (tmp_path / "x.jxl").write_bytes(imagecodecs.jpegxl_encode(values, lossless=level == 0, distance=level))
    assert check_image(tmp_path / "x.jxl") == size
    with (tmp_path / "x.jxl").open("rb") as file:
        assert jxl._header(file).bits == 16


def test_heic_of_a_codec_that_is_not_built_in(tmp_path):
    chart = (Path(__file__).parents[1] / "charts" / "heic_8.heic").read_bytes()
    (tmp_path / "x.heic").write_bytes(chart.replace(b"hvc1", b"vvc1"))
    with pytest.raises(
        UserError, match="coded in a way that pillow-heif does not read; save it as RGB with 8 or 16 bits"
    ):
        read_image(tmp_path / "x.heic")
