"""Colour management against matrices worked out here from the definitions of the colour spaces."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from nst_lightning.images import color, read_image
from nst_lightning.images.color import off_white, over_white, srgb_profile

D65 = (0.3127, 0.3290)
D50_XYZ = np.array([0.9642, 1.0, 0.8249])
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def xyz(x, y):
    return np.array([x / y, 1, (1 - x - y) / y])


def rgb_to_xyz(primaries):
    columns = np.stack([xyz(*primary) for primary in primaries], axis=1)
    return columns * np.linalg.solve(columns, xyz(*D65))


def encode_srgb(linear):
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def matrix_oracle(values, primaries, gamma):
    to_srgb = np.linalg.inv(rgb_to_xyz(SRGB)) @ rgb_to_xyz(primaries)
    return encode_srgb((values**gamma) @ to_srgb.T)


def lab_oracle(lab):
    """L*a*b* under D50 to sRGB, by CIE 15 and a Bradford adaptation to D65."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    under_d50 = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50_XYZ
    scale = (BRADFORD @ xyz(*D65)) / (BRADFORD @ D50_XYZ)
    adapt = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD
    return encode_srgb(under_d50 @ (np.linalg.inv(rgb_to_xyz(SRGB)) @ adapt).T)


def matrix_profile(primaries, gamma):
    flat = [v for primary in primaries for v in (*primary, 1.0)]
    return imagecodecs.cms_profile("rgb", whitepoint=(*D65, 1.0), primaries=flat, gamma=gamma)


def cmyk_profile(lab_of):
    """An output profile with one lut8 table of two grid points an ink (ICC.1:2022, 10.11)."""
    table = bytearray()
    for corner in np.ndindex(2, 2, 2, 2):
        lightness, a, b = lab_of(np.array(corner, float))
        table += bytes([round(lightness * 2.55), round(a) + 128, round(b) + 128])
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if k % 4 == 0 else 0 for k in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(table) + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in D50_XYZ))
    tags, offset, body = b"", 128 + 4 + 12 * 2, b""
    for name, data in ((b"A2B0", lut), (b"wtpt", white)):
        padded = data + bytes(-len(data) % 4)
        tags += name + struct.pack(">II", offset + len(body), len(data))
        body += padded
    size = offset + len(body)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"\0" * 4, 0x02400000, b"prtr", b"CMYK", b"Lab ", b"\0" * 12, b"acsp"
    )
    header = header.ljust(68, b"\0") + struct.pack(">3i", *(round(v * 65536) for v in D50_XYZ))
    return header.ljust(128, b"\0") + struct.pack(">I", 2) + tags + body


def pixels(path):
    return read_image(path).pixels[0].permute(1, 2, 0).double().numpy()


LATTICE = np.stack(np.meshgrid(*[np.linspace(0, 1, 6)] * 3, indexing="ij"), -1).reshape(12, 18, 3)


@pytest.mark.parametrize(("primaries", "gamma"), [(ADOBE, 2.19921875), (P3, 2.4), (SRGB, 1.0), (SRGB, 1.8)])
class TestMatrixProfiles:
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_8_bits(self, tmp_path, primaries, gamma, suffix):
        path = tmp_path / f"x.{suffix}"
        values = np.rint(LATTICE * 255).astype(np.uint8)
        Image.fromarray(values).save(path, icc_profile=matrix_profile(primaries, gamma))
        np.testing.assert_allclose(pixels(path), matrix_oracle(values / 255, primaries, gamma), atol=1e-3)

    def test_16_bits(self, tmp_path, primaries, gamma):
        path = tmp_path / "x.tif"
        values = np.rint(LATTICE * 65535).astype(np.uint16)
        tifffile.imwrite(path, values, photometric="rgb", iccprofile=matrix_profile(primaries, gamma))
        np.testing.assert_allclose(pixels(path), matrix_oracle(values / 65535, primaries, gamma), atol=1e-3)

    def test_floating_point(self, tmp_path, primaries, gamma):
        path = tmp_path / "x.tif"
        profile = matrix_profile(primaries, gamma)
        tifffile.imwrite(path, LATTICE.astype(np.float32), photometric="rgb", iccprofile=profile)
        np.testing.assert_allclose(pixels(path), matrix_oracle(LATTICE, primaries, gamma), atol=1e-3)


def test_16_bits_stay_16_bits_through_a_profile(tmp_path):
    path = tmp_path / "x.tif"
    values = np.arange(30000, 30512, dtype=np.uint16).reshape(16, 32, 1).repeat(3, -1)
    tifffile.imwrite(path, values, photometric="rgb", iccprofile=matrix_profile(ADOBE, 2.19921875))
    assert len(np.unique(pixels(path)[..., 1])) > 400
    np.testing.assert_allclose(pixels(path), matrix_oracle(values / 65535, ADOBE, 2.19921875), atol=3e-5)


def test_profile_and_alpha(tmp_path):
    path = tmp_path / "x.png"
    values = np.rint(LATTICE * 255).astype(np.uint8)
    alpha = np.full((12, 18, 1), 102, np.uint8)
    image = Image.fromarray(np.concatenate([values, alpha], -1))
    image.save(path, icc_profile=matrix_profile(ADOBE, 2.19921875))
    expected = 0.4 * matrix_oracle(values / 255, ADOBE, 2.19921875) + 0.6
    np.testing.assert_allclose(pixels(path), expected, atol=1e-3)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profile(tmp_path, mode):
    path = tmp_path / "x.png"
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = Image.fromarray(ramp.astype(np.uint16) * 257 if mode == "I;16" else ramp)
    image = Image.merge("LA", [grey, Image.new("L", (16, 16), 255)]) if mode == "LA" else grey
    image.save(path, icc_profile=imagecodecs.cms_profile("gray", whitepoint=(*D65, 1.0), gamma=1.8))
    expected = encode_srgb((ramp / 255) ** 1.8)[..., None].repeat(3, -1)
    np.testing.assert_allclose(pixels(path), expected, atol=2e-3)


def test_grey_picture_with_rgb_profile(tmp_path):
    path = tmp_path / "x.jpg"
    Image.new("L", (16, 16), 100).save(path, icc_profile=matrix_profile(ADOBE, 1.8), quality=100)
    np.testing.assert_allclose(pixels(path), float(encode_srgb((100 / 255) ** 1.8)), atol=2e-3)


def lab_of_ink(ink):
    return (100 - 20 * ink[:3].sum()) * (1 - ink[3]), 30 * (ink[1] - ink[0]) * (1 - ink[3]), 0


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_cmyk_profile(tmp_path, kind):
    path = tmp_path / "x.tif"
    corners = np.array([c for c in np.ndindex(2, 2, 2, 2) if c[3] == 0]).reshape(2, 4, 4)
    values = (corners * (1 if kind == np.float32 else 65535)).astype(kind)
    tifffile.imwrite(path, values, photometric="separated", iccprofile=cmyk_profile(lab_of_ink))
    expected = lab_oracle(np.array([lab_of_ink(c) for c in corners.reshape(-1, 4).astype(float)]))
    np.testing.assert_allclose(pixels(path).reshape(-1, 3), expected, atol=6e-3)


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk_profile(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    corners = np.array([c for c in np.ndindex(2, 2, 2, 2) if c[3] == 0 or sum(c) == 4], np.uint8)
    blocks = (corners * 255).reshape(3, 3, 4).repeat(8, 0).repeat(8, 1)
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.frombytes("CMYK", (24, 24), blocks.tobytes()).save(path, icc_profile=cmyk_profile(lab_of_ink), **options)
    expected = lab_oracle(np.array([lab_of_ink(c.astype(float)) for c in corners])).reshape(3, 3, 3)
    np.testing.assert_allclose(pixels(path)[4::8, 4::8], expected, atol=6e-3)


def test_lab_tiff(tmp_path):
    path = tmp_path / "x.tif"
    image = Image.new("LAB", (4, 4), (153, 128 + 20, 128 - 30))
    image.save(path)
    np.testing.assert_allclose(pixels(path)[0, 0], lab_oracle(np.array([60.0, 20.0, -30.0])), atol=6e-3)


def test_srgb_profile_leaves_the_values_alone(tmp_path):
    path = tmp_path / "x.png"
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, icc_profile=imagecodecs.cms_profile("srgb"))
    np.testing.assert_array_equal(np.float32(pixels(path)), values.astype(np.float32) / np.float32(255))


def test_srgb_profile_costs_no_conversion(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path, icc_profile=srgb_profile())
    before = pixels(path)
    monkeypatch.setattr(color, "transform", lambda *arguments: pytest.fail("converted"))
    np.testing.assert_array_equal(pixels(path), before)


@pytest.mark.parametrize(
    "profile",
    [
        b"garbage",
        b"\0" * 400,
        matrix_profile(ADOBE, 1.8)[:200],
        imagecodecs.cms_profile("gray", whitepoint=(*D65, 1.0), gamma=1.8),
    ],
    ids=["garbage", "zeros", "truncated", "of another space"],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_useless_profile_is_a_warning(tmp_path, profile, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (4, 4), (10, 20, 30)).save(path, icc_profile=profile, quality=100)
    with pytest.warns(UserWarning, match=r"colour profile in '.*' cannot be used .* taken as sRGB"):
        values = pixels(path)
    np.testing.assert_allclose(values, np.broadcast_to([10, 20, 30], (4, 4, 3)) / np.array(255), atol=3 / 255)


def test_written_profile_has_no_clock_in_it():
    assert srgb_profile()[24:36] == struct.pack(">6H", 2020, 1, 1, 0, 0, 0)


def test_off_white_inverts_over_white():
    rng = np.random.default_rng(1)
    rgb, alpha = rng.random((5, 6, 3)), rng.random((5, 6)) * 0.9 + 0.1
    np.testing.assert_allclose(off_white(over_white(rgb, alpha), alpha), rgb, atol=1e-12)
    assert (off_white(np.zeros((1, 1, 3)), np.array([[0.5]])) == 0).all()
    assert (off_white(np.full((1, 1, 3), 0.3), np.array([[0.0]])) == 0.3).all()
