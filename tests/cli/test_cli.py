"""The command as a process, the README's Python example, and the wheel's presets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import nst_lightning
from nst_lightning.cli import main

README = Path(__file__).parents[2] / "README.md"


def test_help_needs_neither_torch_nor_lightning(tmp_path):
    code = "import sys; from nst_lightning.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=True
    )
    assert "usage: nst SUBCOMMAND" in result.stdout


def test_fit_help_explains_every_option_of_ours(capsys):
    assert main(["fit", "--help", "all"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for option in (
        "--output",
        "--bits",
        "--quality",
        "--snapshot_every",
        "--ckpt_path",
        "--trainer.accelerator",
        "--trainer.precision",
        "--model.evaluations",
        "--model.stages",
        "--model.strength",
        "--model.terms",
        "--model.extractor",
        "--model.optimizer",
        "--data.content",
        "--data.style",
        "--data.size",
        "--data.side",
        "--data.style_size",
        "--data.init",
        "--data.seed",
        "--data.resample",
        "--log",
        "--model.extractor.pooling",
        "--model.extractor.convolution",
        "--model.optimizer.lr",
        "--model.optimizer.history_size",
        "--model.optimizer.spectral_exponent",
        "--model.optimizer.history_dtype",
        "--init_args.correlated",
    ):
        found = re.search(rf"{re.escape(option)}[ ,](.*?) \((?:type|required)", text)
        assert found, option
        # Metavariables, and the option's other forms, which versions of Python show differently, are no explanation.
        words = [word for word in found.group(1).split() if not word.startswith("-") and not word.isupper()]
        assert len(words) >= 3, option


def test_print_config_writes_values_of_an_enumeration_as_text(capsys, pair):
    timer = "[{class_path: Timer, init_args: {duration: '00:00:10:00'}}]"  # its default is Lightning's Interval.step
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("fit", "--data.content", str(pair[0]), "--data.style", str(pair[1])),
                *("--trainer.callbacks", timer, "--print_config"),
            ]
        )
    assert not ended.value.code
    (printed,) = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    assert printed["init_args"] == {"duration": "00:00:10:00", "interval": "step", "verbose": True}


def test_print_config_is_a_configuration(capsys, tmp_path, monkeypatch, use_tiny_weights, pair):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size=48", "--print_config"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "printed.yaml").write_text(text, encoding="utf-8")
    assert main(["fit", "--config", "printed.yaml", "--trainer.max_steps=1", "--trainer.accelerator=cpu"]) == 0


def test_the_public_names_are_there():
    for name in nst_lightning.__all__:
        assert getattr(nst_lightning, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nst_lightning.nothing


@pytest.mark.skipif(not README.is_file(), reason="needs the checkout's README")
def test_the_readmes_python_example_runs(tmp_path, monkeypatch, use_tiny_weights, pair):
    text = README.read_text(encoding="utf-8")
    (example,) = re.findall(r"## From Python\n\n```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    for name, picture in zip(("photo.jpg", "painting.jpg", "other.jpg"), (*pair, pair[1]), strict=True):
        Image.open(picture).save(tmp_path / name)
    example = example.replace("size=512", "size=48, evaluations=4")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert {path.name for path in tmp_path.glob("*.*")} == {
        *("photo.jpg", "painting.jpg", "other.jpg"),
        *("out.png", "painted_photo.jpg", "painted_other.jpg"),
    }


@pytest.mark.skipif(not README.is_file(), reason="needs the checkout's README")
def test_the_readmes_term_runs(tmp_path, monkeypatch, use_tiny_weights, pair):
    """Whole and in tiles."""
    text = README.read_text(encoding="utf-8")
    (term,) = re.findall(r"```python\n([^`]*StyleTerm[^`]*)```", text)
    (terms,) = re.findall(r"terms: (\[.*\])\n", text)
    assert len([line for line in term.splitlines() if line.strip()]) <= 15
    (tmp_path / "my_package.py").write_text(term, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "96"]
    command += ["--model.evaluations", "2", "--trainer.accelerator", "cpu", "--trainer.precision", "64-true"]
    rows = []
    for tile in ("null", "64"):
        assert main([*command, f"--model.terms={terms}", f"--model.tile={tile}", "--output", f"{tile}.png"]) == 0
        table = sorted(tmp_path.glob("runs/*/metrics.csv"))[-1].read_text(encoding="utf-8").splitlines()
        rows.append([float(value) for value in table[-1].split(",")[2:-1]])
        assert "channelmeans.relu1_1" in table[0]
    assert rows[0] == pytest.approx(rows[1], rel=1e-8)


@pytest.mark.skipif(not README.is_file(), reason="needs the checkout's README")
def test_the_readme_begins_with_two_commands():
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("    python3 -m venv")]
    assert len(lines) == 2
    assert "nst fit" in lines[0]
    assert "pytest" in lines[1]


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "SLURM_NTASKS"])
@pytest.mark.parametrize("value", ["", "x"])
def test_ranks_that_are_no_numbers(name, value, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    assert main(["fit", "--data.content=a.png", "--data.style=b.png"]) == 2
    said = capsys.readouterr().err
    assert said == f"nst: error: {name}: must be a number in the environment, got '{value}'; unset it\n"
