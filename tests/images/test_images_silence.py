"""Nothing that a library prints reaches the user's terminal, and all is as it was afterwards."""

import io
import logging
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import read_image
from nst_lightning.images.silence import caught_lines

RGB = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)


def tiff(**options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, RGB, photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


CUT = tiff(compression="zlib", rowsperstrip=8)[:-600]


def print_by_libtiff(path):
    """Let Pillow fail at a TIFF by itself."""
    with Image.open(path) as image, pytest.raises(OSError, match="decoder error"):
        image.load()


@pytest.fixture
def cut(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(CUT)
    return path


def test_libtiff_is_silent_here_and_as_before_elsewhere(cut, capfd):
    print_by_libtiff(cut)
    before = capfd.readouterr().err
    with pytest.warns(UserNotice, match="is cut short"):
        read_image(cut)
    assert capfd.readouterr() == ("", "")
    print_by_libtiff(cut)
    assert capfd.readouterr().err == before  # which is nothing, where Pillow is built so


def test_a_truncated_raw_file_is_refused_in_silence(tmp_path, capfd):
    pytest.importorskip("rawpy")
    from test_images_raw import dng, patches

    dng(tmp_path / "x.dng", patches())
    data = (tmp_path / "x.dng").read_bytes()
    (tmp_path / "x.dng").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match="the file is truncated"):
        read_image(tmp_path / "x.dng")
    assert capfd.readouterr() == ("", "")


def test_what_others_write_meanwhile_is_kept(capfd):
    lines = []
    with caught_lines(re.compile("^libbad: "), lines):
        os.write(2, b"libbad: oh\nsomething else\nlibbad: no\n")
    assert lines == ["libbad: oh", "libbad: no"]
    assert capfd.readouterr().err == "something else\n"


def test_in_threads(cut, tmp_path, capfd):
    """Each thread gets its notice, and what was silenced speaks again when the last has ended."""
    before = (list(warnings.filters), logging.getLogger("PIL").level, logging.getLogger("tifffile").level)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inner = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            pictures = list(pool.map(lambda _: read_image(cut), range(64)))
        assert warnings.filters == inner
    assert {str(item.message) for item in caught if issubclass(item.category, UserNotice)} != set()
    assert all(issubclass(item.category, UserNotice) for item in caught)
    assert len({picture.pixels.numpy().tobytes() for picture in pictures}) == 1
    assert (list(warnings.filters), logging.getLogger("PIL").level, logging.getLogger("tifffile").level) == before
    assert capfd.readouterr() == ("", "")
