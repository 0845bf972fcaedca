"""``nst completion``: the scripts in their shells, and the words against the true parsers."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import get_args

import pytest

from nst_lightning import features, optim
from nst_lightning.cli import SUBCOMMANDS, main, stylize
from nst_lightning.cli.benchmark import SUITES
from nst_lightning.cli.completion import script
from nst_lightning.cli.words import FIT, SHELLS, SHORT, words_of
from nst_lightning.config.habits import OURS
from nst_lightning.config.presets import preset_names
from nst_lightning.console.log import Kind
from nst_lightning.data.request import Color, Side, Start
from nst_lightning.features.topology import Algorithm, Padding, Pooling
from nst_lightning.features.vgg import Units
from nst_lightning.hardware.accelerator import Accelerator, Precision
from nst_lightning.images.resize import Resample
from nst_lightning.optim.lbfgs import HistoryDtype

# ------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("name", sorted(set(SUBCOMMANDS) - {"fit", "distill", "stylize", "gallery"}))
def test_words_are_those_of_the_parser(name, monkeypatch):
    class SeenError(Exception):
        pass

    def parse(self, *_):
        raise SeenError(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    with pytest.raises(SeenError) as seen:
        import_module(SUBCOMMANDS[name][0]).main([])
    actions = [action for action in seen.value.args[0]._actions if action.dest != "help"]
    words = words_of(name, SUBCOMMANDS[name][0])
    options = {" ".join(action.option_strings): action.nargs == 0 for action in actions if action.option_strings}
    assert {typed: value is None for typed, value in words.items() if typed.startswith("-")} == options
    assert len([action for action in actions if not action.option_strings]) == len(words) - len(options)


def test_short_words_are_those_of_the_parser_before_those_of_fit():
    short, fit = (words_of(name, SUBCOMMANDS[name][0]) for name in ("stylize", "fit"))
    for action in stylize.parser()._actions:
        (typed,) = [typed for typed in short if {*typed.split()} & {*action.option_strings, action.dest}]
        assert (short[typed] is None) == (action.nargs == 0)
    assert short["--keep-colors"] is None
    assert short["-o --output"] == short["--data.content"]
    assert short["--strength"].paths == ""
    assert short["pictures"].many
    assert set(SHORT) <= {*short, "--engine", "--address"}
    assert set(fit) - set(short) == {"--output"}


def test_words_of_the_encoders_training(capsys):
    with pytest.raises(SystemExit):
        main(["distill", "--help"])
    said = capsys.readouterr().out
    for typed in words_of("distill", ""):
        assert typed.split()[-1] in said


def test_values_are_those_of_the_program():
    assert set(FIT) <= {prefix + name for prefix, names in OURS.items() for name in names.split()}
    literals = {
        "log": Kind,
        "data.side": Side,
        "data.init": Start,
        "data.resample": Resample,
        "data.color": Color,
        "model.extractor.pooling": Pooling,
        "model.extractor.padding": Padding,
        "model.extractor.convolution": Algorithm,
        "model.extractor.units": Units,
        "model.optimizer.history_dtype": HistoryDtype,
    }
    for name, literal in literals.items():
        assert FIT[name].words == get_args(literal), name
    assert FIT["trainer.accelerator"].words == ("auto", *get_args(Accelerator))
    assert sorted(FIT["trainer.precision"].words) == sorted(["auto", *get_args(Precision)])
    assert set(FIT["model.extractor"].words) <= set(features.__all__)
    assert FIT["model.optimizer"].words[0] in optim.__all__
    assert words_of("benchmark", "")["--suites"].words == SUITES


# ------------------------------------------------------------------------------------------------------ shells

# Each gets lines as arguments, in the last of whose words a tabulator is typed, and says what is offered after NEXT.
BASH = """
source ./script
registered=$(complete -p nst); registered=${registered##*-F }
for line; do
  read -ra COMP_WORDS <<< "$line"
  [[ $line == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMP_LINE=$line; COMP_POINT=${#COMP_LINE}
  "${registered%% *}" nst "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
  printf '%s\\n' NEXT "${COMPREPLY[@]}"
done
"""
# A terminal of its own; what it shows has the line typed, too.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PROMPT=; fpath=($PWD/functions $fpath); autoload -Uz compinit && compinit -u -d $PWD/dump'
zpty -w shell 'LISTMAX=10000; setopt no_beep; told() { print LIS""TED }; zle -N told; bindkey "^U" kill-whole-line'
zpty -w shell 'bindkey "^I" list-choices; bindkey "^O" told; print REA""DY'
zpty -r shell said '*READY*'
for line; do
  zpty -w -n shell $'\C-u'"$line"$'\t\C-o'
  zpty -r shell said '*LISTED*'
  print -r -- NEXT "$said"
done
zpty -d shell
"""
FISH = "source script; for line in $argv; echo NEXT; complete -C $line; end"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with pictures."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "painting.jpg", "my photo.jpg", "fabric.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "pictures").mkdir()
    return tmp_path


@pytest.fixture
def complete(request, place):
    """What a shell offers for lines, whose last word has been begun: a set for each."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")

    def run(*lines):
        (place / "script").write_text(script(shell), encoding="utf-8")
        subprocess.run([shell, "-n", "script"], check=True)
        (place / "functions").mkdir()
        shutil.copy("script", "functions/_nst")
        command = {
            "bash": ["bash", "--norc", "-c", BASH, "bash"],
            "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
            "fish": ["fish", "--no-config", "-c", FISH],
        }[shell]
        said = subprocess.run([*command, *lines], capture_output=True, text=True, timeout=300, check=True).stdout
        return [offered(text) for text in said.split("NEXT")[1:]]

    def offered(text):
        plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", text).replace("\r", "\n")
        words = re.split(r"\t.*| +-- .*| {2,}|\n", plain)
        return {word.rstrip("/ ") for word in words if word}

    return run


each_shell = pytest.mark.parametrize("complete", SHELLS, indirect=True)


@each_shell
def test_subcommands_and_options(complete):
    subcommands, one, options, of_runs = complete("nst ", "nst f", "nst fit --data.s", "nst runs --ro")
    assert set(SUBCOMMANDS) <= subcommands
    assert one & set(SUBCOMMANDS) == {"fit"}
    assert {"--data.size", "--data.style", "--data.side", "--data.style_size", "--data.seed"} <= options
    assert not options & {"--data.content", "--output", "fit"}
    assert "--root" in of_runs


@each_shell
def test_presets_choices_and_files(complete):
    every, begun, second, colors, content, runs, listed = complete(
        "nst fit --config ",
        "nst fit --config fa",
        "nst fit --config fast --config p",
        "nst fit --data.color ",
        "nst fit --data.content ph",
        "nst runs ",
        "nst presets fast p",
    )
    assert {*preset_names(), "fabric.yaml", "pictures", "my photo.jpg"} <= {word.replace("\\", "") for word in every}
    assert begun & {*preset_names(), "fabric.yaml", "photo.jpg"} == {"fast", "fabric.yaml"}
    assert {"painterly", "poster", "painting.jpg"} <= second
    assert {"luminance", "match"} <= colors
    assert not colors & {"photo.jpg"}
    assert "photo.jpg" in content
    assert "painting.jpg" not in content
    assert {"clean", "pictures"} <= runs
    assert "photo.jpg" not in runs
    assert {"painterly", "poster"} <= listed
    assert not listed & {"photo.jpg", "pictures"}


@each_shell
def test_pictures_without_options(complete, monkeypatch):
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--engine")
    monkeypatch.setitem(sys.modules, "another", SimpleNamespace(parser=lambda: parser))
    monkeypatch.setitem(SUBCOMMANDS, "another", ("another", "another face of nst fit"))
    subcommands, content, styles, short, preset, option, engines = complete(
        "nst ",
        "nst stylize ",
        "nst stylize photo.jpg painting.jpg p",
        "nst stylize photo.jpg painting.jpg --st",
        "nst stylize photo.jpg painting.jpg --preset p",
        "nst stylize photo.jpg painting.jpg --preset fast --data.co",
        "nst another --engine ",
    )
    assert {"stylize", "another"} <= subcommands
    assert {"photo.jpg", "pictures"} <= content
    assert {"painting.jpg", "photo.jpg", "pictures"} <= styles
    assert {"--strength", "--stroke-size"} <= short
    assert {"painterly", "poster"} <= preset
    assert "--data.color" in option
    assert {"local", "ray"} <= engines


def test_explanations_are_those_of_the_pages():
    """Of an option of the same name of another subcommand they would be wrong."""
    lines = [line for line in script("fish").splitlines() if re.search(r" -l (size|data\.size|json) ", line)]
    explained = {re.search(r"using (\w+)' .*-l ([\w.]+)", line).groups(): line for line in lines}
    assert "long side in pixels" in explained["fit", "data.size"]
    assert "long side in pixels" in explained["stylize", "size"]
    assert "long side" not in explained["score", "size"]
    assert "event" in explained["stylize", "json"]
    assert "event" not in explained["runs", "json"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(capsys, shell):
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell) + "\n"


def test_mistakes_are_a_line(capsys, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert main(["completion"]) == 2
    said = "nst: error: shell: must be bash, zsh or fish, got nothing; type: nst completion zsh\n"
    assert capsys.readouterr().err == said
    monkeypatch.setenv("SHELL", "/bin/dash")
    assert main(["completion", "dash"]) == 2
    assert capsys.readouterr().err == said.replace("nothing", "'dash'").replace("completion zsh", "completion bash")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["completion", "fish"]) == 2
    assert capsys.readouterr().err == (
        "nst: error: shtab: must be installed, it is not; pip install 'nst_lightning[completion]'\n"
    )
