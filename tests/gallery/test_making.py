"""What is kept, what is made, what fails, and what lies in the folder afterwards."""

from __future__ import annotations

import doctest
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from galleries import make
from painter import Painter, put_picture

from nst_lightning.callbacks import Feedback
from nst_lightning.data import mask_files, request
from nst_lightning.errors import UserError
from nst_lightning.faces import Face
from nst_lightning.gallery import Gallery
from nst_lightning.gallery import gallery as module
from nst_lightning.gallery.session_engine import SessionEngine
from nst_lightning.gallery.store import Store
from nst_lightning.images import read_image, read_metadata, write_image
from nst_lightning.session import Session

NAMES = ["cat_night.png", "cat_waves.png", "dog_night.png", "dog_waves.png"]
LITTLE = {"size": 32, "options": {"model.evaluations": 6, "checkpoint_every": 2}}


def gallery(**more):
    return Gallery("out", ["photos"], ["paintings"], **more)


def paint(place, **more):
    painter = Painter(place, more.pop("fails", None))
    return gallery(**more).make(engine=painter), painter.made


def left_in(folder):
    """Names of what is hidden in a gallery's folder, but for records."""
    return sorted(path.name for path in (folder / ".gallery").iterdir() if path.suffix != ".json")


class TestKept:
    def test_all_are_made_once(self, folders):
        summary, made = paint(folders)
        assert sorted(made) == sorted(summary.made) == NAMES
        assert made == ["cat_night.png", "dog_night.png", "cat_waves.png", "dog_waves.png"]  # style by style
        summary, made = paint(folders)
        assert (sorted(summary.kept), made) == (NAMES, [])
        assert left_in(folders / "out") == [".lock"]

    def test_other_settings_make_other_pictures_and_lose_none(self, folders):
        paint(folders)
        before = (folders / "out/cat_waves.png").read_bytes()
        _, made = paint(folders, strength=2.0)
        assert sorted(made) == NAMES
        assert (folders / "out/cat_waves_001.png").read_bytes() == before
        assert paint(folders, strength=2.0)[1] == []

    def test_another_picture_of_the_same_name(self, folders):
        paint(folders)
        put_picture(folders / "photos/cat.png", (1, 2, 3))
        assert sorted(paint(folders)[1]) == NAMES[:2]

    def test_from_another_folder_by_other_words(self, folders, monkeypatch):
        paint(folders)
        monkeypatch.chdir(folders / "photos")
        painter = Painter(folders)
        Gallery("../out", ["."], [str(folders / "paintings"), "../paintings/*.png"]).make(engine=painter)
        assert painter.made == []

    def test_one_more_picture(self, folders):
        paint(folders)
        put_picture(folders / "photos/bird.png", (9, 9, 9))
        assert sorted(paint(folders)[1]) == ["bird_night.png", "bird_waves.png"]

    def test_a_picture_with_evaluations_left_is_not_finished(self, folders):
        paint(folders)
        for record in (folders / "out/.gallery").glob("*.json"):
            record.unlink()
        assert paint(folders)[1] == []  # pictures say enough themselves
        path = folders / "out/cat_waves.png"
        said = read_metadata(path)
        assert said["Evaluations"] == "80"
        write_image(path, read_image(path).pixels, metadata={**said, "Evaluations": "79"})
        assert paint(folders)[1] == ["cat_waves.png"]

    @pytest.mark.parametrize(
        ("options", "expected"),
        [({}, "80"), ({"data.init": "noise"}, "160"), ({"model.draft": "CompactVGG19"}, "96")],
    )
    def test_a_picture_says_all_evaluations_of_its_schedule(self, folders, options, expected):
        paint(folders, options=options)
        assert read_metadata(folders / "out/cat_waves.png")["Evaluations"] == expected

    def test_a_damaged_record(self, folders):
        paint(folders)
        for record in (folders / "out/.gallery").glob("*.json"):
            record.write_text("{", encoding="utf-8")
        assert paint(folders)[1] == []

    def test_other_formats_and_folders(self, folders):
        for _ in range(2):
            _, made = paint(folders, pattern="{style}/{index}_{content}.jpg")
        assert made == []
        assert (folders / "out/waves/2_cat.jpg").is_file()


class TestFailures:
    def test_one_does_not_stop_the_rest(self, folders):
        fails = {"dog_waves.png": UserError("memory: ran out"), "cat_night.png": RuntimeError("odd\nthing")}
        summary, made = paint(folders, fails=fails)
        assert made == ["dog_night.png", "cat_waves.png"]
        assert summary.failed == {"dog_waves.png": "memory: ran out", "cat_night.png": "RuntimeError: odd thing"}
        summary, made = paint(folders)
        assert sorted(made) == ["cat_night.png", "dog_waves.png"]
        assert not summary.failed

    def test_a_picture_that_cannot_be_read(self, folders):
        (folders / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
        painter = Painter(folders)
        summary = Gallery("out", ["photos/cat.png", "broken.jpg"], ["paintings/waves.png"]).make(engine=painter)
        assert painter.made == ["cat_waves.png"]
        assert "content: cannot read 'broken.jpg'" in summary.failed["broken_waves.png"]

    def test_a_full_disk_costs_no_evaluation(self, folders, monkeypatch):
        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", full)
            summary, _ = paint(folders)
        assert summary.failed["cat_waves.png"].startswith("output: cannot write 'out/cat_waves.png': No space left")

    def test_settings_that_make_no_sense_stop_it_before_any_work(self, folders):
        with pytest.raises(UserError, match="strength"):
            paint(folders, strength="much")
        with pytest.raises(UserError, match=r"^--output: must be left out of a gallery"):
            paint(folders, options={"output": "x.png"})
        with pytest.raises(UserError, match=r"^--timelapse: must be left out of a gallery"):  # one film for all
            paint(folders, options={"timelapse": "x.mp4"})
        assert not list((folders / "out").glob("*.png"))

    def test_a_manifest_names_the_row(self, folders):
        Path("rows.yaml").write_text(
            "- {content: photos/cat.png, style: paintings/waves.png}\n"
            "- {content: photos/dog.jpg, style: paintings/waves.png, model.strenght: 2}\n",
            encoding="utf-8",
        )
        with pytest.raises(UserError, match=r"^rows.yaml: row 2 \(line 2\): model.strenght: there is no such option"):
            Gallery("out", manifest="rows.yaml").make(engine=Painter(folders))


class TestFolder:
    def test_a_file_in_its_place(self, folders):
        with pytest.raises(UserError, match=r"--output: must be a folder, got the file 'photos/cat\.png'"):
            Gallery("photos/cat.png", ["photos"], ["paintings"])

    def test_two_at_once(self, folders):
        (folders / "out/.gallery").mkdir(parents=True)
        with FileLock(folders / "out/.gallery/.lock"), pytest.raises(UserError, match="no other gallery is being made"):
            paint(folders)

    def test_sources(self, folders):
        Path("rows.yaml").write_text("- {content: photos/cat.png, style: paintings/waves.png}", encoding="utf-8")
        with pytest.raises(UserError, match="--manifest: must be the only source"):
            Gallery("out", ["photos"], manifest="rows.yaml")
        with pytest.raises(UserError, match="contents: must be one picture with --sheet, got 2"):
            gallery(sheet=True)


class TestSheet:
    def test_presets_by_strengths_by_stroke_sizes(self, folders):
        made = Gallery(
            "out", ["photos/cat.png"], ["paintings/waves.png"], sheet=True, presets=["fast", "quickstart"],
            strengths=[0.5, 2], stroke_sizes=[1, 1.5], options={"model.evaluations": 2},
        )  # fmt: skip
        assert [row.name for row in made.rows] == [
            f"{preset}_{strength}_{size}.png" for preset in ("fast", "quickstart") for strength in ("0.5", "2")
            for size in ("1", "1.5")
        ]  # fmt: skip
        painter = Painter(folders)
        made.make(engine=painter)
        assert len(painter.made) == 8


class Interrupted(SessionEngine):
    """Stops in the middle of a picture."""

    def __init__(self, session, at):
        super().__init__(session)
        self._at, self._names = at, []

    def make(self, task, tell):
        def interrupt(task, step):
            self._names.append((task.row.name, step.evaluation))
            if len(self._names) == self._at:
                raise KeyboardInterrupt

        return super().make(task, interrupt)


@pytest.fixture
def told_always(monkeypatch):
    """Progress is told after each evaluation."""
    monkeypatch.setattr("nst_lightning.callbacks.feedback._SECONDS", 0.0)
    assert Feedback(lambda update: None).every == 1


def test_what_was_under_way_goes_on(folders, told_always):
    whole = Gallery("whole", ["photos"], ["paintings/waves.png"], **LITTLE)
    assert len(whole.make().made) == 2
    broken = Gallery("broken", ["photos"], ["paintings/waves.png"], **LITTLE)
    with pytest.raises(KeyboardInterrupt):
        broken.make(engine=Interrupted(Session(), 11))
    assert not (folders / "broken/dog_waves.png").exists()  # half of it is no picture of the gallery
    seen = []
    summary = broken.make(seen.append)
    assert (summary.kept, summary.made) == (["cat_waves.png"], ["dog_waves.png"])
    steps = [event.step.evaluation for event in seen if event.kind == "progress"]
    assert steps[0] == 5  # evaluations 1 to 4 are in the checkpoint
    for name in ("cat_waves.png", "dog_waves.png"):
        assert read_image(folders / "whole" / name).pixels.equal(read_image(folders / "broken" / name).pixels)
    assert broken.make().made == []  # a picture that went on has the fingerprint of one that did not
    assert left_in(folders / "broken") == [".lock"]


def test_the_pixels_are_those_of_fit(folders):
    from nst_lightning.cli import main

    args = ["--data.content", "photos/cat.png", "--data.style", "paintings/waves.png", "--data.size", "32"]
    assert main(["fit", "--config", "fast", *args, "--model.evaluations", "6", "--output", "fit.png"]) == 0
    Gallery("out", ["photos/cat.png"], ["paintings/waves.png"], **LITTLE).make()
    assert read_image("fit.png").pixels.equal(read_image("out/cat_waves.png").pixels)


def test_killed_before_it_was_put_in_its_place(folders, monkeypatch):
    made = Gallery("out", ["photos/cat.png"], ["paintings/waves.png"], **LITTLE)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            made.make()
    monkeypatch.setattr(Session, "run", killed)  # no evaluation is made again
    assert made.make().made == ["cat_waves.png"]
    (record,) = (folders / "out/.gallery").glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["evaluations"] == 6


def test_a_run_folder_that_is_worth_nothing(folders):
    made = Gallery("out", ["photos/cat.png"], ["paintings/waves.png"], **LITTLE)
    assert made.make().made
    (record,) = (folders / "out/.gallery").glob("*.json")
    (folders / "out/cat_waves.png").unlink()
    broken = record.with_suffix("") / "cat_waves_001/checkpoints/000002.ckpt"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no checkpoint")
    assert made.make().made == ["cat_waves.png"]


def test_the_example_in_the_docstring(folders, capsys):
    put_picture(Path("photo.jpg"), (9, 200, 70))
    put_picture(Path("painting.jpg"), (120, 20, 70))
    (example,) = doctest.DocTestFinder().find(Gallery, "Gallery", globs=dict(vars(module)))[:1]
    assert not doctest.DocTestRunner().run(example).failed, capsys.readouterr().out


def test_each_content_has_faces_of_its_own(folders, pair, monkeypatch):
    (folders / "photos/cat.png").write_bytes(pair[0].read_bytes())
    (folders / "paintings/waves.png").write_bytes(pair[1].read_bytes())
    shown = []

    def find(pixels):
        shown.append(float(pixels.std(dim=(2, 3)).max()))
        return [Face(0.2, 0.2, 0.6, 0.8)] if shown[-1] > 0.2 else []  # the dog has less contrast

    monkeypatch.setattr(mask_files, "find_faces", find)
    monkeypatch.setattr(request, "check_weights", lambda: None)
    options = {"model.evaluations": 6, "data.content_floor": 0.0}
    pictures = {"contents": ["photos"], "styles": ["paintings/waves.png"], "preset": "quickstart", "size": 64}
    plain, _ = make(Gallery("plain", **pictures, options=options))
    asked = Gallery("clear", **pictures, options={**options, "data.content_mask": "faces"})
    clear, said = make(asked)
    assert clear.made == plain.made == ["cat_waves.png", "dog_waves.png"]
    assert len(shown) == 2
    assert len([text for text in said if "no faces" in text]) == 1
    cat, dog = (
        torch.equal(*(read_image(f"{folder}/{name}").pixels for folder in ("plain", "clear"))) for name in plain.made
    )
    assert (cat, dog) == (False, True)
    assert make(asked)[0].kept == plain.made
