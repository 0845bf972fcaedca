"""Files that are no pictures, or broken ones: one line for the user each, and nothing else."""

import io
import logging
import os
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import Picture, check_image, read_image

RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (40, 50, 3), dtype=np.uint16)


def saved(kind, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(RGB8)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **{"photometric": "rgb", "metadata": None, **options})
    return buffer.getvalue()


FILES = {
    "png8": saved("PNG"),
    "png16": imagecodecs.png_encode(RGB16),
    "palette": saved("PNG", Image.fromarray(RGB8).quantize(16), transparency=3),
    "jpeg": saved("JPEG", quality=90),
    "progressive": saved("JPEG", quality=90, progressive=True),
    "cmyk": saved("JPEG", Image.fromarray(RGB8).convert("CMYK")),
    "webp": saved("WEBP", lossless=True),
    "gif": saved("GIF"),
    "tiff8": saved("TIFF"),
    "tiff8lzw": saved("TIFF", compression="tiff_lzw"),
    "tiff8jpeg": saved("TIFF", compression="jpeg"),
    "tiff16": tiff(RGB16),
    "tiff16zlib": tiff(RGB16, compression="zlib", predictor=True),
    "tiff32": tiff(RNG.random((40, 50, 3), dtype=np.float32), iccprofile=imagecodecs.cms_profile("srgb")),
}


def error_of(path, function=read_image):
    with pytest.raises(UserError) as caught:
        function(path, name="data.content")
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "PATH")


AGAIN = "save it again or choose another picture"


@pytest.mark.parametrize("function", [check_image, read_image])
class TestNotAPicture:
    @pytest.mark.parametrize("name", ["x.png", "no/such/x.png", "x" * 400, "x\0y"])
    def test_missing(self, tmp_path, function, name):
        assert error_of(tmp_path / name, function) == (
            "data.content: needs an existing picture, got 'PATH', which does not exist; check the path"
        )

    def test_folder(self, tmp_path, function):
        assert error_of(tmp_path, function) == (
            "data.content: needs a picture, got the folder 'PATH'; give the path of one file in it"
        )

    def test_pipe_does_not_block(self, tmp_path, function):
        os.mkfifo(tmp_path / "x.png")
        assert error_of(tmp_path / "x.png", function) == (
            "data.content: needs a regular file, got 'PATH', a pipe or device; save the picture to a file first"
        )

    def test_links_that_lead_nowhere(self, tmp_path, function):
        (tmp_path / "x.png").symlink_to(tmp_path / "y.png")
        (tmp_path / "y.png").symlink_to(tmp_path / "x.png")
        message = error_of(tmp_path / "x.png", function)
        assert message.startswith("data.content: ")
        assert "PATH" in message

    def test_wrong_extension(self, tmp_path, function):
        (tmp_path / "x.tif").write_bytes(FILES["jpeg"])
        function(tmp_path / "x.tif")

    def test_empty(self, tmp_path, function):
        (tmp_path / "x.png").touch()
        assert error_of(tmp_path / "x.png", function) == (
            f"data.content: cannot read 'PATH': the file is empty; {AGAIN}"
        )

    @pytest.mark.parametrize("text", [b"\1\2\3\4", b"\0" * 99])
    def test_other_content(self, tmp_path, function, text):
        (tmp_path / "x.png").write_bytes(text)
        assert error_of(tmp_path / "x.png", function) == (
            "data.content: needs a JPEG, PNG, WebP, TIFF, AVIF, HEIC or JPEG XL picture, got 'PATH', which is none; "
            "convert it or choose another picture"
        )

    def test_permission(self, tmp_path, function, monkeypatch):
        path = tmp_path / "x.png"
        path.write_bytes(FILES["png8"])

        def refuse(*arguments, **options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        assert error_of(path, function) == (
            "data.content: cannot read 'PATH': permission denied; make it readable or choose another picture"
        )

    @pytest.mark.parametrize("kind", ["png8", "jpeg", "webp"])
    def test_header_cut(self, tmp_path, function, kind):
        path = tmp_path / "x"
        path.write_bytes(FILES[kind][:20])
        message = error_of(path, function)
        assert message.startswith("data.content: cannot read 'PATH': ")
        assert message.endswith(AGAIN)


@pytest.mark.parametrize("function", [check_image, read_image])
class TestSize:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_one_pixel(self, tmp_path, function, shape, suffix):
        path = tmp_path / f"x.{suffix}"
        Image.new("RGB", shape[::-1]).save(path)
        assert error_of(path, function) == (
            f"data.content: must be at least 2 x 2 px, got {shape[0]} x {shape[1]} (height x width) in 'PATH'; "
            "choose a larger picture"
        )

    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
    def test_as_wide_as_they_come(self, tmp_path, function, suffix):
        path = tmp_path / f"x.{suffix}"
        Image.new("RGB", (65_500 if suffix == "jpg" else 65_535, 2)).save(path)
        function(path)

    def test_tile_bomb(self, tmp_path, function):
        path = tmp_path / "x.tif"
        path.write_bytes(tiff(RGB16, tile=(16, 16)))
        with tifffile.TiffFile(path, mode="r+") as file:
            for tag in ("TileWidth", "TileLength"):
                file.pages[0].tags[tag].overwrite(60_000)
        assert "it says that it has 3600 megapixels, which a file of " in error_of(path, function)

    def test_strip_longer_than_the_picture_is_harmless(self, tmp_path, function):
        path = tmp_path / "x.tif"
        path.write_bytes(tiff(RGB16, compression="zlib"))
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages[0].tags["RowsPerStrip"].overwrite(2**31)
        function(path)


class TestContent:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, tmp_path, bad):
        path = tmp_path / "x.tif"
        values = np.zeros((4, 4, 3), np.float32)
        values[1, 2, 0] = bad
        path.write_bytes(tiff(values))
        assert error_of(path) == f"data.content: needs finite pixels, got NaN or infinity in 'PATH'; {AGAIN}"

    @pytest.mark.parametrize(
        ("values", "options", "reason"),
        [
            (RGB16.astype(np.int16), {}, "its samples are neither unsigned integers nor floating-point numbers"),
            (RGB16.astype(np.complex64), {}, "its samples are neither"),
            (np.zeros((4, 4, 20), np.uint16), {"photometric": "minisblack", "planarconfig": "contig"}, "20 samples"),
            (RGB16, {"photometric": "itulab"}, "ITULAB"),
            (RGB16.astype(np.uint32), {"photometric": "cielab"}, "L*a*b* of 32 bits"),
        ],
    )
    @pytest.mark.parametrize("function", [check_image, read_image])
    def test_unsupported(self, tmp_path, values, options, reason, function):
        path = tmp_path / "x.tif"
        path.write_bytes(tiff(values, **options))
        message = error_of(path, function)
        assert message.startswith("data.content: cannot read 'PATH': ")
        assert reason in message
        assert message.endswith("; save it as RGB with 8 or 16 bits")

    @pytest.mark.parametrize("kind", sorted(FILES))
    def test_half_a_file_is_truncated(self, tmp_path, kind):
        path = tmp_path / "x"
        path.write_bytes(FILES[kind][: len(FILES[kind]) // 2])
        message = error_of(path)
        assert message.startswith("data.content: cannot read 'PATH': ")
        assert message.endswith(AGAIN)
        if kind in {"png8", "png16", "palette", "jpeg", "progressive", "cmyk", "gif", "tiff16", "tiff32"}:
            assert message.startswith("data.content: cannot read 'PATH': the file is truncated")

    def test_out_of_memory(self, tmp_path, monkeypatch):
        path = tmp_path / "x.png"
        path.write_bytes(FILES["png16"])

        def refuse(data):
            raise MemoryError

        monkeypatch.setattr(imagecodecs, "png_decode", refuse)
        assert error_of(path) == ("data.content: cannot read 'PATH': memory does not suffice; make the picture smaller")


def read_or_refuse(path, data):
    """Read a file of these bytes; any outcome but a sound picture or a UserError fails."""
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserNotice)
            picture = read_image(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(picture, Picture)
        assert bool(((picture.pixels >= 0) & (picture.pixels <= 1)).all())


@pytest.mark.parametrize("kind", sorted(FILES))
class TestDamage:
    def test_cut_anywhere(self, tmp_path, kind, capfd):
        data = FILES[kind]
        for length in sorted({*range(1, 70, 3), *range(70, len(data), max(1, len(data) // 40))}):
            read_or_refuse(tmp_path / "x", data[:length])
        assert capfd.readouterr() == ("", "")

    def test_bytes_changed_anywhere(self, tmp_path, kind, capfd):
        rng = np.random.default_rng(7)
        for _ in range(60):
            data = bytearray(FILES[kind])
            # Headers are where damage does most, and they lie at either end.
            places = rng.choice([rng.integers(200), rng.integers(len(data)), len(data) - 1 - rng.integers(200)], 3)
            for place in places:
                data[place % len(data)] = rng.integers(256)
            read_or_refuse(tmp_path / "x", bytes(data))
        assert capfd.readouterr() == ("", "")


def test_decoders_log_nothing(tmp_path, caplog):
    (tmp_path / "x.tif").write_bytes(FILES["tiff8"])
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        file.pages[0].tags["SamplesPerPixel"].overwrite(255)
    read_or_refuse(tmp_path / "x", (tmp_path / "x.tif").read_bytes())
    assert caplog.records == []
    assert logging.getLogger("PIL").level == logging.getLogger("tifffile").level == logging.NOTSET
