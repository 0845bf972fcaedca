"""``nst gallery``: what can be typed, what is said, and how it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml
from forked import Running
from painter import Painter, put_picture

from nst_lightning.cli import main
from nst_lightning.errors import UserError
from nst_lightning.gallery import Gallery
from nst_lightning.gallery import gallery as module


@pytest.fixture
def folders(place):
    for index, name in enumerate(("photos/cat.png", "photos/dog.jpg", "paintings/waves.png", "paintings/night.png")):
        put_picture(place / name, (60 * index, 200 - 40 * index, 90))
    return place


@pytest.fixture
def painter(folders, monkeypatch):
    """Galleries whose pictures are painted in no time."""
    made = Painter(folders, {})
    make = Gallery.make
    monkeypatch.setattr(module.Gallery, "make", lambda self, tell=None, engine=None: make(self, tell, made))
    return made


def gallery(*more):
    return main(["gallery", "photos", "--styles", "paintings", "-o", "out", *map(str, more)])


class TestTyped:
    def test_folders(self, painter):
        assert gallery() == 0
        assert sorted(painter.made) == ["cat_night.png", "cat_waves.png", "dog_night.png", "dog_waves.png"]

    def test_files_and_options_of_fit_in_any_order(self, folders, capsys):
        words = (
            "gallery --model.evaluations 7 photos/cat.png --data.init=noise photos/dog.jpg --strength 2 --keep-colors"
        )
        words += " --styles paintings/waves.png --output out --data.color luminance --print_config"
        assert main(words.replace("--keep-colors ", "").split()) == 0
        found = yaml.safe_load(capsys.readouterr().out)
        assert (found["model"]["evaluations"], found["model"]["strength"]) == (7, 2.0)
        assert (found["data"]["init"], found["data"]["color"]) == ("noise", "luminance")
        assert found["data"]["content"] == "photos/cat.png"
        assert not Path("out").exists()
        assert main(words.split()) == 2
        assert "data.color: must be given once" in capsys.readouterr().err

    def test_short_words_are_those_of_stylize(self, folders, capsys):
        assert gallery("--likeness", 0.8, "--regions", 3, "--print_config") == 0
        found = yaml.safe_load(capsys.readouterr().out)
        assert (found["model"]["likeness"], found["data"]["regions"]) == (0.8, 3)
        assert gallery("--protect-faces", "--print_config") == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]["content_mask"] == "faces"

    def test_what_print_config_says_fit_makes(self, folders, capsys):
        assert gallery("--size", 32, "--model.evaluations", 2, "--stroke-size", 1.5, "--print_config") == 0
        Path("one.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
        assert main(["fit", "--config", "one.yaml", "--log", "none", "--output", "one.png"]) == 0

    def test_a_sheet(self, painter, capsys):
        words = "gallery --sheet photos/cat.png --styles paintings/waves.png -o out --preset fast quickstart --strength"
        assert main([*words.split(), "0.5", "2"]) == 0
        assert sorted(painter.made) == [
            "fast_0.5_1.png", "fast_2_1.png", "quickstart_0.5_1.png", "quickstart_2_1.png"
        ]  # fmt: skip

    def test_a_configuration_takes_the_place_of_the_preset(self, folders, capsys):
        Path("mine.yaml").write_text("model: {strength: 3}", encoding="utf-8")
        assert gallery("--config", "gatys", "-c", "mine.yaml", "--print_config") == 0
        model = yaml.safe_load(capsys.readouterr().out)["model"]
        assert (model["strength"], model["terms"][1]["class_path"]) == (3, "nst_lightning.losses.Gram")

    def test_a_manifest(self, painter):
        Path("rows.csv").write_text("content,style\nphotos/cat.png,paintings/waves.png\n", encoding="utf-8")
        assert main(["gallery", "--manifest", "rows.csv", "-o", "out", "--pattern", "{index}"]) == 0
        assert painter.made == ["1.png"]

    def test_help(self, capsys):
        assert main(["gallery", "--help"]) == 0
        assert "--pattern" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("photos --styles paintings", "--output: must be given, got nothing; for example -o gallery"),
        ("--styles paintings -o out", "contents: must name at least one picture, got nothing"),
        ("photos -o out", "--styles: must name at least one picture, got nothing"),
        ("photos --styles paintings -o photos/cat.png", "--output: must be a folder, got the file 'photos/cat.png'"),
        ("- --styles paintings -o out", "contents: must be folders, patterns or files, got '-'"),
        ("photos --styles paintings/*.gif -o out", "got the pattern 'paintings/*.gif', which matches no file"),
        ("photos --styles paintings -o out --pattern {content}", "--pattern: must give each picture a name of its own"),
        ("photos --styles paintings -o out --pattern ../{index}", "--pattern: must stay in the gallery's folder"),
        ("photos --styles paintings -o out --preset a b", "--preset: must be one without --sheet, got a, b"),
        ("photos --styles paintings -o out --strength much", "argument --strength: invalid float value: 'much'"),
        ("photos --styles paintings -o out --size big", "--size: must be a number of pixels, or content, got big"),
        ("photos --styles paintings -o out --modl.strength 2", "modl.strength: there is no such option"),
        ("photos --styles paintings -o out --data.style x.png", "--data.style: must be left out of a gallery"),
        (
            "photos --styles paintings -o out --model.tile 7 --model.tile 8",
            "--model.tile: must be given once, got 7 and",
        ),
        ("--manifest rows.csv -o out", "--manifest: cannot read 'rows.csv': No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folders, capsys, words, line):
    assert main(["gallery", *words.split()]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.startswith("nst: error: ")
    assert said.count("\n") == 1
    assert not list(folders.glob("out/*.png"))


class TestSaid:
    def test_failures_are_listed_at_the_end(self, painter, capsys):
        painter.fails = {"cat_waves.png": UserError("memory: ran out")}
        assert gallery() == 1
        said = capsys.readouterr().err.splitlines()
        assert "cat_waves.png failed; 2 of 4 pictures, 1 failed" in "\n".join(said)
        assert "out/index.html shows them all" in said[-2]
        assert said[-1] == "nst: error: cat_waves.png: memory: ran out"

    def test_events_for_programs(self, painter, capsys):
        painter.fails = {"cat_waves.png": UserError("memory: ran out")}
        (Path("photos") / "notes.txt").write_text("x", encoding="utf-8")
        assert gallery("--json") == 1
        said, more = capsys.readouterr()
        events = [json.loads(line) for line in said.splitlines()]
        assert more == ""
        assert [event["event"] for event in events] == [
            "warning", "plan", *("progress", "picture") * 2, "failure", "progress", "picture", "finished"
        ]  # fmt: skip
        assert events[3].items() >= {"picture": "cat_night.png", "path": "out/cat_night.png", "seconds": 1.5}.items()
        assert events[2].items() >= {"evaluation": 1, "evaluations": 80, "loss": 3.5}.items()
        assert events[6]["text"] == "memory: ran out"
        assert events[-1].items() >= {"finished": 3, "failed": 1, "pictures": 4, "path": "out/index.html"}.items()

    def test_a_bar(self, painter, capsys):
        assert gallery("--log", "bar") == 0
        said = capsys.readouterr().err
        assert "4 of 4 pictures" in said
        assert "a minute" in said
        assert "100%" in said

    def test_nothing(self, painter, capsys):
        assert gallery("--log", "none") == 0
        assert capsys.readouterr() == ("", "")

    def test_a_warning_once(self, painter, capsys):
        (Path("photos") / "notes.txt").write_text("x", encoding="utf-8")
        assert gallery() == 0
        assert capsys.readouterr().err.count("nst: warning: contents: left out a file in 'photos'") == 1


def test_ctrl_c_keeps_the_checkpoint(folders):
    words = ["gallery", "photos/cat.png", "--styles", "paintings/waves.png", "-o", "out", "--size", "32", "--json"]
    run = Running(folders, [*words, "--model.evaluations", 2000])
    run.wait_for(lambda: '"evaluation": ' in run.said)
    ended = run.end(signal.SIGINT)
    assert ended.code == 130, ended.said
    assert "stopped with 0 of 1 pictures; the same command goes on" in ended.said
    assert len(list(folders.glob("out/.gallery/*/*/checkpoints/*.ckpt"))) == 1
    assert not list(folders.glob("out/*.png"))
    assert "not made yet" in (folders / "out/index.html").read_text(encoding="utf-8")
