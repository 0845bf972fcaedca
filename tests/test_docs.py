"""README and docs: Python examples and configurations run, commands are understood, links lead somewhere."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from sybil.document import Document, PythonDocument
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

import nst_lightning.cli
from nst_lightning.cli import main

ROOT = next((folder for folder in Path(__file__).parents if (folder / "docs").is_dir()), Path())
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))] if README.is_file() else []
pytestmark = pytest.mark.skipif(not README.is_file(), reason="needs the checkout's pages")

SMALL = ["--data.size", "32", "--trainer.accelerator", "cpu", "--log", "none"]
LEAST = {"size": 32, "evaluations": 2}
PICTURES = ["--data.content", "photo.jpg", "--data.style", "painting.jpg"]
_PICTURE = re.compile(r"[\w./-]+\.(?:jpg|png)")
_FILE_NAME = re.compile(r"# (\w+\.(?:py|yaml))\n")


def _id(page):
    return page.relative_to(ROOT).as_posix()


def _blocks(page, language):
    """Fenced blocks of a language, in order."""
    return [example.parsed for example in Document.parse(str(page), CodeBlockParser(language, lambda _: None))]


def _commands(page):
    """Lines of ``nst fit`` and ``nst stylize``, indented as code, with those that continue them; without comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^ {4}(nst (?:fit|stylize) .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in found if "..." not in line]


def _examples(page):
    """Options with a value in the last column of tables."""
    columns = re.findall(r"^\| .*\| ([^|]*`--[^|]*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    found = re.findall(r"`(--[^` ]+ [^`]+)`", " ".join(columns))
    return [shlex.split(one.replace("FILE", "vgg19.safetensors").replace(" N ", " 400 ")) for one in found]


@pytest.fixture
def desk(tmp_path, monkeypatch, pair, use_tiny_weights):
    """A folder with the pictures that examples speak of, from which they run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, picture in zip(("photo.jpg", "painting.jpg"), pair, strict=True):
        Image.open(picture).save(tmp_path / name)
    shutil.copy("photo.jpg", "other.jpg")
    shutil.copy(use_tiny_weights, "vgg19.safetensors")
    return tmp_path


def _save_files(page):
    """Write the blocks that begin with the name of a file."""
    for block in [*_blocks(page, "python"), *_blocks(page, "yaml")]:
        name = _FILE_NAME.match(block)
        if name:
            Path(name[1]).write_text(block, encoding="utf-8")


def _have_pictures(words):
    for name in _PICTURE.findall(" ".join(words)):
        if not Path(name).exists():
            shutil.copy("photo.jpg" if name.endswith("jpg") else _png(), name)


def _png():
    Image.new("L", (48, 36), 255).save("white.png")
    return "white.png"


def _is_understood(options):
    """Whether the command line is taken; nothing runs."""
    with contextlib.suppress(SystemExit):
        return main([*options, "--print_config"])
    return 0


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python")], ids=_id)
def test_python_examples_run(page, desk, monkeypatch):
    """All blocks of a page share their names, as in one session; sizes and lengths are made small."""
    _save_files(page)
    monkeypatch.setattr("nst_lightning.cli.main", lambda args: main([*args, *SMALL, "--model.evaluations", "2"]))
    if page.name == "output.md":  # it reads what a run has written
        nst_lightning.cli.main(["fit", *PICTURES, "--output", "out.jpg"])
    for example in (document := PythonDocument.parse(str(page), PythonCodeBlockParser())).examples():
        source = re.sub(r"\b(size|evaluations)=\d+", lambda found: f"{found[1]}={LEAST[found[1]]}", example.parsed)
        if "stylize(" in source and "evaluations=" not in source:
            source = source.replace("size=32", "size=48, evaluations=4")
        source = source.replace("logger=False,", "logger=False, accelerator='cpu', enable_model_summary=False,")
        lines = "\n" * (example.line + example.parsed.line_offset)  # so that errors name the page's lines
        exec(compile(lines + source, str(page), "exec"), document.namespace)


WITH_CONFIGURATIONS = [p for p in PAGES if _blocks(p, "yaml") and not p.name.startswith("add-")]


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow if p.name == "lightning.md" else ()) for p in WITH_CONFIGURATIONS],
    ids=_id,
)
def test_configurations_run(page, desk):
    _save_files(page)
    for index, block in enumerate(_blocks(page, "yaml")):
        if "my_package" in block or "TensorBoardLogger" in block:
            continue  # other tests run these
        Path(f"block{index}.yaml").write_text(block, encoding="utf-8")
        assert main(["fit", "--config", f"block{index}.yaml", *PICTURES, *SMALL, "--model.evaluations", "2"]) == 0, (
            block
        )


@pytest.mark.parametrize("page", [DOCS / f"add-{name}.md" for name in ("callback", "extractor", "term")], ids=_id)
def test_own_parts_run(page, desk):
    _save_files(page)
    (command,) = _commands(page)
    fast = ["--model.extractor.weights", "null"] if page.name == "add-extractor.md" else ["--model.extractor", "VGG19"]
    assert main([*command, *SMALL, "--data.size", "64", "--model.evaluations", "3", *fast]) == 0
    if page.name == "add-callback.md":
        (film,) = Path("runs").glob("*/film.gif")
        with Image.open(film) as picture:
            assert (picture.width, picture.n_frames) == (64, 2)


WITH_COMMANDS = [page for page in PAGES if _commands(page) or _examples(page)]


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=() if p == README else pytest.mark.slow) for p in WITH_COMMANDS], ids=_id
)
def test_commands_are_understood(page, desk):
    _save_files(page)
    Path("pictures.yaml").write_text("data: {content: photo.jpg, style: painting.jpg}", encoding="utf-8")
    for command in [*_commands(page), *(["fit", "--config", "pictures.yaml", *options] for options in _examples(page))]:
        if "--ckpt_path" in command or "help" in " ".join(command):  # the tutorial's are run
            continue
        _have_pictures(command)
        assert _is_understood(command) == 0, shlex.join(command)


@pytest.mark.slow
def test_the_tutorial_runs(desk):
    page = DOCS / "tutorial.md"
    _save_files(page)
    for command in _commands(page):
        small = [*SMALL, "--data.size", "64"]  # quickstart begins at half of it
        small += [] if "--model.evaluations" in command else ["--model.evaluations", "4"]
        assert main([*command, *([] if "--ckpt_path" in command else small)]) == 0
    assert main(["runs"]) == 0


@pytest.mark.parametrize("page", [DOCS / "command.md", DOCS / "coming-from.md"], ids=_id)
def test_answers_are_those_shown(page, desk, capsys):
    shown = re.findall(r"^ {4}\$ nst (.*)\n((?: {4}.*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown
    for command, answer in shown:
        assert main(shlex.split(command)) == 2
        assert capsys.readouterr().err.split() == answer.split()


def test_the_readme_is_a_front_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == nst_lightning.__version__


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md"))], ids=_id)
def test_links_lead_somewhere(page):
    """Those inside the repository; whether headings are there, the build of the site says."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert re.match(r"https?://", target) or (page.parent / target).exists(), target
