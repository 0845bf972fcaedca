"""A path is where a person means it: ``~`` is the home folder, in every argument."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from nst_lightning import StyleTransferData
from nst_lightning.callbacks import Export
from nst_lightning.cli import main
from nst_lightning.cli.benchmark import main as benchmark
from nst_lightning.data.styles import Style
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.features.compact import EMBEDDED
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.files.paths import expand
from nst_lightning.images import read_image


@pytest.fixture
def home(tmp_path, monkeypatch, pair, tiny_weights):
    """A home folder with pictures, masks and weights; the current folder is another one, and has to stay empty."""
    folder, here = tmp_path / "home", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    for source, name in ((pair[0], "a.png"), (pair[1], "b.png"), (tiny_weights, "tiny.safetensors")):
        shutil.copy(source, folder / name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(here)
    return folder


def test_expansion_is_the_shells(home, monkeypatch):
    assert expand("~/x.png") == home / "x.png"
    assert expand(Path("~/x.png")) == home / "x.png"
    assert expand("~") == home
    assert expand("~root/x.png") == Path("/root/x.png")
    assert expand("a/~/b~") == Path("a/~/b~")
    assert expand("./~/x.png") == Path("~/x.png")
    assert expand("~x.png") == Path("~x.png")  # nobody's home: the name of a file
    assert expand("~\0") == Path("~\0")
    with pytest.raises(UserError, match=r"^output: must begin with a home folder that is known, got '~nobody_such/x'"):
        expand("~nobody_such/x", "output")
    Path("~nobody_such").mkdir()
    assert expand("~nobody_such/x") == Path("~nobody_such/x")
    Path("~nobody_such").rmdir()


def test_every_path_of_the_command(home, monkeypatch, capsys):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "~/tiny.safetensors")
    whole = {
        "data": {
            "content": "~/a.png",
            "style": [{"path": "~/b.png", "mask": "~/a.png", "style_mask": "~/b.png"}, "~/b.png"],
            "content_mask": "~/a.png",
            "init": "~/a.png",
            "size": 48,
        },
        "model": {"evaluations": 2},
        "trainer": {
            "default_root_dir": "~/mine",
            "accelerator": "cpu",
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "~/logs"}},
        },
        "output": "~/out/x.png",
        "fallback": "~/out",
    }
    (home / "c.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    assert main(["fit", "--config=~/c.yaml"]) == 0, capsys.readouterr().err
    assert read_image(home / "out" / "x.png").pixels.shape == (1, 3, 36, 48)
    (checkpoint,) = home.glob("mine/a_b_001/checkpoints/*.ckpt")
    assert (home / "logs" / "lightning_logs").is_dir()
    given = "~/" + checkpoint.relative_to(home).as_posix()
    assert main(["fit", f"--ckpt_path={given}", "--model.evaluations", "3"]) == 0
    assert (checkpoint.parent / "000003.ckpt").is_file()
    last = ["fit", "--ckpt_path=last", "--trainer.default_root_dir=~/mine", "--model.evaluations", "4"]
    assert main(last) == 0
    assert (checkpoint.parent / "000004.ckpt").is_file()
    assert not list(Path().iterdir())


def test_the_result_never_takes_the_place_of_a_picture_in_the_home_folder(home, monkeypatch, capsys):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "~/tiny.safetensors")
    assert main(["fit", "--data.content=~/a.png", "--data.style=~/b.png", "--output=~/a.png"]) == 2
    assert "output: must not be a picture that the run reads" in capsys.readouterr().err


def test_every_path_from_python(home):
    data = StyleTransferData(Path("~/a.png"), "~/b.png", init=Path("~/a.png"), content_mask=Path("~/a.png"), size=48)
    assert data.content_path == str(home / "a.png")
    assert StyleTransferData("~/a.png", [Style("~/b.png", mask="~/a.png")]).styles[0].mask == str(home / "a.png")
    assert read_image("~/a.png").pixels.shape == (1, 3, 36, 48)
    assert Export("~/new/x.png", fallback="~/f").output == home / "new" / "x.png"
    assert str(home / "tiny.safetensors") in VGG19("~/tiny.safetensors").origin
    save_file(load_file(EMBEDDED["compact"]), home / "mine.safetensors")
    assert "mine.safetensors" in CompactVGG19("~/mine.safetensors").origin
    assert not list(Path().iterdir())


def test_other_subcommands(home, monkeypatch, capsys):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "~/tiny.safetensors")
    (home / "file").touch()
    with pytest.raises(UserError, match=f"--output: must be a folder, got '{home / 'file'}'"):
        benchmark(["--output=~/file"])
    assert main(["score", "--photos=~/none", "--art=~/none"]) == 2
    assert f"in '{home / 'none'}'" in capsys.readouterr().err
    assert main(["distill", f"--model.widths={[4] * 13}", "--data.photos=~/none", "--data.art=~/none"]) == 2
    assert f"in '{home / 'none'}'" in capsys.readouterr().err
