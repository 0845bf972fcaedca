"""``nst fit`` before the parser: its page of help, words of other programs, and classes of one's own."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nst_lightning.cli import SUBCOMMANDS, main
from nst_lightning.cli.page import PAGE, TOPICS
from nst_lightning.config.habits import HABITS, OURS, check_words
from nst_lightning.config.options import FitCLI
from nst_lightning.config.presets import preset_names
from nst_lightning.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with files of the names that are used; habits look at names alone."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "painting.jpg", "b.png", "my photo.jpg", "mine.yaml", "-dash.jpg"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


OWN = "--data.content photo.jpg --data.style painting.jpg"
TERMS = "[{class_path: Content, init_args: {weight: 0.5}}, %s]"
SAID = {
    # pictures without options
    "photo.jpg painting.jpg": OWN,
    "photo.jpg painting.jpg out.png": f"{OWN} --output out.png",
    "photo.jpg painting.jpg b.png": "--data.content photo.jpg --data.style '[painting.jpg, b.png]'",
    "--data.content photo.jpg painting.jpg": OWN,
    f"{OWN} b.png": "--data.content photo.jpg --data.style '[painting.jpg, b.png]'",
    f"{OWN} --data.style b.png": "--data.content photo.jpg --data.style '[painting.jpg, b.png]'",
    f"{OWN},b.png": "--data.content photo.jpg --data.style '[painting.jpg, b.png]'",
    "--data.content my photo.jpg --data.style b.png": "--data.content 'my photo.jpg' --data.style b.png",
    "--data.content -dash.jpg --data.style b.png": "--data.content=-dash.jpg --data.style b.png",
    "--data.content --data.style painting.jpg": OWN,
    "--data.content= --data.style painting.jpg": OWN,
    "--data.content photo.jpg --data.style": OWN,
    # names of the right meaning
    "--content photo.jpg --style painting.jpg": OWN,
    "data.content=photo.jpg data.style=painting.jpg size=48": f"{OWN} --data.size 48",
    "\u2013data.content photo.jpg \u2014data.style painting.jpg": OWN,
    f"{OWN} --data.style-size 99 --Data.Size 48": f"{OWN} --data.style_size 99 --data.size 48",
    f"fit {OWN}": OWN,
    f"{OWN} --fit.data.size 48": f"{OWN} --data.size 48",
    f"gatys {OWN}": f"{OWN} --config gatys",
    f"{OWN} --preset gatys": f"{OWN} --config gatys",
    f"mine.yaml {OWN}": f"{OWN} --config mine.yaml",
    f"{OWN} --itterations 9": f"{OWN} --model.evaluations 9",
    f"{OWN} --trainer.tf32": f"{OWN} --trainer.tf32 true",
    f"{OWN} --size 512px --iterations 1e3": f"{OWN} --data.size 512 --model.evaluations 1000",
    f"{OWN} --model vgg19": f"{OWN} --model.extractor VGG19",
    f"{OWN} --device cuda:1": f"{OWN} --trainer.accelerator cuda --trainer.devices '[1]'",
    f"{OWN} --device cpu": f"{OWN} --trainer.accelerator cpu",
    f"{OWN} --gpu 0": f"{OWN} --trainer.accelerator auto",
    f"{OWN} -gpu -1": f"{OWN} --trainer.accelerator cpu",
    f"{OWN} --cuda": f"{OWN} --trainer.accelerator auto",
    f"{OWN} --preserve-colors": f"{OWN} --data.color luminance",
    f"{OWN} -original_colors 0": OWN,
    f"{OWN} -style_scale 1.5": "--data.content photo.jpg --data.style '[{path: painting.jpg, scale: 1.5}]'",
    # whole lines of other programs
    "-style_image painting.jpg -content_image photo.jpg -num_iterations 500 -image_size 512 -backend cudnn": (
        f"{OWN} --model.evaluations 500 --data.size 512"
    ),
    "-style_image painting.jpg,b.png -style_blend_weights 3,7 -content_image photo.jpg -init random -seed 3": (
        "--data.content photo.jpg --data.style '[{path: painting.jpg, weight: 3}, {path: b.png, weight: 7}]' "
        "--data.init noise --seed_everything 3"
    ),
    "-content_image photo.jpg -style_image painting.jpg -tv_weight 1e-3 -style_layers relu1_1,relu2_1 -pooling avg": (
        f"{OWN} --model.terms '{TERMS % '{class_path: Gram, init_args: {layers: [relu1_1, relu2_1]}}, TotalVariation'}'"
        " --model.extractor.pooling average"
    ),
    "photo.jpg painting.jpg -o out.png -s 512 -i 500 --devices cuda:0 --save-every 50": (
        f"{OWN} --output out.png --data.size 512 --model.evaluations 500 --trainer.accelerator cuda --snapshot_every 50"
    ),
    "--content-image photo.jpg --style-image painting.jpg --output-image out.png --cuda 1": (
        f"{OWN} --output out.png --trainer.accelerator auto"
    ),
    "-c photo.jpg -s painting.jpg -o out.png --num-steps 300": f"{OWN} --output out.png --model.evaluations 300",
    "photo.jpg painting.jpg --weight 1.0 --output out.png --device cuda:0 --resize_to 512": (
        f"{OWN} --model.strength 1 --output out.png --trainer.accelerator cuda --data.size 512"
    ),
    "-content_image photo.jpg -style_image painting.jpg -optimizer adam -learning_rate 10 -save_iter 100": (
        f"{OWN} --model.optimizer torch.optim.Adam --model.optimizer.lr 0.02 --snapshot_every 100"
    ),
}


@pytest.mark.parametrize("typed", SAID)
def test_what_is_typed_elsewhere_is_answered_by_what_to_type(place, typed):
    with pytest.raises(UserError) as error:
        check_words(shlex.split(typed))
    (said,) = str(error.value).splitlines()
    what, _, command = said.partition(" type: nst fit ")
    assert re.match(r"\S+: (must|there is)", what)
    assert ", got " in what
    command = re.sub(r" \([^()]*\)$", "", command)
    assert shlex.split(command) == shlex.split(SAID[typed])
    check_words(shlex.split(command))  # which is nothing to complain of


def test_several_contents_are_several_runs(place):
    with pytest.raises(UserError, match=re.escape('do nst fit --data.content "$f" --data.style b.png; done')) as error:
        check_words(shlex.split("--data.content photo.jpg painting.jpg --data.style b.png"))
    assert "for f in photo.jpg painting.jpg;" in str(error.value)


def test_what_has_no_counterpart_is_said(place):
    with pytest.raises(UserError, match=r"nothing here is called --zebra\)$"):
        check_words(shlex.split(f"{OWN} --zebra 3 --size 48"))
    with pytest.raises(UserError, match=r"strength is a factor"):
        check_words(shlex.split(f"{OWN} -style_weight 1e3"))


@pytest.mark.parametrize(
    "typed",
    [
        OWN,
        f"{OWN} --data.style painting.jpg",
        "--data.content photo.jpg --data.style+ painting.jpg --data.style+ b.png",
        f"-c gatys --config=hardware/cpu {OWN} --model.strength -1 --trainer.devices=[0]",
        f"{OWN} --model.optimizer torch.optim.Adam --model.optimizer.lr 0.02 --output -",
        f"{OWN} --trainer.callbacks GradientAccumulationScheduler --trainer.callbacks.scheduling '{{0: 2}}'",
        f"{OWN} --print_config",
        "--data.style painting.jpg --data.content https://example.org/x,y.jpg",
        "--model.extractor.help CompactVGG19",
        f"{OWN} --zebra 3",
    ],
)
def test_what_the_parser_can_judge_is_left_to_it(place, typed):
    check_words(shlex.split(typed))


def keys_of_the_parser(monkeypatch, *args):
    seen = {}

    def keep(self, parser, _):
        seen.update({action.dest: action for action in parser._actions})
        raise SystemExit

    monkeypatch.setattr(FitCLI, "parse_arguments", keep)
    with pytest.raises(SystemExit):
        FitCLI(list(args))
    return set(seen)


def test_names_of_ours_are_those_of_the_parser(monkeypatch):
    keys = keys_of_the_parser(monkeypatch)
    ours = {prefix + name for prefix, names in OURS.items() for name in names.split()}
    assert {name for name in ours if not name.startswith(("model.extractor.", "model.optimizer."))} <= keys
    own = {key for key in keys if not key.startswith("trainer") and "help" not in key}
    assert own - ours == {"data", "model", "print_config"}


def test_habits_lead_to_options_that_exist(place, capsys, monkeypatch):
    """Every entry of the table, with a value that fits, makes a command that the parser takes."""
    values = {"config": "gatys", "size": "64", "color": "1", "weights": "x.pth", "init": "random", "log": ""}
    wrong = []
    for habit in HABITS:
        for value in (values.get(habit, "1"), "gone.jpg"):
            with pytest.raises(UserError) as error:
                check_words([*shlex.split(OWN), f"--{habit}={value}"])
            command = str(error.value).rpartition(" type: ")[2].split(" (")[0]
            flags = {word.partition("=")[0] for word in shlex.split(command) if word.startswith("--")}
            known = {f"--{prefix}{name}" for prefix, names in OURS.items() for name in names.split()}
            wrong += [(habit, flag) for flag in flags - known]
    assert not wrong


# ------------------------------------------------------------------------------------------------------ the page


def test_the_page_fits_a_terminal_and_tells_of_every_preset():
    lines = PAGE.splitlines()
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 100
    for name in preset_names():
        assert name.removeprefix("hardware/") in PAGE, name


def test_options_of_the_page_exist(capsys, monkeypatch):
    assert main(["fit", "--help", "all"]) == 0
    everything = capsys.readouterr().out
    for option in re.findall(r"--[a-z][\w.]*", PAGE):
        assert re.search(rf"^ +(-\w+( \w+)?, )?{re.escape(option)}\b", everything, re.MULTILINE), option


@pytest.mark.parametrize("args", [["fit", "--help"], ["fit", "-h"], ["help", "fit"], ["fit", "--data.size", "3", "-h"]])
def test_help_is_the_page(capsys, args):
    assert main(args) == 0
    assert capsys.readouterr().out == PAGE + "\n"


def test_the_page_and_words_need_no_torch(tmp_path):
    code = (
        "import sys; from nst_lightning.cli import main; "
        "assert main(['fit', '--help']) == 0; assert main(['fit', 'a.jpg', 'b.jpg']) == 2; "
        "assert main(['a.jpg']) == 2; "
        "assert 'torch' not in sys.modules and 'jsonargparse' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=120, check=True)


@pytest.mark.parametrize(
    ("topic", "has", "lacks"),
    [
        ("data", "--data.style_size", "--model.tile"),
        ("model", "--model.optimizer.history_size", "--data.content"),
        ("trainer", "--trainer.tf32", "--output"),
        ("output", "--fallback", "--trainer.tf32"),
    ],
)
def test_topics_of_help(capsys, topic, has, lacks):
    assert main(["fit", "--help", topic]) == 0
    out = capsys.readouterr().out
    assert has in out
    assert f" {lacks} " not in out


def test_help_for_a_class_still_works(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model.extractor.help", "CompactVGG19"])
    assert stop.value.code == 0
    assert "--model.extractor.convolution" in capsys.readouterr().out


def test_an_unknown_topic(capsys):
    assert main(["fit", "--help", "moel"]) == 2
    assert "type: nst fit --help model" in capsys.readouterr().err
    assert set(TOPICS) >= {"all", "model"}


@pytest.mark.parametrize("args", [["--version"], ["-V"], ["version"], ["fit", "--version"]])
def test_version(capsys, args):
    assert main(args) == 0
    assert capsys.readouterr().out.startswith("nst_lightning ")


def test_pictures_without_a_subcommand(place, capsys):
    assert main(["photo.jpg", "painting.jpg", "--size", "99"]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"type: nst fit {OWN} --data.size 99\n")


# --------------------------------------------------------------------------------------------- one's own classes

CALLBACK = """
from lightning.pytorch import Callback
class Mine(Callback):
    def on_train_start(self, *_):
        print("CALLED")
"""
YAML = (
    "{data: {content: 'demo:content', style: 'demo:style', size: 32}, trainer: {accelerator: cpu, callbacks: "
    "[{class_path: %s.Mine}]}, model: {evaluations: 1}}"
)


def test_classes_beside_the_configuration_are_found_and_the_path_is_as_before(
    tmp_path, monkeypatch, use_tiny_weights, capsys
):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "mine_in_the_current_folder.py").write_text(CALLBACK, encoding="utf-8")
    (here / "a.yaml").write_text(YAML % "mine_in_the_current_folder", encoding="utf-8")
    (there / "mine_beside_the_configuration.py").write_text(CALLBACK, encoding="utf-8")
    (there / "b.yaml").write_text(YAML % "mine_beside_the_configuration", encoding="utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in {"", str(here)}])
    before = sys.path[:]
    for config in ("a.yaml", "../there/b.yaml"):
        assert main(["fit", "--config", config]) == 0
        assert "CALLED" in capsys.readouterr().out
        assert sys.path == before
    assert main(["fit", f"--config={there / 'c.yaml'}"]) == 2
    assert sys.path == before


TERM = "from nst_lightning.losses import Gram\nclass Mine(Gram):\n    pass\n"


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_gallery_and_a_time_find_them_too(tmp_path, monkeypatch, capfd, where):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (tmp_path / where / f"my_terms_{where}.py").write_text(TERM, encoding="utf-8")
    terms = f"[Content, {{class_path: my_terms_{where}.Mine}}]"
    (there / "a.yaml").write_text(f"model: {{extractor: CompactVGG19, terms: {terms}}}\n", encoding="utf-8")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in {"", str(here)}])
    before = sys.path[:]
    for flag in ("--config", "--preset"):
        gallery = ["gallery", "demo:content", "--styles", "demo:style", "-o", "out", flag, "../there/a.yaml"]
        assert main([*gallery, "--print_config"]) == 0
    words = ["stylize", "demo:content", "demo:style", "--config", "../there/a.yaml", "--size", "32"]
    with pytest.raises(SystemExit):
        main([*words, "--seconds", "60", "--print_config"])
    assert capfd.readouterr().out.count(f"my_terms_{where}.Mine") == 3
    assert sys.path == before


@pytest.mark.parametrize("module", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_file_named_like_a_library_takes_nobodys_place(tmp_path, use_tiny_weights, module):
    """A folder of pictures with a random.py and a torch.py of one's own: the installed command and python -m alike."""
    for name in ("random", "torch", "yaml", "pathlib", "difflib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(CALLBACK, encoding="utf-8")
    (tmp_path / "my.yaml").write_text(YAML % "mine", encoding="utf-8")
    installed = "import sys; sys.path.remove(''); from nst_lightning.cli import entry_point; entry_point()"
    start = ["-m", "nst_lightning"] if module else ["-c", installed]
    command = [sys.executable, *start, "fit", "--config", "my.yaml"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert "CALLED" in run.stdout


def test_a_current_folder_that_is_gone(monkeypatch, capsys):
    """A library ends the process over it, so it is looked at before any is loaded."""

    def gone():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "getcwd", gone)
    assert main(["fit", "--config", "quickstart"]) == 2
    assert capsys.readouterr().err == (
        "nst: error: current folder: must be there, got one that cannot be found (No such file or directory); "
        "change to another\n"
    )


def test_a_failure_of_the_disk_is_a_line(monkeypatch, capsys):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "a.png")

    monkeypatch.setitem(sys.modules, "broken", SimpleNamespace(main=fail))
    monkeypatch.setitem(SUBCOMMANDS, "fit", ("broken", ""))
    assert main(["fit"]) == 2
    assert capsys.readouterr().err == (
        "nst: error: a.png: Input/output error; see that it is there, and that the disk is well\n"
    )
