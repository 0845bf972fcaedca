"""Reading pictures of each kind into one form."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import check_image, read_image, read_mask_samples

RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)


def pixels(path):
    """(H, W, 3) float64 of a file, with the size check_image promised."""
    picture = read_image(path)
    assert picture.pixels.dtype == torch.float32
    assert check_image(path) == (picture.height, picture.width)
    return picture.pixels[0].permute(1, 2, 0).double().numpy()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def stored_turned(upright, orientation):
    """The array that a camera stores under an EXIF orientation, by where EXIF says row 0 and column 0 are."""
    height, width = upright.shape[:2]
    swapped = orientation >= 5
    stored = np.empty((width, height, 3) if swapped else upright.shape, upright.dtype)
    # For each orientation: upright (row, column) that stored (i, j) shows.
    place = {
        1: lambda i, j: (i, j),  # top left
        2: lambda i, j: (i, width - 1 - j),  # top right
        3: lambda i, j: (height - 1 - i, width - 1 - j),  # bottom right
        4: lambda i, j: (height - 1 - i, j),  # bottom left
        5: lambda i, j: (j, i),  # left top
        6: lambda i, j: (j, width - 1 - i),  # right top
        7: lambda i, j: (height - 1 - j, width - 1 - i),  # right bottom
        8: lambda i, j: (height - 1 - j, i),  # left bottom
    }[orientation]
    for i in range(stored.shape[0]):
        for j in range(stored.shape[1]):
            stored[i, j] = upright[place(i, j)]
    return stored


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
class TestOrientation:
    @pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
    def test_lossless(self, tmp_path, orientation, suffix):
        path = tmp_path / f"x.{suffix}"
        options = {"lossless": True} if suffix == "webp" else {}
        Image.fromarray(stored_turned(RGB8, orientation)).save(path, exif=exif(orientation), **options)
        np.testing.assert_allclose(pixels(path), RGB8 / 255, atol=1e-7)

    def test_jpeg(self, tmp_path, orientation):
        ramp = np.stack(np.broadcast_arrays(np.arange(24)[:, None] * 10, np.arange(16) * 15, 99), -1)
        path = tmp_path / "x.jpg"
        stored = Image.fromarray(stored_turned(ramp.astype(np.uint8), orientation))
        stored.save(path, exif=exif(orientation), quality=100, subsampling=0)
        np.testing.assert_allclose(pixels(path), ramp / 255, atol=4 / 255)

    def test_deep_tiff(self, tmp_path, orientation):
        path = tmp_path / "x.tif"
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, stored_turned(RGB16, orientation), photometric="rgb", extratags=tags)
        np.testing.assert_allclose(pixels(path), RGB16 / 65535, atol=1e-7)

    @pytest.mark.parametrize("late", [False, True])
    @pytest.mark.parametrize("deep", [False, True])
    def test_png_chunk_before_and_behind_the_pixels(self, tmp_path, orientation, late, deep):
        source, peak = (RGB16, 65535) if deep else (RGB8, 255)
        encoded = imagecodecs.png_encode(stored_turned(source, orientation))
        at = len(encoded) - 12 if late else 33
        chunk = png_chunk(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
        path = tmp_path / "x.png"
        path.write_bytes(encoded[:at] + chunk + encoded[at:])
        np.testing.assert_allclose(pixels(path), source / peak, atol=1e-7)


def test_damaged_exif_leaves_the_picture_readable(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(RGB8).save(path, exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff")
    assert pixels(path).shape == RGB8.shape


class TestDepth:
    gradient = np.arange(65536, dtype=np.uint16).reshape(256, 256)

    def test_grey_png(self, tmp_path):
        path = tmp_path / "x.png"
        Image.fromarray(self.gradient).save(path)
        np.testing.assert_array_equal(np.rint(pixels(path) * 65535), self.gradient[..., None].repeat(3, -1))

    @pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}, {"byteorder": ">"}])
    def test_grey_tiff(self, tmp_path, options):
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, self.gradient, photometric="minisblack", **options)
        np.testing.assert_array_equal(np.rint(pixels(path) * 65535), self.gradient[..., None].repeat(3, -1))

    def test_white_is_zero(self, tmp_path):
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, self.gradient, photometric="miniswhite")
        np.testing.assert_array_equal(
            np.rint(pixels(path) * 65535), 65535 - self.gradient[..., None].repeat(3, -1).astype(int)
        )

    @pytest.mark.parametrize("options", [{"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}])
    def test_rgb_tiff(self, tmp_path, options):
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, RGB16, photometric="rgb", **options)
        np.testing.assert_allclose(pixels(path), RGB16 / 65535, atol=1e-7)

    def test_planar_tiff(self, tmp_path):
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, np.moveaxis(RGB16, -1, 0), photometric="rgb", planarconfig="separate")
        np.testing.assert_allclose(pixels(path), RGB16 / 65535, atol=1e-7)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_floating_point_tiff(self, tmp_path, kind):
        path = tmp_path / "x.tif"
        values = np.linspace(-0.25, 1.25, 54).reshape(6, 3, 3).astype(kind)
        tifffile.imwrite(path, values, photometric="rgb")
        light = np.clip(values.astype(float), 0, 1)
        expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        with pytest.warns(UserNotice, match="floating-point samples and no profile: they are taken as linear light"):
            np.testing.assert_allclose(pixels(path), expected, atol=1e-4)

    def test_32_bit_integers(self, tmp_path):
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, np.array([[0, 2**31], [2**32 - 1, 7]], np.uint32), photometric="minisblack")
        np.testing.assert_allclose(pixels(path)[..., 0], [[0, 0.5], [1, 0]], atol=1e-7)

    def test_16_bit_cmyk(self, tmp_path):
        path = tmp_path / "x.tif"
        ink = RNG.integers(0, 65536, (4, 5, 4), dtype=np.uint16)
        tifffile.imwrite(path, ink, photometric="separated")
        share = ink / 65535
        np.testing.assert_allclose(pixels(path), (1 - share[..., :3]) * (1 - share[..., 3:]), atol=1e-6)


class TestModes:
    @pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
    def test_one_bit(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        image = Image.new("1", (4, 3))
        image.putpixel((1, 2), 1)
        image.save(path)
        expected = np.zeros((3, 4, 3))
        expected[2, 1] = 1
        np.testing.assert_array_equal(pixels(path), expected)

    @pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
    def test_grey(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(RGB8[..., 0]).save(path)
        np.testing.assert_allclose(pixels(path), RGB8[..., :1].repeat(3, -1) / 255, atol=1e-7)

    @pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
    def test_palette(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        image = Image.new("P", (2, 2))
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        image.putdata([0, 1, 2, 1])
        image.save(path)
        expected = np.array([[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]])
        np.testing.assert_allclose(pixels(path) * 255, expected, atol=1e-4)

    def test_palette_with_transparency(self, tmp_path):
        path = tmp_path / "x.png"
        image = Image.new("P", (2, 2))
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        image.putdata([0, 1, 2, 2])
        image.save(path, transparency=bytes([0, 51, 255]))
        half = [0.2 * v + 0.8 * 255 for v in (40, 50, 60)]
        expected = np.array([[[255, 255, 255], half], [[70, 80, 90], [70, 80, 90]]])
        np.testing.assert_allclose(pixels(path) * 255, expected, atol=1e-3)
        np.testing.assert_allclose(read_image(path).alpha[0, 0] * 255, [[0, 51], [255, 255]], atol=1e-4)

    @pytest.mark.parametrize(("mode", "key"), [("RGB", (1, 2, 3)), ("L", 1), ("1", 0)])
    def test_transparent_colour(self, tmp_path, mode, key):
        path = tmp_path / "x.png"
        image = Image.new(mode, (2, 2), 255 if mode != "RGB" else (255, 0, 9))
        image.putpixel((1, 0), key)
        image.save(path, transparency=key)
        np.testing.assert_array_equal(read_image(path).alpha[0, 0], [[1, 0], [1, 1]])
        np.testing.assert_array_equal(pixels(path)[0, 1], [1, 1, 1])

    def test_transparent_colour_of_16_bits(self, tmp_path):
        path = tmp_path / "x.png"
        encoded = imagecodecs.png_encode(RGB16)
        key = png_chunk(b"tRNS", RGB16[1, 2].astype(">u2").tobytes())
        path.write_bytes(encoded[:33] + key + encoded[33:])
        expected = np.ones((6, 9))
        expected[1, 2] = 0
        np.testing.assert_array_equal(read_image(path).alpha[0, 0], expected)

    @pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
    def test_rgba_over_white(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        rgba = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
        Image.fromarray(rgba).save(path, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
        alpha = rgba[..., 3:] / 255
        np.testing.assert_allclose(pixels(path), alpha * rgba[..., :3] / 255 + 1 - alpha, atol=1e-6)
        np.testing.assert_allclose(read_image(path).alpha[0, 0], alpha[..., 0], atol=1e-7)

    def test_grey_with_alpha(self, tmp_path):
        path = tmp_path / "x.png"
        Image.merge("LA", [Image.fromarray(RGB8[..., k]) for k in (0, 1)]).save(path)
        grey, alpha = RGB8[..., :1] / 255, RGB8[..., 1:2] / 255
        np.testing.assert_allclose(pixels(path), (alpha * grey + 1 - alpha).repeat(3, -1), atol=1e-6)

    @pytest.mark.parametrize("channels", [2, 4])
    def test_16_bit_alpha_png(self, tmp_path, channels):
        path = tmp_path / "x.png"
        values = RNG.integers(0, 65536, (6, 9, channels), dtype=np.uint16)
        path.write_bytes(imagecodecs.png_encode(values))
        alpha = values[..., -1:] / 65535
        expected = alpha * values[..., :-1] / 65535 + 1 - alpha
        np.testing.assert_allclose(pixels(path), np.broadcast_to(expected, (6, 9, 3)), atol=1e-6)

    @pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
    def test_16_bit_alpha_tiff(self, tmp_path, kind):
        path = tmp_path / "x.tif"
        alpha = RNG.integers(20000, 65536, (6, 9, 1), dtype=np.uint16)
        rgb = (RGB16 // 4).astype(np.uint16)  # below the least alpha, as associated colours must be
        tifffile.imwrite(path, np.concatenate([rgb, alpha], -1), photometric="rgb", extrasamples=[kind])
        colour, opacity = rgb / 65535, alpha / 65535
        expected = {
            "unassalpha": colour * opacity + 1 - opacity,
            "assocalpha": colour + 1 - opacity,
            "unspecified": colour,
        }[kind]
        np.testing.assert_allclose(pixels(path), expected, atol=1e-6)

    def test_opaque_alpha_is_none(self, tmp_path):
        path = tmp_path / "x.png"
        Image.new("RGBA", (3, 3), (1, 2, 3, 255)).save(path)
        assert read_image(path).alpha is None

    @pytest.mark.parametrize("suffix", ["tif", "jpg"])
    def test_cmyk_without_profile(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        Image.new("CMYK", (16, 16), (51, 102, 0, 51)).save(path, **({"quality": 100} if suffix == "jpg" else {}))
        expected = np.array([0.8 * 0.8, 0.6 * 0.8, 0.8])
        np.testing.assert_allclose(pixels(path), np.broadcast_to(expected, (16, 16, 3)), atol=1.5 / 255)

    def test_first_frame_of_an_animation(self, tmp_path):
        for suffix in ("gif", "webp", "png"):
            path = tmp_path / f"x.{suffix}"
            frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
            options = {"lossless": True} if suffix == "webp" else {}
            frames[0].save(path, save_all=True, append_images=frames[1:], **options)
            np.testing.assert_array_equal(pixels(path), np.broadcast_to([1.0, 0, 0], (4, 4, 3)))

    def test_16_bit_pgm(self, tmp_path):
        path = tmp_path / "x.pgm"
        path.write_bytes(b"P5 2 2 65535\n" + np.array([0, 1, 40000, 65535], ">u2").tobytes())
        np.testing.assert_array_equal(np.rint(pixels(path)[..., 0] * 65535), [[0, 1], [40000, 65535]])


def test_path_as_text_and_attributes(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(RGB8).save(path)
    picture = read_image(str(path))
    assert (picture.path, picture.height, picture.width, picture.alpha) == (Path(path), 6, 9, None)
    assert picture.pixels.shape == (1, 3, 6, 9)
    assert picture.pixels.is_contiguous()


def test_check_image_does_not_decode(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    buffer = io.BytesIO()
    Image.fromarray(RGB8).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert check_image(path) == (6, 9)


class TestMaskSamples:
    def test_no_profile_is_applied(self, tmp_path):
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
        profile = imagecodecs.cms_profile("gray", whitepoint=(0.3457, 0.3585, 1.0), gamma=1.75)  # near Dot Gain 20 %
        Image.fromarray(ramp).save(tmp_path / "x.png", icc_profile=profile)
        grey, alpha, _ = read_mask_samples(tmp_path / "x.png")
        np.testing.assert_array_equal(grey[0, 0] * 255, ramp)
        assert alpha is None

    def test_alpha_comes_beside_and_is_not_composited(self, tmp_path):
        samples = RNG.integers(0, 65536, (6, 9, 2), dtype=np.uint16)
        (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(samples))
        grey, alpha, _ = read_mask_samples(tmp_path / "x.png")
        np.testing.assert_allclose(grey[0, 0] * 65535, samples[..., 0], atol=0.01)
        np.testing.assert_allclose(alpha[0, 0] * 65535, samples[..., 1], atol=0.01)

    def test_opaque_alpha_is_none(self, tmp_path):
        Image.new("LA", (3, 3), (7, 255)).save(tmp_path / "x.png")
        assert read_mask_samples(tmp_path / "x.png")[1] is None

    def test_colours_by_their_luma(self, tmp_path):
        Image.fromarray(RGB8).save(tmp_path / "x.png")
        expected = RGB8 / 255 @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(read_mask_samples(tmp_path / "x.png")[0][0, 0], expected, atol=1e-4)

    def test_chroma_is_that_of_the_visible_part(self, tmp_path):
        pixels = np.zeros((2, 3, 4), np.uint8)
        pixels[0] = (255, 0, 0, 0)  # hidden red
        pixels[1, 0] = (200, 100, 149, 255)
        pixels[1, 1] = (50, 50, 50, 51)
        Image.fromarray(pixels).save(tmp_path / "x.png")
        assert read_mask_samples(tmp_path / "x.png").chroma == pytest.approx((100 * 1 + 0 * 0.2) / 1.2 / 255)
        Image.new("RGBA", (3, 3), (255, 0, 0, 0)).save(tmp_path / "x.png")
        assert read_mask_samples(tmp_path / "x.png").chroma == 0

    def test_labels_and_turned_pictures(self, tmp_path):
        labels = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
        Image.fromarray(labels).save(tmp_path / "x.png", exif=exif(6))
        np.testing.assert_allclose(
            read_mask_samples(tmp_path / "x.png")[0][0, 0] * 255, np.rot90(labels, -1), atol=1e-6
        )

    def test_an_error_names_the_argument(self, tmp_path):
        with pytest.raises(UserError, match=r"^data\.content_mask: needs an existing picture"):
            read_mask_samples(tmp_path / "no.png", "data.content_mask")


def test_no_plugins_of_pillow_are_imported_but_those_that_pictures_are_read_by(tmp_path):
    """In a process of its own: Pillow imports all fifty for whoever asks it for one that it does not know."""
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg")
    code = (
        "import sys; from pathlib import Path; from nst_lightning.images.decode import read_raster, readable_formats;"
        f"read_raster(Path({str(tmp_path / 'x.jpg')!r}), 'content');"
        "print(*{'PIL.PdfImagePlugin', 'PIL.EpsImagePlugin', 'PIL.DdsImagePlugin'} & set(sys.modules));"
        "given = readable_formats(); from PIL import Image; Image.init();"
        "assert given == readable_formats() and {'JPEG', 'PNG', 'TIFF', 'WEBP', 'AVIF'} <= set(given)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr[-2000:]
