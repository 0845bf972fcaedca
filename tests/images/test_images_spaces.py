"""Colour spaces and formats that pictures are written in, against the definitions of the spaces and other readers."""

import io
import struct
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import check_image, check_writable, read_image, write_image
from nst_lightning.images.codepoints import linear_profile
from nst_lightning.images.color import extended_encoded, extended_linear, srgb_profile
from nst_lightning.images.profiles import ColorSpace, check_color_space, color_space, space_of_content, to_space

# x and y of red, green, blue: IEC 61966-2-1, SMPTE EG 432-1, Adobe RGB (1998) 4.3.1; white is D65 in all.
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
WIDE = [("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("webp", 8), ("jpg", 8), ("avif", 8), ("avif", 10)]


def rgb_to_xyz(primaries):
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def srgb_curve(linear):
    size = np.abs(linear)
    return np.sign(linear) * np.where(size <= 0.0031308, 12.92 * size, 1.055 * size ** (1 / 2.4) - 0.055)


def srgb_light(values):
    size = np.abs(values)
    return np.sign(values) * np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)


def expected(values, name):
    """Values in a space, by its definition, in double precision."""
    primaries = DISPLAY_P3 if name == "display-p3" else ADOBE_RGB
    light = srgb_light(values.astype(float)) @ (np.linalg.inv(rgb_to_xyz(primaries)) @ rgb_to_xyz(SRGB)).T
    curve = srgb_curve if name == "display-p3" else lambda v: np.maximum(v, 0) ** (256 / 563)
    return np.clip(curve(light), 0, 1)


def corners(name):
    """Colours that a space holds and sRGB does not, as sRGB values beyond [0, 1], and what they are there."""
    primaries = DISPLAY_P3 if name == "display-p3" else ADOBE_RGB
    there = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0.1, 0.2], [0.2, 0.9, 0.3], [0, 0.8, 0.7], [1, 1, 1]], float)
    light = srgb_light(there) if name == "display-p3" else there ** (563 / 256)
    return srgb_curve(light @ (np.linalg.inv(rgb_to_xyz(SRGB)) @ rgb_to_xyz(primaries)).T), there


def patches(colours, side=8):
    return torch.from_numpy(np.repeat(np.repeat(colours[None], side, 0), side, 1)).permute(2, 0, 1)[None].float()


def stored(path):
    """Samples and profile of a file by its format's other readers, over the largest value."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            values, icc = file.pages[0].asarray(), file.pages[0].iccprofile
    elif path.suffix == ".png":
        values = imagecodecs.png_decode(path.read_bytes())
        with Image.open(path) as image:
            icc = image.info["icc_profile"]
    else:
        with Image.open(path) as image:
            icc = image.info["icc_profile"]
            values = np.array(image)
    return values.astype(float) / np.iinfo(values.dtype).max, icc


@pytest.mark.parametrize("name", ["display-p3", "adobe-rgb"])
class TestSpaces:
    def test_profile(self, name):
        profile = ImageCms.getOpenProfile(io.BytesIO(color_space(name).icc)).profile
        description = {"display-p3": "Display P3", "adobe-rgb": "Adobe RGB (compatible)"}[name]
        assert profile.profile_description == description
        colorants = [profile.red_colorant[0], profile.green_colorant[0], profile.blue_colorant[0]]
        # Adapted to D50 by Bradford; as Apple's profile and Adobe RGB (1998), annex C, have them.
        published = {
            "display-p3": [(0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841)],
            "adobe-rgb": [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)],
        }
        np.testing.assert_allclose(colorants, published[name], atol=2e-4)
        assert color_space(name).icc[24:36] == srgb_profile()[24:36]  # the same bytes whenever it is made

    def test_values_by_definition(self, name):
        values = np.random.default_rng(0).uniform(-0.3, 1.3, (40, 50, 3)).astype(np.float32)
        error = np.abs(to_space(values, color_space(name)) - expected(values, name))
        # Profiles hold colorants to 1 / 65536 of light, which near black are many steps of a gamma of 2.2.
        assert error.max() < 0.4 / 255
        assert error.mean() < 2 / 65535

    def test_littlecms_agrees(self, name):
        """Within sRGB, where its own integer path from the sRGB profile can follow."""
        values = np.random.default_rng(1).uniform(0, 1, (40, 50, 3)).astype(np.float32)
        source = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
        target = ImageCms.ImageCmsProfile(io.BytesIO(color_space(name).icc))
        steps = np.rint(values * 255).astype(np.uint8)
        moved = ImageCms.profileToProfile(Image.fromarray(steps), source, target, renderingIntent=1)
        ours = to_space((steps / 255).astype(np.float32), color_space(name)) * 255
        assert np.abs(ours - np.array(moved)).max() < 1.6  # its tables for 8 bits are a step off in the dark
        spaces = {"colorspace": "rgb", "outcolorspace": "rgb", "outdtype": "float32"}
        exact = imagecodecs.cms_transform(values, srgb_profile(), color_space(name).icc, **spaces)
        np.testing.assert_allclose(to_space(values, color_space(name)), exact, atol=2e-4)

    @pytest.mark.parametrize(("suffix", "bits"), WIDE)
    def test_colours_beyond_srgb_are_held(self, tmp_path, name, suffix, bits):
        beyond, there = corners(name)
        assert beyond.min() < -0.1  # out of sRGB indeed
        path = tmp_path / f"x.{suffix}"
        write_image(path, patches(beyond), bits=bits, space=color_space(name), quality=100)
        values, icc = stored(path)
        assert icc == color_space(name).icc
        error = np.abs(values[4, 4::8] - there)
        # As above: where there is no light in a channel, what profiles are rounded to shows with a gamma of 2.2.
        limit = {"jpg": 4, "avif": 0.75}.get(suffix, 0.75 if bits == 8 else 0.15) / 255
        assert error[there > 0].max() < limit
        assert error[there == 0].max() < max(limit, 2.01 / 255 if name == "adobe-rgb" else 0.6 / 255)

    @pytest.mark.parametrize(("suffix", "bits"), WIDE)
    def test_read_back(self, tmp_path, name, suffix, bits):
        beyond, _ = corners(name)
        write_image(tmp_path / f"x.{suffix}", patches(beyond), bits=bits, space=color_space(name), quality=100)
        plain = read_image(tmp_path / f"x.{suffix}").pixels
        wide = read_image(tmp_path / f"x.{suffix}", extended=True).pixels
        tolerance = 0.03 if suffix == "jpg" else 0.004
        # One step of a channel at 0 is several of a negative value in sRGB, whose curve is steep there.
        assert (srgb_light(wide.numpy()) - srgb_light(patches(beyond).numpy())).max() < tolerance
        assert (plain - patches(beyond).clamp(0, 1)).abs().max() < (0.07 if suffix == "jpg" else 2.5 / 255)
        assert plain.min() >= 0
        assert plain.max() <= 1

    def test_alpha(self, tmp_path, name):
        beyond, _ = corners(name)
        alpha = torch.linspace(0.3, 1, 56).expand(1, 1, 8, 56).clone()
        shown = patches(np.clip(beyond, 0, 1)) * alpha + 1 - alpha
        write_image(tmp_path / "x.tif", shown, alpha=alpha, bits=16, space=color_space(name))
        picture = read_image(tmp_path / "x.tif")
        assert (picture.alpha - alpha).abs().max() < 1e-4
        assert (picture.pixels - shown).abs().max() < 0.5 / 255


class TestSrgb:
    def test_nothing_changes(self, tmp_path):
        """What is beyond sRGB is clipped, and the bytes are those of before there were other spaces."""
        values = patches(corners("display-p3")[0])
        write_image(tmp_path / "a.png", values)
        write_image(tmp_path / "b.png", values.clamp(0, 1), space=color_space("srgb"))
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    def test_extended_values_are_srgb_mirrored(self):
        values = np.linspace(-1.5, 1.5, 3001).astype(np.float32)
        np.testing.assert_allclose(extended_linear(values), srgb_light(values), atol=1e-6)
        np.testing.assert_allclose(extended_encoded(extended_linear(values)), values, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("sRGB", "srgb"),
        ("Display P3", "display-p3"),
        ("display_p3", "display-p3"),
        ("P3", "display-p3"),
        ("AdobeRGB", "adobe-rgb"),
        ("Adobe RGB (1998)", "adobe-rgb"),
        ("content", "content"),
    ],
)
def test_names(given, name):
    assert check_color_space(given) == name


def test_a_name_that_is_none():
    with pytest.raises(
        UserError, match=r"^color_space: must be one of srgb, display-p3, adobe-rgb, content, got 'cmyk'; "
    ):
        check_color_space("cmyk")


class TestContentsOwn:
    def test_its_own_profile(self, tmp_path):
        romm = {"whitepoint": (0.3457, 0.3585, 1.0), "primaries": (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)}
        icc = bytes(imagecodecs.cms_profile("rgb", **romm, gamma=1.8))  # as ProPhoto RGB
        colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 200], [128, 128, 128]], np.uint8)
        Image.fromarray(np.repeat(colours[None], 4, 0)).save(tmp_path / "photo.png", icc_profile=icc)
        picture = read_image(tmp_path / "photo.png", extended=True)
        assert picture.pixels.min() < -0.2
        space = space_of_content(picture.profile, picture.path)
        assert space.icc == icc
        write_image(tmp_path / "x.png", picture.pixels, space=space)
        values, profile = stored(tmp_path / "x.png")
        assert profile == icc
        np.testing.assert_allclose(values[0] * 255, colours, atol=1)

    def test_none_is_srgb(self):
        assert space_of_content(None, None) == color_space("srgb")

    @pytest.mark.parametrize(
        ("profile", "reason"),
        [
            (bytes(imagecodecs.cms_profile("gray", gamma=2.2)), "it is for GRAY"),
            (srgb_profile()[:300], "cannot|can't|failed|"),
            (linear_profile(), "linear light"),
            (srgb_profile()[:128] + bytes(1 << 20), "more than readers of PNG take"),
        ],
    )
    def test_of_no_use(self, tmp_path, profile, reason):
        with pytest.warns(UserNotice, match=f"color_space: the profile of '.*' cannot be written with .*{reason}.*"):
            assert space_of_content(profile, tmp_path) == color_space("srgb")


class TestAvif:
    @pytest.mark.parametrize("bits", [8, 10, 12])
    @pytest.mark.parametrize("channels", [3, 4])
    def test_lossless(self, tmp_path, bits, channels):
        peak = 2**bits - 1
        steps = np.random.default_rng(0).integers(0, peak + 1, (17, 23, channels))
        pixels = torch.from_numpy(steps[..., :3] / peak).permute(2, 0, 1)[None].float()
        alpha = None
        if channels == 4:
            alpha = torch.from_numpy(steps[..., 3:] / peak).permute(2, 0, 1)[None].float()
            pixels = pixels * alpha + 1 - alpha
        write_image(tmp_path / "x.avif", pixels, alpha=alpha, bits=bits, quality=100)
        decoded = imagecodecs.avif_decode((tmp_path / "x.avif").read_bytes())
        assert decoded.dtype == (np.uint8 if bits == 8 else np.uint16)
        if channels == 3:
            np.testing.assert_array_equal(decoded, steps)
        else:
            np.testing.assert_array_equal(decoded[..., 3], steps[..., 3])
            opacity = decoded[..., 3:] / peak
            shown = decoded[..., :3] / peak * opacity + 1 - opacity
            np.testing.assert_allclose(shown, pixels[0].permute(1, 2, 0), atol=0.51 / peak)

    def test_quality(self, tmp_path):
        y, x = np.mgrid[0:64, 0:96]
        values = np.stack([0.5 + 0.4 * np.sin(x / 19), 0.5 + 0.4 * np.cos(y / 17), 0.5 + 0.4 * np.sin((x + y) / 22)])
        sizes, errors = [], []
        for quality in (30, 95, 100):
            write_image(tmp_path / "x.avif", torch.from_numpy(values)[None], quality=quality)
            sizes.append((tmp_path / "x.avif").stat().st_size)
            with Image.open(tmp_path / "x.avif") as image:
                errors.append(np.abs(np.array(image) / 255 - values.transpose(1, 2, 0)).max())
        assert sizes == sorted(sizes)
        assert errors[1] < 6 / 255
        assert errors[2] < 0.51 / 255

    @pytest.mark.parametrize("name", ["srgb", "display-p3", "adobe-rgb"])
    def test_code_points(self, tmp_path, name):
        write_image(tmp_path / "x.avif", torch.rand(1, 3, 9, 9), space=color_space(name))
        data = (tmp_path / "x.avif").read_bytes()
        place = data.index(b"colrnclx") + 8
        points = {"srgb": (1, 13), "display-p3": (12, 13), "adobe-rgb": (2, 2)}
        assert struct.unpack(">HH", data[place : place + 4]) == points[name]

    def test_an_encoder_with_other_boxes_costs_what_is_said(self, tmp_path, monkeypatch):
        encode = imagecodecs.avif_encode
        monkeypatch.setattr(imagecodecs, "avif_encode", lambda *a, **k: encode(*a, **k) + b"\0\0\0\x08free")
        with pytest.warns(UserNotice, match="AVIF without date, author, settings and profile"):
            write_image(tmp_path / "x.avif", torch.rand(1, 3, 9, 9), space=color_space("display-p3"))
        assert check_image(tmp_path / "x.avif") == (9, 9)


class TestJpegXl:
    def steps(self, bits):
        return np.random.default_rng(0).integers(0, 2**bits, (17, 23, 4)) / (2**bits - 1)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_lossless(self, tmp_path, bits):
        steps = self.steps(bits)
        pixels = torch.from_numpy(steps[..., :3]).permute(2, 0, 1)[None]
        write_image(tmp_path / "x.jxl", pixels, bits=bits, quality=100)
        decoded = imagecodecs.jpegxl_decode((tmp_path / "x.jxl").read_bytes())
        if bits == 8:
            np.testing.assert_array_equal(decoded, np.rint(steps[..., :3] * 255))
        else:  # linear light, as the file says; its steps are 13 of sRGB's in the dark
            error = np.abs(srgb_curve(decoded / 65535) - steps[..., :3])
            assert error.max() < 7 / 65535
            assert error[steps[..., :3] > 0.2].max() < 1.5 / 65535

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("quality", [95, 100])
    def test_colours(self, tmp_path, bits, quality):
        """As a reader sees them that heeds what the file says of itself."""
        pillow_jxl = pytest.importorskip("pillow_jxl")
        y, x = np.mgrid[0:64, 0:96]
        values = np.stack([0.5 + 0.4 * np.sin(x / 19), 0.5 + 0.4 * np.cos(y / 17), 0.5 + 0.4 * np.sin((x + y) / 22)])
        write_image(tmp_path / "x.jxl", torch.from_numpy(values)[None], bits=bits, quality=quality)
        data = (tmp_path / "x.jxl").read_bytes()
        decoded = imagecodecs.jpegxl_decode(data)
        icc = bytes(pillow_jxl.Decoder(num_threads=1)(data)[3])
        seen = imagecodecs.cms_transform(
            (decoded / np.iinfo(decoded.dtype).max).astype(np.float32),
            icc,
            srgb_profile(),
            colorspace="rgb",
            outcolorspace="rgb",
            outdtype="float32",
        )
        error = np.abs(seen - values.transpose(1, 2, 0))
        assert error.max() < (0.6 / 255 if quality == 100 else 16 / 255)
        assert error.mean() < (0.3 / 255 if quality == 100 else 1 / 255)

    def test_alpha(self, tmp_path):
        steps = self.steps(8)
        alpha = torch.from_numpy(steps[..., 3:]).permute(2, 0, 1)[None]
        write_image(tmp_path / "x.jxl", torch.rand(1, 3, 17, 23) * alpha + 1 - alpha, alpha=alpha, quality=100)
        decoded = imagecodecs.jpegxl_decode((tmp_path / "x.jxl").read_bytes())
        np.testing.assert_array_equal(decoded[..., 3], np.rint(steps[..., 3] * 255))

    @pytest.mark.parametrize("quality", [1, 20, 29, 30, 90])
    def test_lower_quality_is_smaller(self, tmp_path, quality):
        pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        for name, value in (("less", quality), ("more", quality + 8)):
            write_image(tmp_path / f"{name}.jxl", pixels, quality=value)
        assert (tmp_path / "less.jxl").stat().st_size < (tmp_path / "more.jxl").stat().st_size

    def test_other_spaces_are_refused_before_the_run(self, tmp_path):
        with pytest.raises(
            UserError, match=r"^color_space: must be srgb for JPEG XL, whose encoder takes no other, got"
        ):
            check_writable(tmp_path / "x.jxl", color_space="Display P3")


def test_png_says_display_p3_in_cicp(tmp_path):
    """PNG, third edition, 11.3.2.6: primaries 12, transfer 13, no matrix, full range; before iCCP and IDAT."""
    write_image(tmp_path / "x.png", torch.rand(1, 3, 9, 9), space=color_space("display-p3"))
    assert (tmp_path / "x.png").read_bytes()[33:49] == struct.pack(">I4s4B", 4, b"cICP", 12, 13, 0, 1) + struct.pack(
        ">I", __import__("zlib").crc32(b"cICP\x0c\x0d\0\1")
    )


def test_an_unusable_profile_says_so_in_reading_only(tmp_path):
    Image.new("RGB", (9, 9), (9, 99, 199)).save(tmp_path / "x.png", icc_profile=srgb_profile()[:200])
    with pytest.warns(UserNotice, match="cannot be used"):
        picture = read_image(tmp_path / "x.png", extended=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)
        assert isinstance(space_of_content(picture.profile, picture.path), ColorSpace)
