"""Which pictures folders, patterns and files mean."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import pytest
import torch
from painter import put_picture

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.gallery.sources import find_pictures
from nst_lightning.images import write_image


def found(*given, output="out"):
    return find_pictures(given, "contents", Path(output))


def refused(*given):
    with pytest.raises(UserError) as error:
        found(*given)
    return str(error.value)


class TestWhatIsMeant:
    def test_a_folder_by_name_of_files(self, folders):
        put_picture(folders / "photos/Bird.png")
        put_picture(folders / "photos/deeper/not this.png")
        assert found("photos") == ["photos/Bird.png", "photos/cat.png", "photos/dog.jpg"]

    def test_a_pattern(self, folders):
        put_picture(folders / "photos/deeper/owl.png")
        assert found("photos/*.png") == ["photos/cat.png"]
        assert found("photos/**/*.png") == ["photos/cat.png", "photos/deeper/owl.png"]

    def test_files_in_the_order_given_each_once(self, folders):
        assert found("photos/dog.jpg", "photos/../photos/dog.jpg", "photos") == ["photos/dog.jpg", "photos/cat.png"]

    def test_a_file_whose_name_looks_like_a_pattern(self, folders):
        put_picture(folders / "photos/a[1].png")
        assert found("photos/a[1].png") == ["photos/a[1].png"]

    def test_a_home_folder(self, folders, monkeypatch):
        monkeypatch.setenv("HOME", str(folders))
        assert found("~/photos/cat.png") == [str(folders / "photos/cat.png")]

    def test_the_demo(self, folders):
        assert Path(found("demo:content")[0]).is_file()


class TestWhatIsLeftOut:
    def test_no_pictures_with_one_warning(self, folders):
        for name in ("notes.txt", "plan.pdf", "broken.jpg"):
            (folders / "photos" / name).write_bytes(b"\xff\xd8 nothing")
        with pytest.warns(UserNotice, match=r"contents: left out 3 files in 'photos'.*broken.jpg, notes.txt, plan"):
            assert found("photos") == ["photos/cat.png", "photos/dog.jpg"]

    def test_many_are_counted(self, folders):
        for index in range(9):
            (folders / f"photos/{index}.txt").write_text("x", encoding="utf-8")
        with pytest.warns(
            UserNotice, match=r"left out 9 files of those that 'photos/\*' matches.*: 0.txt.*4.txt and 4 more$"
        ):
            found("photos/*")

    def test_hidden_files_without_a_warning(self, folders):
        for name in (".DS_Store", "._cat.png"):
            (folders / "photos" / name).write_text("x", encoding="utf-8")
        assert len(found("photos")) == 2

    def test_results_where_the_gallery_lies_among_the_contents(self, folders):
        made = {"Software": "x", "Fingerprint": "f" * 32}
        for name in ("photos/cat_waves.png", "photos/sub/dog_waves.png", "photos/.gallery/x/result.png"):
            (folders / name).parent.mkdir(parents=True, exist_ok=True)
            write_image(folders / name, torch.rand(1, 3, 20, 20), metadata=made)
        (folders / "photos/index.html").write_text("<html>", encoding="utf-8")
        assert found("photos", output="photos") == ["photos/cat.png", "photos/dog.jpg"]
        assert found("photos/**", output="photos") == ["photos/cat.png", "photos/dog.jpg"]
        (folders / "photos/index.html").unlink()
        assert found("photos/**", output="photos/sub") == ["photos/cat.png", "photos/cat_waves.png", "photos/dog.jpg"]
        assert found("photos/cat_waves.png", output="photos") == ["photos/cat_waves.png"]  # asked for by name


class TestWhatIsRefused:
    def test_nothing(self, place):
        assert refused() == ("contents: must name at least one picture, got nothing; give a folder, a pattern or files")

    def test_standard_input(self, place):
        assert "got '-'; standard input holds one picture, which nst stylize reads" in refused("-")

    def test_a_file_that_is_not_there(self, folders):
        assert refused("photos/cta.png").endswith("which does not exist; did you mean photos/cat.png?")

    def test_an_empty_folder_says_where_pictures_are(self, folders):
        put_picture(folders / "all/one/a.png")
        assert "which holds none; its folders do; give 'all/*/*' in quotation marks" in refused("all")
        (folders / "empty").mkdir()
        assert refused("empty").endswith("got the folder 'empty', which holds none; give another")

    def test_a_pattern_that_matches_nothing(self, folders):
        line = refused("photos/*.gif")
        assert line == (
            "contents: must match at least one picture, got the pattern 'photos/*.gif', which matches no file; look at "
            "its spelling"
        )
        assert refused("fotos/*.png").endswith("there is no folder 'fotos'")

    def test_a_pattern_that_matches_no_picture(self, folders):
        (folders / "photos/a.txt").write_text("x", encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserNotice)
            assert "got the pattern 'photos/*.txt', none of which is a picture" in refused("photos/*.txt")

    def test_a_manifest(self, folders):
        (folders / "rows.csv").write_text("content,style\n", encoding="utf-8")
        assert refused("rows.csv").endswith("give a list of rows as --manifest rows.csv")

    def test_a_nul(self, place):
        assert refused("a\0b").startswith("contents: must be ")

    def test_a_folder_that_cannot_be_looked_into(self, folders, monkeypatch):
        def refuse(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "iterdir", refuse)
        assert refused("photos") == "contents: cannot look into 'photos': Permission denied; make it readable"
