"""Writing pictures: what is in the files, and that they appear whole or not at all."""

import dataclasses
import errno
import io
import os
import stat
import struct
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, TiffImagePlugin

from nst_lightning.errors import UserError
from nst_lightning.images import check_image, check_writable, read_image, read_metadata, write_image
from nst_lightning.images import io as images_io
from nst_lightning.images.encode import Content
from nst_lightning.images.metadata import Metadata
from nst_lightning.images.profiles import color_space

LOSSLESS = [("png", 8), ("png", 16), ("tif", 8), ("tiff", 16), ("webp", 8)]
EVERY = [*LOSSLESS, ("jpg", 8), ("JPEG", 8)]
TEXTS = {"config": 'size: 512\nname: "Größe 漢字 🎨"\t\0\\', "Software": "nst_lightning", "": "no key"}


@pytest.fixture
def pixels():
    return torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))


def smooth():
    rows, columns = torch.linspace(0, 1, 24)[:, None], torch.linspace(0, 1, 32)
    return torch.stack(torch.broadcast_tensors(rows, columns, rows * columns))[None]


@pytest.mark.parametrize(("suffix", "bits"), LOSSLESS)
class TestValues:
    def test_rounded_to_nearest(self, tmp_path, pixels, suffix, bits):
        write_image(tmp_path / f"x.{suffix}", pixels, bits=bits)
        picture = read_image(tmp_path / f"x.{suffix}")
        assert picture.alpha is None
        error = (picture.pixels.double() - pixels.double()).abs().max()
        assert error <= 0.5 / (2**bits - 1) + 1e-7

    def test_every_step_comes_back(self, tmp_path, suffix, bits):
        steps = (torch.arange(2**bits, dtype=torch.float64) / (2**bits - 1)).float()
        gradient = steps.reshape(1, 1, 2 ** (bits // 2), -1).expand(1, 3, -1, -1)
        write_image(tmp_path / f"x.{suffix}", gradient, bits=bits)
        assert torch.equal(read_image(tmp_path / f"x.{suffix}").pixels, gradient)

    def test_clamped(self, tmp_path, suffix, bits):
        values = torch.tensor([[-3.0, 1.5], [-1e-9, 1 + 1e-6]]).expand(1, 3, 2, 2)
        write_image(tmp_path / f"x.{suffix}", values, bits=bits)
        assert torch.equal(read_image(tmp_path / f"x.{suffix}").pixels, values.clamp(0, 1).round())

    def test_alpha(self, tmp_path, pixels, suffix, bits):
        alpha = torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(1))
        alpha[..., :4], alpha[..., 4:8] = 0, 1
        shown = pixels * alpha + 1 - alpha
        write_image(tmp_path / f"x.{suffix}", shown, alpha=alpha, bits=bits)
        picture = read_image(tmp_path / f"x.{suffix}")
        step = 1 / (2**bits - 1)
        assert (picture.alpha - alpha).abs().max() <= 0.5 * step + 1e-7
        assert (picture.pixels - shown).abs().max() <= step

    def test_colours_under_full_transparency_stay(self, tmp_path, suffix, bits):
        if bits == 16:
            pytest.skip("Pillow, which reads the file here, keeps 8")
        write_image(tmp_path / f"x.{suffix}", smooth(), alpha=torch.zeros(1, 1, 24, 32))
        with Image.open(tmp_path / f"x.{suffix}") as image:
            stored = np.array(image)
        assert (stored[..., 3] == 0).all()
        np.testing.assert_allclose(stored[..., :3] / 255, smooth()[0].permute(1, 2, 0), atol=0.51 / 255)

    def test_same_bytes_again(self, tmp_path, pixels, suffix, bits):
        for name in "ab":
            write_image(tmp_path / f"{name}.{suffix}", pixels, bits=bits, metadata=TEXTS)
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize(("suffix", "bits"), EVERY)
class TestEveryFormat:
    def test_metadata(self, tmp_path, pixels, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        write_image(path, pixels, bits=bits, metadata=TEXTS)
        assert read_metadata(path) == TEXTS
        write_image(path, pixels, bits=bits)
        assert read_metadata(path) == {}

    def test_long_metadata(self, tmp_path, pixels, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        texts = {f"key {n}": "value " * 100 for n in range(100)}  # 60 kB
        write_image(path, pixels, bits=bits, metadata=texts)
        assert read_metadata(path) == texts

    def test_srgb_profile(self, tmp_path, pixels, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        write_image(path, pixels, bits=bits)
        if suffix == "tiff":
            with tifffile.TiffFile(path) as file:
                profile = file.pages[0].iccprofile
        else:
            with Image.open(path) as image:
                profile = image.info["icc_profile"]
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        assert "sRGB" in ImageCms.getProfileDescription(opened)

    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
    def test_types(self, tmp_path, suffix, bits, kind):
        values = smooth().to(kind).requires_grad_()
        write_image(tmp_path / f"x.{suffix}", values, bits=bits)
        result = read_image(tmp_path / f"x.{suffix}").pixels
        tolerance = 4 / 255 if suffix.lower() in {"jpg", "jpeg"} else 0.51 / 255
        assert (result - values.detach().float()).abs().max() <= tolerance

    def test_other_programs_can_read_it(self, tmp_path, suffix, bits):
        path = tmp_path / f"x.{suffix}"
        write_image(path, smooth(), alpha=torch.full((1, 1, 24, 32), 0.999), bits=bits, metadata=TEXTS)
        with Image.open(path) as image:
            image.load()
            assert image.size == (32, 24)
        assert check_image(path) == (24, 32)

    def test_permissions_are_those_of_the_umask(self, tmp_path, pixels, suffix, bits):
        before = os.umask(0o027)
        try:
            write_image(tmp_path / f"x.{suffix}", pixels, bits=bits)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"x.{suffix}").stat().st_mode) == 0o640


class TestJpeg:
    def test_full_colour_resolution_and_quality(self, tmp_path):
        picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        sizes = []
        for quality in (1, 50, 95, 100):
            write_image(tmp_path / "x.jpg", picture, quality=quality)
            sizes.append((tmp_path / "x.jpg").stat().st_size)
        assert sizes == sorted(sizes)
        with Image.open(tmp_path / "x.jpg") as image:
            assert [component[1:3] for component in image.layer] == [(1, 1)] * 3
        assert (read_image(tmp_path / "x.jpg").pixels - picture).abs().max() < 4 / 255

    def test_alpha_is_left_out(self, tmp_path):
        write_image(tmp_path / "x.jpg", smooth(), alpha=torch.zeros(1, 1, 24, 32))
        assert (read_image(tmp_path / "x.jpg").pixels - smooth()).abs().max() < 4 / 255

    @pytest.mark.parametrize("quality", [0, 101])
    def test_quality_out_of_range(self, tmp_path, pixels, quality):
        with pytest.raises(UserError, match=rf"quality: must be from 1 to 100, got {quality}; choose"):
            write_image(tmp_path / "x.jpg", pixels, quality=quality)


def test_tiff_uses_64_bit_offsets_when_it_must(tmp_path, pixels, monkeypatch):
    seen = {}
    monkeypatch.setattr(tifffile, "imwrite", lambda *arguments, **options: seen.update(options))
    write_image(tmp_path / "x.tif", pixels)
    assert seen["bigtiff"] is False
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint16), (40_000, 40_000, 3))
    content = Content(huge, 16, 95, color_space("srgb"), Metadata())
    images_io.format_of(tmp_path / "x.tif", 16).encode(io.BytesIO(), content)
    assert seen["bigtiff"] is True


class TestWrongArguments:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, tmp_path, value):
        bad = torch.full((1, 3, 4, 4), value)
        with pytest.raises(ValueError, match="pixels must be finite") as caught:
            write_image(tmp_path / "x.png", bad)
        assert not isinstance(caught.value, UserError)
        with pytest.raises(ValueError, match="alpha must be finite"):
            write_image(tmp_path / "x.png", torch.zeros(1, 3, 4, 4), alpha=bad[:, :1])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 4, 4), (2, 3, 4, 4), (1, 4, 4, 4)])
    def test_shape(self, tmp_path, shape):
        with pytest.raises(ValueError, match=r"pixels must be \(1, 3, H, W\)"):
            write_image(tmp_path / "x.png", torch.zeros(shape))

    def test_alpha_of_another_size(self, tmp_path, pixels):
        with pytest.raises(ValueError, match="alpha is"):
            write_image(tmp_path / "x.png", pixels, alpha=torch.zeros(1, 1, 4, 4))

    def test_side_too_long_for_the_format(self, tmp_path):
        with pytest.raises(UserError, match=r"output: WebP holds at most 16383 px a side, got 2 x 16384 for '.*'"):
            write_image(tmp_path / "x.webp", torch.zeros(1, 3, 2, 16384))


SUFFIXES = ".png, .jpg, .jpeg, .tif, .tiff, .webp, .avif, .jxl"
FORMAT_ERRORS = [
    ("x.xyz", 8, f"must end in one of {SUFFIXES}, got 'PATH'; change the suffix of the path"),
    ("x", 8, f"must end in one of {SUFFIXES}, got 'PATH'; change the suffix of the path"),
    ("x.heic", 8, f"must end in one of {SUFFIXES}, got 'PATH'; HEIC files are only read; .avif is as small"),
    ("x.jpg", 16, "JPEG holds 8 bits a sample, got 16 for 'PATH'; choose 8 bits, or PNG or TIFF"),
    ("x.webp", 16, "WebP holds 8 bits a sample, got 16 for 'PATH'; choose 8 bits, or PNG or TIFF"),
    (
        "x.avif",
        16,
        "AVIF holds 8, 10 or 12 bits a sample, got 16 for 'PATH'; choose 8, 10 or 12 bits, or PNG or TIFF",
    ),
    ("x.png", 12, "PNG holds 8 or 16 bits a sample, got 12 for 'PATH'; choose 8 or 16 bits, or AVIF"),
    ("x.png", 9, "must have 8 or 16 bits a sample (AVIF 8, 10 or 12), got 9; choose one of them"),
]


@pytest.mark.parametrize(("file", "bits", "message"), FORMAT_ERRORS)
def test_format_errors(tmp_path, pixels, file, bits, message):
    path = tmp_path / file
    with pytest.raises(UserError) as checked:
        check_writable(path, name="export.path", bits=bits)
    assert str(checked.value).replace(str(path), "PATH") == f"export.path: {message}"
    with pytest.raises(UserError) as written:
        write_image(path, pixels, bits=bits)
    assert str(written.value).replace(str(path), "PATH") == f"output: {message}"
    assert list(tmp_path.iterdir()) == []


class TestAtomic:
    @pytest.mark.parametrize(("suffix", "bits"), EVERY)
    @pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("encoder")])
    def test_failing_encoder_leaves_the_old_file_alone(self, tmp_path, pixels, monkeypatch, suffix, bits, failure):
        path = tmp_path / f"x.{suffix}"

        def fail(file, content):
            file.write(b"half a picture")
            file.flush()
            assert len(list(tmp_path.iterdir())) == 1 + path.exists()
            raise failure

        sound = images_io.format_of
        broken = lambda *given, **also: dataclasses.replace(sound(*given, **also), encode=fail)  # noqa: E731
        monkeypatch.setattr(images_io, "format_of", broken)
        with pytest.raises(type(failure)):
            write_image(path, pixels, bits=bits)
        assert list(tmp_path.iterdir()) == []
        path.write_bytes(b"old")
        with pytest.raises(type(failure)):
            write_image(path, pixels, bits=bits)
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes() == b"old"

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_full_disk(self, tmp_path, pixels, monkeypatch, step):
        def fail(*arguments, **options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        path = tmp_path / "x.png"
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(UserError) as caught:
                write_image(path, pixels)
        assert str(caught.value) == (
            f"output: cannot write '{path}': No space left on device; choose another path or make room there"
        )
        assert list(tmp_path.iterdir()) == []

    def test_replaces_and_follows_links(self, tmp_path, pixels):
        target, link = tmp_path / "target.png", tmp_path / "link.png"
        target.write_bytes(b"old")
        link.symlink_to(target.name)
        write_image(link, pixels)
        assert link.is_symlink()
        assert read_image(target).width == 30
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link.png", "target.png"]

    def test_folder_missing(self, tmp_path, pixels):
        with pytest.raises(UserError, match=r"output: cannot write '.*': No such file or directory; choose"):
            write_image(tmp_path / "no" / "x.png", pixels)


class TestCheckWritable:
    def test_makes_the_folder_and_nothing_else(self, tmp_path):
        check_writable(tmp_path / "a" / "b" / "x.png", bits=16)
        assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["a", "a/b"]

    def test_leaves_a_file_alone(self, tmp_path):
        path = tmp_path / "x.png"
        path.write_bytes(b"old")
        check_writable(str(path))
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_folder_in_the_place_of_the_file(self, tmp_path):
        path = tmp_path / "x.png"
        path.mkdir()
        with pytest.raises(UserError) as caught:
            check_writable(path, name="export.path")
        assert str(caught.value) == (f"export.path: needs a file, got the folder '{path}'; add the name of a file")

    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "x.png")
        with pytest.raises(UserError, match=r"output: needs a regular file, got '.*'; choose another path"):
            check_writable(tmp_path / "x.png")

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("file/x.png", "File exists|Not a directory"),
            ("file/sub/x.png", "Not a directory"),
            ("x" * 300 + ".png", "File name too long"),
            ("a\0b.png", "null"),
        ],
    )
    def test_impossible_paths(self, tmp_path, path, reason):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=rf"^output: cannot write '.*': .*({reason}).*; choose another path"):
            check_writable(tmp_path / path)

    def test_read_only_folder(self, tmp_path, monkeypatch):
        def refuse(*arguments, **options):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("pathlib.Path.open", refuse)
        monkeypatch.setattr("os.open", refuse)
        with pytest.raises(UserError, match=r"^output: cannot write '.*': Permission denied; choose another path"):
            check_writable(tmp_path / "x.png")


class TestForeignMetadata:
    @pytest.mark.parametrize("text", ["a photo", "[1, 2]", "{broken"])
    @pytest.mark.parametrize("suffix", ["jpg", "tif", "webp"])
    def test_is_not_taken_for_ours(self, tmp_path, text, suffix):
        exif = Image.Exif()
        exif[TiffImagePlugin.IMAGEDESCRIPTION] = text
        Image.new("RGB", (4, 4)).save(tmp_path / f"x.{suffix}", exif=exif)
        assert read_metadata(tmp_path / f"x.{suffix}") == {}

    def test_no_picture(self, tmp_path):
        (tmp_path / "x.png").write_text("{}")
        with pytest.raises(UserError, match="needs a JPEG, PNG, WebP, TIFF, AVIF, HEIC or JPEG XL picture"):
            read_metadata(tmp_path / "x.png")


@pytest.mark.skipif(sys.platform != "linux", reason="counts the descriptors that Linux lists")
def test_no_file_stays_open(tmp_path, pixels):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for suffix, bits in EVERY:
        path = tmp_path / f"x.{suffix}"
        write_image(path, pixels, bits=bits)
        check_image(path)
        read_image(path)
        read_metadata(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("bits", [8, 16])
def test_a_painted_picture_takes_no_more_room_as_png_than_by_the_library_alone(tmp_path, bits):
    """Smooth colours under a grain, as pictures of this program are."""
    across, down = torch.linspace(0.1, 0.8, 256), torch.linspace(0, 0.1, 192)[:, None]
    grain = 0.03 * torch.randn(1, 3, 192, 256, generator=torch.Generator().manual_seed(0))
    pixels = (across + down + grain).clamp(0, 1)
    write_image(tmp_path / "x.png", pixels, bits=bits)
    written = (tmp_path / "x.png").read_bytes()
    values = imagecodecs.png_decode(written)
    assert np.allclose(values / (2**bits - 1), pixels[0].permute(1, 2, 0), atol=0.51 / (2**bits - 1))
    assert _pixel_bytes(written) < _pixel_bytes(imagecodecs.png_encode(values))


def _pixel_bytes(png):
    """How many bytes of a PNG are its pixels."""
    found, at = 0, 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        found += length if kind == b"IDAT" else 0
        at += length + 12
    return found
