"""``nst runs``: what is listed is what was made, and what is removed can be spared."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nst_lightning.cli import main
from nst_lightning.images import read_image
from nst_lightning.runs.folder import hold


def fit(pair, *more):
    pictures = ("--data.content", pair[0], "--data.style", pair[1], "--data.size=48", "--trainer.accelerator=cpu")
    return main(["fit", *map(str, (*pictures, *more))])


def listed(capsys, *more):
    capsys.readouterr()
    assert main(["runs", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def size_of(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def test_a_finished_run_keeps_one_checkpoint_with_which_it_goes_on(place, pair):
    assert fit(pair, "--checkpoint_every=2", "--model.evaluations=6") == 0
    assert fit(pair, "--checkpoint_every=2", "--model.evaluations=9") == 0
    folder, whole = sorted(Path("runs").iterdir())
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000006.ckpt"]
    assert main(["fit", f"--ckpt_path={folder}/checkpoints/000006.ckpt", "--model.evaluations=9"]) == 0
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000009.ckpt"]
    assert torch.equal(read_image(folder / "result.png").pixels, read_image(whole / "result.png").pixels)
    assert fit(pair, "--checkpoint_finished=0", "--model.evaluations=2") == 0
    assert not list(Path("runs/content_style_003/checkpoints").iterdir())
    assert fit(pair, "--checkpoint_every=1", "--model.evaluations=6", "--trainer.max_steps=3") == 0
    kept = sorted(path.name for path in Path("runs/content_style_004/checkpoints").iterdir())
    assert kept == ["000002.ckpt", "000003.ckpt"]  # it is not finished


def test_a_table_has_the_columns_of_all_objectives_that_it_went_on_with(place, pair):
    """It kept the first one's header, under which the numbers of others stood in the wrong columns."""
    assert fit(pair, "--model.evaluations=2", "--model.strength=0.5") == 0
    assert fit(pair, "--ckpt_path=last", "--model.evaluations=4", "--model.strength=1") == 0
    assert fit(pair, "--ckpt_path=last", "--model.evaluations=5", "--model.strength=0.5") == 0
    (folder,) = Path("runs").iterdir()
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["pixels.image"]) for row in rows] == [True, True, False, False, True]
    for row in rows:
        parts = [float(value or 0) for name, value in row.items() if "." in name]
        assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-5)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert "<svg" in (folder / "report.html").read_text()


def test_a_list_says_what_was_made(place, pair, capsys):
    assert fit(pair, "--model.evaluations=2", "--model.strength=3", "--model.likeness=0.7") == 0
    assert fit(pair, "--model.evaluations=4", "--trainer.max_steps=1") == 0
    os.utime("runs/content_style_001/run.json", (0, time.time() + 60))  # whatever the clock's resolution
    first, second = listed(capsys)
    assert [first["name"], second["name"]] == ["content_style_001", "content_style_002"]
    assert [first["state"], first["evaluations"], first["of"], first["reason"]] == ["finished", 2, 2, None]
    assert [second["state"], second["evaluations"], second["of"]] == ["cut short", 1, 4]
    assert second["reason"] == "trainer.max_steps"
    assert (first["content"], first["styles"]) == (str(pair[0]), [str(pair[1])])
    assert first["settings"] == {"size": 48, "strength": 3.0, "likeness": 0.7, "extractor": "VGG19"}
    assert first["result"] == "runs/content_style_001/result.png"
    assert first["thumbnail"] == "runs/content_style_001/figure.png"
    assert first["bytes"] == size_of("runs/content_style_001")
    assert first["checkpoint_bytes"] == size_of("runs/content_style_001/checkpoints") > 0
    assert main(["runs"]) == 0
    said = capsys.readouterr().out
    assert "runs/content_style_002  cut short (trainer.max_steps), 1 of 4 evaluations, " in said
    assert "    content.png + style.png; size 48, strength 3.0, likeness 0.7, extractor VGG19\n" in said
    assert "2 runs, " in said.splitlines()[-1]
    assert [run["name"] for run in listed(capsys, "content_style_002")] == ["content_style_002"]


def test_states_that_nobody_wrote_down(place, pair, capsys):
    assert fit(pair, "--model.evaluations=2") == 0
    record = Path("runs/content_style_001/run.json")
    facts = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps(facts | {"state": "running"}), encoding="utf-8")
    (run,) = listed(capsys)
    assert (run["state"], run["reason"], run["evaluations"]) == ("cut short", "killed", 2)
    lock = hold(Path("runs/content_style_001"))
    assert listed(capsys)[0]["state"] == "running"
    lock.release()
    record.unlink()
    assert listed(capsys)[0]["state"] == "ended"
    Path("runs/content_style_001/config.yaml").write_text("{", encoding="utf-8")  # damaged
    assert listed(capsys)[0]["styles"] == []


def test_clean_frees_what_finished_runs_no_longer_need(place, pair, capsys):
    assert fit(pair, "--model.evaluations=2") == 0
    assert fit(pair, "--model.evaluations=4", "--trainer.max_steps=1") == 0
    finished, cut = sorted(Path("runs").iterdir())
    left = finished / "snapshots" / ".nst-0123.tmp"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    before = {path for path in Path("runs").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["runs", "clean"]) == 0
    assert "add --yes" in capsys.readouterr().out
    assert {path for path in Path("runs").rglob("*") if path.is_file()} == before
    expected = {finished / "checkpoints" / "000002.ckpt", left}
    freed = sum(path.stat().st_size for path in expected)
    lock = hold(finished)
    assert main(["runs", "clean", "--yes"]) == 0  # it is going on
    assert {path for path in Path("runs").rglob("*") if path.is_file()} == before
    lock.release()
    capsys.readouterr()
    assert main(["runs", "clean", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"freed {freed / 1e6:.1f} MB, of 1 runs"
    assert before - {path for path in Path("runs").rglob("*") if path.is_file()} == expected
    assert main(["runs", "clean", "--older_than", "1", "--yes"]) == 0
    assert list((cut / "checkpoints").iterdir())
    assert main(["runs", "clean", cut.name, "--yes"]) == 0
    assert not list((cut / "checkpoints").iterdir())
    assert (cut / "result.png").is_file()


def test_clean_by_age(place, pair, capsys):
    assert fit(pair, "--model.evaluations=4", "--trainer.max_steps=1") == 0
    for path in Path("runs/content_style_001").iterdir():
        os.utime(path, (0, time.time() - 3 * 86400))
    assert main(["runs", "clean", "--older_than=4", "--yes"]) == 0
    assert list(Path("runs/content_style_001/checkpoints").iterdir())
    assert main(["runs", "clean", "--older_than=2", "--yes"]) == 0
    assert not list(Path("runs/content_style_001/checkpoints").iterdir())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--root=none"], "--root: must be the folder of runs, got 'none'"),
        (["nothing_001"], "runs: must be of those below '.', got 'nothing_001'; there are none"),
        (["--yes"], "--yes: must come with clean"),
        (["clean", "--json"], "--json: must be left out with clean"),
        (["clean", "--older_than=-1"], "--older_than: must be a number of days, got -1"),
        (["clean", "--older_than=x"], "nst runs --help lists the options"),
        (["--wrong"], "nst runs --help lists the options"),
    ],
)
def test_mistakes_get_one_line(place, capsys, args, words):
    more = [] if any(arg.startswith("--root") for arg in args) else ["--root=."]
    assert main(["runs", *args, *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_an_empty_folder_and_help(place, capsys):
    assert main(["runs", "--root=."]) == 0
    assert capsys.readouterr().out == "0 runs, 0.0 MB, of which checkpoints 0.0 MB\n"
    with pytest.raises(SystemExit) as ended:
        main(["runs", "--help"])
    assert ended.value.code == 0
    assert "Results are never removed" in " ".join(capsys.readouterr().out.split())


def test_a_configuration_that_somebody_damaged_costs_its_own_words_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, text in {"a": "data: [1, 2]", "b": "model: none", "c": "- 1", "d": "data: {style: d.png}"}.items():
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "config.yaml").write_text(text, encoding="utf-8")
    Path("runs/a/run.json").write_text('{"evaluations": "x"}', encoding="utf-8")
    found = {run["name"]: (run["styles"], run["evaluations"]) for run in listed(capsys)}
    assert found == {"a": ([], 0), "b": ([], 0), "c": ([], 0), "d": ([str(tmp_path / "d.png")], 0)}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_has_read_enough_ends_the_list_without_a_word(tmp_path):
    (tmp_path / "runs").mkdir()
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "nst_lightning", "runs"]
    said = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=600)
    os.close(writing)
    assert said.stderr == b""
