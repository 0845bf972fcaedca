"""``nst presets``: what the files say of themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from nst_lightning.cli import main
from nst_lightning.config.presets import preset_names, read_presets


@pytest.mark.parametrize("preset", read_presets(), ids=lambda preset: preset.name)
def test_every_file_begins_with_what_it_gives_and_what_it_takes(preset):
    for line in (preset.gives, preset.takes):
        assert line.endswith(".")
        assert len(line) <= 118
    assert re.match(r"(Takes|Needs) ", preset.takes)


def test_all_presets_are_listed_by_two_lines_each_and_overlays_last(capsys):
    assert main(["presets"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    names, gives, takes = lines[::3], lines[1::3], lines[2::3]
    assert sorted(names) == preset_names()
    assert [name.startswith("hardware/") for name in names] == sorted(name.startswith("hardware/") for name in names)
    assert "    Your own pictures at any size in the least time" in "\n".join(gives)
    assert all(line.startswith(("    Takes ", "    Needs ")) for line in takes)
    assert "--config" in last


def test_a_new_preset_is_listed_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nst_lightning.config.presets.beside_package", lambda _: tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "# Gives \u00fc.\n# Takes 1 s.\n#\n# More.\n#  And more.\nmodel:\n# no\n", "utf-8"
    )
    (tmp_path / "bare.yaml").write_text("model: {evaluations: 3}\n", encoding="utf-8")
    assert main(["presets"]) == 0
    assert capsys.readouterr().out.startswith("bare\nmine\n    Gives \u00fc.\n    Takes 1 s.\nnst fit --config NAME")
    assert main(["presets", "mine"]) == 0
    assert capsys.readouterr().out == "mine\n    Gives \u00fc.\n    Takes 1 s.\n    More. And more.\n"


def test_for_programs(capsys):
    assert main(["presets", "--json", "fast", "hardware/cpu", "fast"]) == 0
    fast, cpu = json.loads(capsys.readouterr().out)
    assert (fast["name"], cpu["name"]) == ("fast", "hardware/cpu")
    assert fast["gives"].startswith("Your own pictures")
    assert fast["takes"].startswith("Takes ")
    assert fast["path"].endswith("fast.yaml")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fsat"], "names: must be of the presets, got 'fsat'; did you mean fast?"),
        (["zzz"], f"names: must be of the presets, got 'zzz'; presets: {', '.join(p.name for p in read_presets())}"),
        (["--jsn"], "unrecognized arguments: --jsn; nst presets --help lists the options"),
    ],
)
def test_mistakes_are_a_line(capsys, args, said):
    assert main(["presets", *args]) == 2
    assert capsys.readouterr().err == f"nst: error: {said}\n"


@pytest.mark.parametrize("args", [["presets"], ["presets", "--help"], ["info", "--help"], ["completion", "--help"]])
def test_nothing_slow_is_imported(args):
    code = (
        "import sys, contextlib; from nst_lightning.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({args})\n"
        "print([name for name in ('torch', 'lightning', 'numpy', 'yaml', 'tqdm', 'PIL') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
