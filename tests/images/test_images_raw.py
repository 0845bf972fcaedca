"""Raw files and TIFFs that begin with a preview: the picture itself, or one line; never the preview."""

import io
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from nst_lightning.errors import UserError
from nst_lightning.images import check_image, read_image

RNG = np.random.default_rng(0)
PREVIEW = np.full((16, 24, 3), (200, 0, 0), np.uint8)
RGB8 = RNG.integers(0, 256, (48, 72, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (48, 72, 3), dtype=np.uint16)
# From XYZ to linear sRGB (IEC 61966-2-1): a camera that sees what a display shows.
TO_SRGB = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
WHITE = 16383


def camera_tags(orientation=1):
    matrix = [part for value in TO_SRGB for part in (round(value * 10000), 10000)]
    return [
        (50706, "B", 4, (1, 4, 0, 0), True),
        (50707, "B", 4, (1, 1, 0, 0), True),
        (50708, "s", 0, "Test Camera", True),
        (271, "s", 0, "Test", True),
        (272, "s", 0, "Camera", True),
        (274, "H", 1, orientation, True),
        (50721, "2i", 9, matrix, True),
        (50778, "H", 1, 21, True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
    ]


CFA = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True), (50717, "H", 1, WHITE, True)]
PLAIN = {"metadata": None, "software": False}


def dng(path, linear, orientation=1, kind="cfa"):
    """A raw file of linear light ``(H, W, 3)`` in ``[0, 1]`` behind a red preview."""
    samples = np.rint(linear * WHITE).astype(np.uint16)
    with tifffile.TiffWriter(path) as file:
        tags = camera_tags(orientation)
        if kind == "first":  # as Pentax writes it: what the sensor saw comes first
            file.write(mosaic(samples), photometric=32803, extratags=tags + CFA, **PLAIN)
            file.write(PREVIEW, photometric="rgb", subfiletype=1, **PLAIN)
            return
        # Sony of old and others do not say that the preview is one.
        subfile = 0 if kind == "unmarked" else 1
        file.write(PREVIEW, photometric="rgb", subfiletype=subfile, subifds=1, extratags=tags, **PLAIN)
        if kind == "linear":
            white = [(50717, "H", 3, (WHITE,) * 3, True)]
            file.write(samples, photometric=34892, planarconfig="contig", subfiletype=0, extratags=white, **PLAIN)
        else:
            file.write(mosaic(samples), photometric=32803, subfiletype=0, extratags=CFA, **PLAIN)


def mosaic(samples):
    """RGGB, the colour filter array that `CFA` describes."""
    seen = samples[..., 1].copy()
    seen[::2, ::2], seen[1::2, 1::2] = samples[::2, ::2, 0], samples[1::2, 1::2, 2]
    return seen


def patches():
    """Four rows of plain colour, some greys among them."""
    colours = [(0.1, 0.1, 0.1), (0.3, 0.3, 0.3), (0.6, 0.6, 0.6), (0.5, 0.1, 0.1), (0.1, 0.5, 0.2), (0.1, 0.2, 0.6)]
    return np.repeat(np.repeat(np.array(colours)[:, None], 72, 1), 16, 0)  # 96 x 72


def to_linear(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("kind", ["cfa", "linear", "first", "unmarked"])
class TestDng:
    def test_without_rawpy_it_is_one_line(self, tmp_path, kind, monkeypatch):
        monkeypatch.setitem(sys.modules, "rawpy", None)
        path = tmp_path / "photo.dng"
        dng(path, patches(), kind=kind)
        for function in (check_image, read_image):
            with pytest.raises(UserError) as caught:
                function(path, name="data.content")
            message = str(caught.value)
            assert message.startswith(f"data.content: needs a picture, got '{path}', a raw file of a camera")
            assert message.endswith("or pip install 'nst_lightning[raw]'")
            assert "\n" not in message

    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    def test_developed(self, tmp_path, kind, orientation):
        pytest.importorskip("rawpy")
        path = tmp_path / "photo.dng"
        linear = patches()
        dng(path, linear, orientation, kind)
        picture = read_image(path)
        assert check_image(path) == (picture.height, picture.width)
        # Where EXIF says that row 0 and column 0 of what is stored are.
        upright = {1: linear, 3: linear[::-1, ::-1], 6: linear.swapaxes(0, 1)[:, ::-1], 8: linear.swapaxes(0, 1)[::-1]}
        expected = upright[orientation]
        found = to_linear(picture.pixels[0].permute(1, 2, 0).double().numpy())
        assert found.shape == expected.shape
        # In the middle of each patch, where no neighbour of another colour takes part; brightness is LibRaw's choice.
        rows, columns = (slice(8, None, 16), slice(20, -20, 8)) if orientation in (1, 3) else (slice(20, -20, 8),) * 2
        if orientation not in (1, 3):
            rows, columns = slice(20, -20, 8), slice(8, None, 16)
        found, expected = found[rows, columns], expected[rows, columns]
        dim = expected.max(-1) < 0.35  # what may have become white tells nothing of proportions
        gain = found[dim].mean() / expected[dim].mean()
        np.testing.assert_allclose(found[dim], expected[dim] * gain, atol=0.02)


HEADS = {
    "cr2": b"II*\0\x10\0\0\0CR\2\0\0\0\0\0",
    "cr3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "raf": b"FUJIFILMCCD-RAW 0201FF383501X-T3",
    "rw2": b"IIU\0\x18\0\0\0",
    "orf": b"IIRO\x08\0\0\0",
    "mrw": b"\0MRM\0\0\0\0",
    "crw": b"II\x1a\0\0\0HEAPCCDR",
    "x3f": b"FOVb\0\0\2\0",
}


class TestOtherRawFiles:
    @pytest.mark.parametrize("kind", sorted(HEADS))
    def test_told_by_their_first_bytes(self, tmp_path, kind, monkeypatch):
        """The previews within them, which are JPEG, are not taken for them."""
        monkeypatch.setitem(sys.modules, "rawpy", None)
        jpeg = io.BytesIO()
        Image.fromarray(RGB8).save(jpeg, "JPEG")
        path = tmp_path / f"photo.{kind}"
        path.write_bytes(HEADS[kind].ljust(512, b"\0") + jpeg.getvalue())
        with pytest.raises(UserError, match="a raw file of a camera"):
            check_image(path)

    def test_a_camera_that_libraw_does_not_know(self, tmp_path):
        pytest.importorskip("rawpy")
        path = tmp_path / "photo.raf"
        path.write_bytes(HEADS["raf"].ljust(4096, b"\0"))
        with pytest.raises(UserError, match=r"cannot read '.*': it is a raw file of a kind that LibRaw does not know"):
            check_image(path)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("values", [RGB8, RGB16], ids=["8 bits", "16 bits"])
class TestPreviewFirst:
    """A TIFF whose first page is marked as reduced."""

    def write(self, path, values, where, bigtiff, byteorder, tags=(), **options):
        with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as file:
            within = {"subifds": 2} if where == "within" else {}
            extra = {**PLAIN, "extratags": tags}
            file.write(PREVIEW, photometric="rgb", subfiletype=1, **within, **extra)
            file.write(values[::2, ::2], photometric="rgb", subfiletype=1, **PLAIN)
            file.write(values, photometric="rgb", subfiletype=0, **PLAIN, **options)

    @pytest.mark.parametrize("where", ["within", "behind"])
    @pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}], ids=["plain", "tiles"])
    def test_full_picture(self, tmp_path, values, where, bigtiff, byteorder, options):
        path = tmp_path / "x.tif"
        self.write(path, values, where, bigtiff, byteorder, **options)
        picture = read_image(path)
        assert check_image(path) == (48, 72)
        found = picture.pixels[0].permute(1, 2, 0).double().numpy()
        np.testing.assert_allclose(found, values / np.iinfo(values.dtype).max, atol=1e-7)

    @pytest.mark.parametrize("where", ["within", "behind"])
    def test_orientation_of_the_first_page_holds(self, tmp_path, values, where, bigtiff, byteorder):
        path = tmp_path / "x.tif"
        self.write(path, values, where, bigtiff, byteorder, tags=[(274, "H", 1, 6, True)])
        assert check_image(path) == (72, 48)
        found = read_image(path).pixels[0].permute(1, 2, 0).double().numpy()
        # 6: row 0 is the right side, column 0 the top
        expected = values.swapaxes(0, 1)[:, ::-1] / np.iinfo(values.dtype).max
        np.testing.assert_allclose(found, expected, atol=1e-7)

    def test_own_orientation_comes_first(self, tmp_path, values, bigtiff, byteorder):
        path = tmp_path / "x.tif"
        tags = [(274, "H", 1, 6, True)]
        self.write(path, values, "within", bigtiff, byteorder, tags, extratags=[(274, "H", 1, 3, True)])
        found = read_image(path).pixels[0].permute(1, 2, 0).double().numpy()
        np.testing.assert_allclose(found, values[::-1, ::-1] / np.iinfo(values.dtype).max, atol=1e-7)


def one_colour(path):
    pixels = read_image(path).pixels
    assert float(pixels.amax((2, 3)).sub(pixels.amin((2, 3))).max()) == 0
    return (check_image(path), tuple(round(float(value) * 255, 3) for value in pixels[0, :, 0, 0]))


def plain(height, width, level):
    return np.full((height, width, 3), level, np.uint8)


class TestPages:
    def write(self, path, *pages, subifds=0):
        with tifffile.TiffWriter(path) as file:
            for index, (values, subfile) in enumerate(pages):
                within = {"subifds": subifds} if index == 0 and subifds else {}
                file.write(values, photometric="rgb", subfiletype=subfile, **within, **PLAIN)

    def test_the_first_of_equal_pages(self, tmp_path):
        path = tmp_path / "x.tif"
        self.write(path, (plain(20, 30, 10), 2), (plain(20, 30, 20), 2))
        assert one_colour(path) == ((20, 30), (10, 10, 10))

    def test_the_first_full_page_though_a_larger_one_follows(self, tmp_path):
        path = tmp_path / "x.tif"
        self.write(path, (plain(20, 30, 10), 0), (plain(40, 60, 20), 0))
        assert one_colour(path) == ((20, 30), (10, 10, 10))

    @pytest.mark.parametrize("subifds", [0, 2])
    def test_a_pyramid(self, tmp_path, subifds):
        """GeoTIFF has its overviews as pages, OME-TIFF within the first page."""
        path = tmp_path / "x.tif"
        self.write(path, (plain(40, 60, 10), 0), (plain(20, 30, 20), 1), (plain(10, 15, 30), 1), subifds=subifds)
        assert one_colour(path) == ((40, 60), (10, 10, 10))

    def test_a_pyramid_from_the_smallest(self, tmp_path):
        path = tmp_path / "x.tif"
        self.write(path, (plain(10, 15, 30), 1), (plain(20, 30, 20), 1), (plain(40, 60, 10), 0))
        assert one_colour(path) == ((40, 60), (10, 10, 10))

    def test_a_mask_is_not_the_picture(self, tmp_path):
        path = tmp_path / "x.tif"
        with tifffile.TiffWriter(path) as file:
            file.write(plain(10, 15, 30), photometric="rgb", subfiletype=1, **PLAIN)
            file.write(np.ones((80, 120), bool), photometric="minisblack", subfiletype=4, **PLAIN)
            file.write(plain(40, 60, 10), photometric="rgb", subfiletype=0, **PLAIN)
        assert one_colour(path) == ((40, 60), (10, 10, 10))

    def test_a_reduced_page_alone_is_all_there_is(self, tmp_path):
        path = tmp_path / "x.tif"
        self.write(path, (plain(10, 15, 30), 1))
        assert one_colour(path) == ((10, 15), (30, 30, 30))

    def test_old_mark_of_a_reduced_page(self, tmp_path):
        path = tmp_path / "x.tif"
        with tifffile.TiffWriter(path) as file:
            file.write(plain(10, 15, 30), photometric="rgb", extratags=[(255, "H", 1, 2, True)], **PLAIN)
            file.write(plain(40, 60, 10), photometric="rgb", **PLAIN)
        assert one_colour(path) == ((40, 60), (10, 10, 10))

    def test_profile_of_the_first_page_holds(self, tmp_path):
        profile = b"not a profile, which is said"
        path = tmp_path / "x.tif"
        with tifffile.TiffWriter(path) as file:
            file.write(plain(10, 15, 30), photometric="rgb", subfiletype=1, iccprofile=profile, **PLAIN)
            file.write(plain(40, 60, 10), photometric="rgb", subfiletype=0, **PLAIN)
        with pytest.warns(UserWarning, match="the colour profile in .* cannot be used"):
            read_image(path)
