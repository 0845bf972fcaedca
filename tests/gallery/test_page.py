"""The contact sheet: self-contained, whole at every moment, with everything in its place."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from painter import Painter, put_picture
from PIL import Image

from nst_lightning.errors import UserError
from nst_lightning.gallery import Gallery
from nst_lightning.gallery.page import small_picture


def page_of(place, *more, fails=None, **options):
    Gallery("out", *more, **options).make(engine=Painter(place, fails))
    return Path("out/index.html").read_text(encoding="utf-8")


def rows_of(page):
    """Texts of the cells of each row of the first table."""
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("</tr>") if "<tr>" in row]
    return [[re.findall(r'class="name">([^<]*)<', cell) for cell in row] for row in rows]


def test_contents_by_styles(folders):
    page = page_of(folders, ["photos"], ["paintings"], size=32, strength=2.0)
    assert rows_of(page) == [
        [["cat"], ["cat_night.png"], ["cat_waves.png"]],
        [["dog"], ["dog_night.png"], ["dog_waves.png"]],
    ]
    assert "4 of 4 pictures, 2 s each, 6 s one after another" in page
    assert "preset fast, size 32, strength 2.0" in page
    assert page.count('href="cat_waves.png"') == 1


def test_it_needs_nothing_else(folders):
    page = page_of(folders, ["photos"], ["paintings"])
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 8  # two contents, two styles, four results
    for source in sources:
        kind, data = source.split(",", 1)
        assert kind == "data:image/jpeg;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).load()
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


def test_names_are_text(folders):
    put_picture(folders / "odd/<b>&'\"x#?%.png", (10, 90, 200))
    page = page_of(folders, ["odd"], ["paintings/waves.png"])
    assert "<b>" not in page
    assert 'href="%3Cb%3E%26%27%22x%23%3F%25_waves.png"' in page


def test_failures_with_their_line(folders):
    page = page_of(folders, ["photos"], ["paintings"], fails={"cat_waves.png": UserError("memory: ran <out>")})
    assert "1 failed" in page
    assert page.count("memory: ran &lt;out&gt;") == 2  # in its place, and in the list above
    assert "3 of 4 pictures" in page


def test_a_sparse_list_is_no_table(folders):
    lines = []
    for index in range(4):
        put_picture(folders / f"pictures/c{index}.png", (index, 1, 2))
        put_picture(folders / f"pictures/s{index}.png", (index, 100, 2))
        lines.append(f"- {{content: pictures/c{index}.png, style: pictures/s{index}.png, strength: {index + 1}}}\n")
    Path("rows.yaml").write_text("".join(lines), encoding="utf-8")
    page = page_of(folders, manifest="rows.yaml")
    assert "<table>" not in page
    assert page.count("<figure>") == 4
    assert "<span>strength 3.0</span>" in page


def test_several_settings_of_a_pair_share_a_cell(folders):
    Path("rows.csv").write_text(
        "content,style,strength\nphotos/cat.png,paintings/waves.png,1\nphotos/cat.png,paintings/waves.png,2\n",
        encoding="utf-8",
    )
    page = page_of(folders, manifest="rows.csv", pattern="{strength}")
    assert rows_of(page) == [[["cat"], ["1.png", "2.png"]]]


def test_a_sheet(folders):
    page = page_of(
        folders, ["photos/cat.png"], ["paintings/waves.png"], sheet=True, presets=["fast", "quickstart"],
        strengths=[1, 2], stroke_sizes=[1, 1.5],
    )  # fmt: skip
    assert re.findall("<h2>(.*)</h2>", page) == ["stroke size 1", "stroke size 1.5"]
    assert rows_of(page) == [
        [["strength 1"], ["fast_1_1.png"], ["quickstart_1_1.png"]],
        [["strength 2"], ["fast_2_1.png"], ["quickstart_2_1.png"]],
    ]
    assert page.count("<figcaption>content</figcaption>") == 1
    assert "<span>strength" not in page  # headings say it


def test_thumbnails_are_small(folders):
    put_picture(folders / "large.png", size=(900, 1200))
    data = base64.b64decode(small_picture(str(folders / "large.png")).split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (180, 240)
    assert small_picture(str(folders / "missing.png")) == ""


def test_it_grows_and_a_page_that_cannot_be_written_costs_itself(folders):
    seen = []
    made = Gallery("out", ["photos"], ["paintings"])

    def look(event):
        if event.kind == "progress":
            seen.append(Path("out/index.html").read_text(encoding="utf-8").count("not made yet"))

    made.make(look, engine=Painter(folders))
    assert seen[0] == 4
    assert seen == sorted(seen, reverse=True)
    (folders / "out/index.html").unlink()
    (folders / "out/index.html").mkdir()
    put_picture(folders / "photos/bird.png")
    with pytest.warns(UserWarning, match="could not write out/index.html"):
        assert len(Gallery("out", ["photos"], ["paintings"]).make(engine=Painter(folders)).made) == 2
