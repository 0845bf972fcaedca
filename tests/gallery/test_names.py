"""Names of pictures from a pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_lightning.config.short import Short
from nst_lightning.errors import UserError
from nst_lightning.gallery.names import check_names, name_of
from nst_lightning.gallery.rows import Row, StyleFile

SHORT = Short(preset="fast", strength=0.5)
ROW = Row(7, "photos/cat.v2.png", (StyleFile("paintings/waves.png"),), SHORT)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{content}_{style}", "cat.v2_waves.png"),
        ("{preset}_{strength}_{stroke_size}", "fast_0.5_1.png"),
        ("{index:03d}.jpg", "007.jpg"),
        ("{style}/{content}.TIF", "waves/cat.v2.TIF"),
        ("a_{strength:.2f}", "a_0.50.png"),
    ],
)
def test_a_pattern(pattern, name):
    assert name_of(ROW, pattern) == name


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("{contnet}", "got {contnet}; did you mean {content}?"),
        ("{0}", "got {0}; leave it out"),
        ("{content", "--pattern: must be a name with fields in braces, got '{content' ("),
        ("{content:d}", "--pattern: must be a name with fields in braces"),
        ("{content.__class__}", "--pattern: must name {content}"),
        ("{content}.heic", "--pattern: must end in one of .png,"),
    ],
)
def test_a_pattern_that_is_none(pattern, line):
    with pytest.raises(UserError) as error:
        name_of(ROW, pattern)
    assert line in str(error.value)


def rows(*named):
    return [
        Row(index, f"photos/{index}.png", (StyleFile("paintings/waves.png"),), SHORT, name)
        for index, name in enumerate(named, 1)
    ]


class TestPlaces:
    @pytest.mark.parametrize("names", [("a.png", "a.png"), ("a.png", "A.png"), ("\u00e9.png", "e\u0301.png")])
    def test_names_that_collide(self, names):
        with pytest.raises(UserError) as error:
            check_names(rows("other.png", *names), Path("out"))
        assert (
            "for (photos/2.png, paintings/waves.png) and for (photos/3.png, paintings/waves.png); add {index}"
            in str(error.value)
        )

    @pytest.mark.parametrize("name", ["../a.png", "/tmp/a.png", "x/../../a.png", "~/a.png", "a\\b.png"])
    def test_names_that_leave_the_folder(self, name):
        with pytest.raises(UserError, match="--pattern: must stay in the gallery's folder, got"):
            check_names(rows(name), Path("out"))

    def test_hidden_names(self):
        with pytest.raises(UserError, match=r"must give names that are not hidden, got '\.gallery/a\.png'"):
            check_names(rows(".gallery/a.png"), Path("out"))

    def test_names_that_are_too_long(self):
        with pytest.raises(UserError, match="must give names of at most 200 bytes"):
            check_names(rows("x" * 300 + ".png"), Path("out"))

    def test_the_name_of_a_picture_that_is_read(self, folders):
        with pytest.raises(UserError, match="must not give the name of a picture that the gallery reads"):
            check_names(rows("1.png"), Path("photos"))
        with pytest.raises(UserError, match="must not give the name of a picture that the gallery reads"):
            check_names(rows("waves.png"), Path("paintings"))

    def test_a_manifest_says_where(self):
        row = Row(1, "a.png", (StyleFile("b.png"),), SHORT, "../a.png", "rows.csv: row 1 (line 2)")
        with pytest.raises(UserError, match=r"^rows.csv: row 1 \(line 2\), column output: must stay"):
            check_names([row], Path("out"))
