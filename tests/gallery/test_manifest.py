"""Rows from a table or a list, and what is said where one is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from nst_lightning.config.short import Short
from nst_lightning.errors import UserError
from nst_lightning.gallery.manifest import read_manifest
from nst_lightning.gallery.names import PAIRS

CSV = "content,style\nphotos/cat.png,paintings/waves.png\n"


def rows_of(name, text, short=None, pattern=PAIRS):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return read_manifest(Path(name), short or Short(size=64), pattern)


def refused(name, text):
    with pytest.raises(UserError) as error:
        rows_of(name, text)
    return str(error.value)


class TestRows:
    def test_a_table(self, folders):
        first, second = rows_of(
            "rows.csv",
            "content,style,strength,keep_colors,model.evaluations,output\n"
            "photos/cat.png,paintings/waves.png,2.5,yes,7,first.jpg\n"
            "\n"
            "photos/dog.jpg,paintings/night.png,,,,\n",
        )
        assert (first.index, first.content, first.styles[0].path) == (1, "photos/cat.png", "paintings/waves.png")
        assert first.short == Short(size=64, strength=2.5, keep_colors=True, options={"model.evaluations": "7"})
        assert (first.name, first.place) == ("first.jpg", "rows.csv: row 1 (line 2)")
        assert second.short == Short(size=64)
        assert (second.name, second.place) == ("dog_night.png", "rows.csv: row 2 (line 4)")

    @pytest.mark.parametrize(
        "text", [CSV.replace(",", ";"), CSV.replace(",", "\t"), "\ufeff" + CSV, CSV.upper()[:0] + CSV]
    )
    def test_as_spreadsheets_write_tables(self, folders, text):
        (row,) = rows_of("rows.csv", text)
        assert row.name == "cat_waves.png"

    def test_a_list(self, folders):
        text = yaml.safe_dump(
            [
                {
                    "content": "photos/cat.png",
                    "style": ["paintings/waves.png", "paintings/night.png"],
                    "size": "content",
                },
                {
                    "content": "photos/dog.jpg",
                    "style": [{"path": "paintings/waves.png", "weight": 3}, "paintings/night.png"],
                    "keep_colors": True,
                    "likeness": 0,
                    "protect_faces": "yes",
                    "regions": 3,
                    "output": "a/b",
                },
            ]
        )
        first, second = rows_of("rows.yaml", text)
        assert (first.name, first.short.size) == ("cat_waves+night.png", "content")
        assert [style.weight for style in second.styles] == [3, 1]
        assert (second.name, second.short.keep_colors, second.short.protect_faces) == ("a/b.png", True, True)
        assert (second.short.likeness, second.short.regions) == (0, 3)

    def test_paths_begin_at_its_folder(self, folders):
        text = "- {content: ../photos/cat.png, style: 'demo:style'}\n"
        (row,) = rows_of("lists/rows.yaml", text)
        assert row.content == "photos/cat.png"
        assert Path(row.styles[0].path).is_file()


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("rows.csv", "content,style,strength\nphotos/cat.png,paintings/waves.png,much\n",
         "rows.csv: row 1 (line 2), column strength: must be a number above 0, got 'much'; 1 is neutral"),
        ("rows.csv", CSV + "photos/dog.jpg,paintings/waves.png\nphotos/cow.png,paintings/waves.png\n",
         "rows.csv: row 3 (line 4), column content: must be a file that is there, got 'photos/cow.png'"),
        ("rows.csv", "content,style\nphotos,paintings/waves.png\n",
         "column content: must be a file, got 'photos'; give a row for each picture in that folder"),
        ("rows.csv", "content,style\nphotos/cat.png,\n", "row 1 (line 2), column style: must name a picture, got ''"),
        ("rows.csv", "content,style,stength\n",
         "rows.csv: the first line, column stength: must be one of content, style, preset, size, strength, "
         "likeness, keep_colors, protect_faces, regions, stroke_size, seed, output or an option such as "
         "model.evaluations, got 'stength'; "
         "did you mean strength?"),
        ("rows.csv", "content,style,content\n", "column content: must be there once, got it twice"),
        ("rows.csv", CSV[:-1] + ",7\n", "row 1 (line 2), column 3: must be in the first line, got '7'"),
        ("rows.csv", CSV.replace("\n", ",size\n", 1)[:-1] + ",big\n",
         "column size: must be a number of pixels, or content, got 'big'; 512 is a good start"),
        ("rows.csv", "content,style,keep_colors\nphotos/cat.png,paintings/waves.png,maybe\n",
         "column keep_colors: must be yes or no, got 'maybe'; leave it out for no"),
        ("rows.csv", "content,style,likeness\nphotos/cat.png,paintings/waves.png,2\n",
         "column likeness: must be a number from 0 to 1, got '2'; 0.5 is neutral"),
        ("rows.csv", "content,style,regions\nphotos/cat.png,paintings/waves.png,many\n",
         "column regions: must be a whole number from 0, got 'many'; leave it out for 0"),
        ("rows.csv", "content,style\n", "--manifest: must hold at least one row, got none in 'rows.csv'"),
        ("rows.csv", "", "--manifest: must hold at least one row"),
        ("rows.yaml", "", "--manifest: must hold at least one row"),
        ("rows.yaml", "content: a\n", "rows.yaml: must hold a list of rows, got a dict; begin each with"),
        ("rows.yaml", "- a\n- b\n", "rows.yaml: row 1 (line 1): must have keys such as content and style, got 'a'"),
        ("rows.yaml", "\n- content: photos/cat.png\n  style: paintings/waves.png\n  seed: -1\n",
         "rows.yaml: row 1 (line 2), column seed: must be a whole number from 0, got -1"),
        ("rows.yaml", "- content: [x\n", "rows.yaml: must be YAML, got"),
        ("rows.yaml", "- {content: photos/cat.png, style: {path: paintings/waves.png, mask: m.png}}\n",
         "row 1 (line 1), column style: must have path and maybe weight, got"),
        ("rows.yaml", "- {content: 3, style: paintings/waves.png}\n", "column content: must name a picture's file"),
        ("rows.txt", CSV, "--manifest: must end in .csv, .tsv, .yaml or .json, got 'rows.txt'; rename"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_row_and_column(folders, name, text, line):
    assert line in refused(name, text)


def test_a_manifest_that_cannot_be_read(folders):
    Path("rows.csv").write_bytes(b"content,style\n\xff\xfe\0")
    with pytest.raises(UserError, match="--manifest: must be text in UTF-8"):
        read_manifest(Path("rows.csv"), Short(), PAIRS)
    with pytest.raises(
        UserError, match=re.escape("cannot read 'rwos.csv': No such file or directory; did you mean rows.csv")
    ):
        read_manifest(Path("rwos.csv"), Short(), PAIRS)
    with pytest.raises(UserError, match="got the folder 'photos'; folders of pictures need no --manifest"):
        read_manifest(Path("photos"), Short(), PAIRS)


def test_a_path_that_would_be_right_from_here(folders):
    with pytest.raises(UserError, match=r"paths begin at the manifest's folder; did you mean .*photos/cat.png"):
        rows_of("lists/rows.csv", CSV)
