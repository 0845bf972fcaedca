"""The page that shows a run."""

from __future__ import annotations

import ast
import base64
import html.parser
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import QUIET
from lightning.pytorch import Callback
from PIL import Image

from nst_lightning import StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Report
from nst_lightning.callbacks.curves import draw, read_table
from nst_lightning.cli import main
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19

VOID = {"meta", "img", "input", "br", "hr", "link"}
IN_SVG = "http://www.w3.org/2000/svg"


class Page(html.parser.HTMLParser):
    """What a page holds; it fails if elements are not closed as they were opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if text.strip() and self.open[-1] not in {"style", "script"}:
            self.texts.append(" ".join(text.split()))

    def pictures(self):
        """By their words."""
        found = {}
        for tag, attributes in self.tags:
            if tag == "img":
                kind, _, data = attributes["src"].partition(",")
                assert kind == "data:image/jpeg;base64"
                found[attributes["alt"]] = Image.open(io.BytesIO(base64.b64decode(data)))
        return found


@pytest.fixture
def fit(place, pair):
    """Run `nst fit` with small pictures; gives the page, and its text."""

    def run(*options, content=None, style=None, code=0):
        pictures = ["--data.content", str(content or pair[0]), "--data.style", str(style or pair[1])]
        assert main(["fit", *pictures, "--data.size", "48", "--trainer.accelerator", "cpu", *options]) == code
        text = max(place.glob("runs/*/report.html")).read_text(encoding="utf-8")
        return Page(text), text

    return run


STAGES = "--model.stages=[{evaluations: 3, scale: 0.5}, {evaluations: 4}]"


def test_a_page_shows_pictures_losses_and_settings(fit, place, pair):
    page, text = fit(STAGES, "--model.strength", "2.5")
    pictures = page.pictures()
    assert set(pictures) == {"content", "result", "style.png", "start", "1", "2", "3", "5", "7"}
    assert pictures["content"].size == pictures["result"].size == (48, 36)
    for words in ("content.png + style.png", "7 of 7", "48 x 36 px", "24 x 18 px", "loss", "gram.relu1_1", "torch"):
        assert any(words in said for said in page.texts), words
    assert "strength: 2.5" in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    (slider,) = (attributes for tag, attributes in page.tags if tag == "input")
    assert slider["type"] == "range"
    assert "--at" in slider["oninput"]


def test_a_page_loads_nothing(fit):
    page, text = fit("--model.evaluations", "3")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}:
                assert value.startswith(("data:", "#")), value
    assert set(re.findall(r"https?://[^\"<> ]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = (a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_the_command_in_it_repeats_the_run(fit, place):
    page, _ = fit("--model.evaluations", "3", "--data.init", "noise")
    (command,) = (said for said in page.texts if said.startswith("nst fit --config"))
    assert main([*shlex.split(command)[1:], "--log", "none"]) == 0
    first, second = sorted(place.glob("runs/*/result.png"))
    assert first.read_bytes() != b""
    assert Image.open(first).tobytes() == Image.open(second).tobytes()


def test_names_are_texts_and_no_tags(fit, place, pair):
    name = "<script>alert(1)<script>&\"'.png"
    for path in pair:
        Image.open(path).save(place / f"{path.stem}{name}")
    page, text = fit("--model.evaluations", "2", content=f"content{name}", style=f"style{name}")
    assert "<script" not in text
    assert f"content{name} + style{name}" in page.texts
    settings = next(said for said in page.texts if "seed_everything" in said)
    assert "<script>alert(1)" in settings


def test_several_styles_have_their_weights(fit, pair):
    styles = f"[{{path: {pair[1]}, weight: 3}}, {pair[0]}]"
    page, _ = fit("--model.evaluations", "2", style=styles)
    assert "style.png, weight 3" in page.texts
    assert "content.png, weight 1" in page.texts


def test_regions_that_were_found_are_shown(fit, pair):
    page, _ = fit("--data.regions", "2", "--model.evaluations", "2")
    shown = {name for name in page.pictures() if name.startswith("regions of")}
    assert shown == {"regions of content", f"regions of {pair[1].name}"}
    page, _ = fit("--model.evaluations", "2")
    assert "Regions" not in page.texts


def test_a_texture_has_no_slider(place, pair):
    options = ["--data.style", str(pair[1]), "--data.size", "48", "--model.evaluations", "2", "--log", "none"]
    assert main(["fit", "--config", "texture", "--model.extractor", "VGG19", *options]) == 0
    (path,) = place.glob("runs/*/report.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert "content" not in page.pictures()
    assert not any(tag == "input" for tag, _ in page.tags)


def test_a_run_that_goes_on_shows_all_of_it(fit):
    page, _ = fit(STAGES, "--trainer.max_steps", "2")
    assert any("stopped after 2 of 7 evaluations" in said for said in page.texts)
    page, _ = fit("--ckpt_path", "last")
    assert "7 of 7" in page.texts
    assert {"start", "1", "2", "7"} <= set(page.pictures())


def test_none_is_written_where_none_is_wanted(place, pair):
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
    assert main(["fit", *pictures, "--model.evaluations", "2", "--report", "false"]) == 0
    assert not list(place.glob("runs/*/report.html"))


class Fail(Callback):
    """Fails after an evaluation."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            raise RuntimeError("that was <it>")


def test_a_program_without_settings_or_table(place, pair):
    """And a run that fails."""
    trainer = StyleTrainer(**QUIET, callbacks=[Fail(), Report(longest=32)], default_root_dir="out")
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=48)
    with pytest.raises(RuntimeError):
        trainer.fit(StyleTransfer(evaluations=3, extractor=VGG19()), datamodule=data)
    text = Path("out/report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.pictures()["result"].size == (32, 24)
    assert any("ended after 2 of 3 evaluations: that was <it>" in said for said in page.texts)
    assert "nst fit" not in text
    assert not any(tag == "svg" for tag, _ in page.tags)


def test_a_page_that_cannot_be_made_costs_itself_alone(place, pair, capsys, monkeypatch):
    monkeypatch.setattr("nst_lightning.callbacks.report.read_table", lambda _: {}["missing"])
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48", "--output", "o.png"]
    assert main(["fit", *pictures, "--model.evaluations", "2", "--log", "lines"]) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "report.html" in line)
    assert line.endswith("report.html: 'missing'; the run goes on")
    assert Path("o.png").exists()


def test_a_table_is_read_and_drawn(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_table(path) is None
    path.write_text("step,stage,loss,tv_loss,seconds\r\n", encoding="utf-8")
    assert read_table(path) is None
    rows = [f"{step},0,{1000 / step},0.0,{step / 10}" for step in range(1, 5001)]
    path.write_text("step,stage,loss,tv_loss,seconds\r\n" + "\r\n".join(["1,0,nan,0.0,0.05", *rows]), encoding="utf-8")
    table = read_table(path)
    assert (len(table.steps), table.seconds[-1]) == (5001, 500.0)
    assert draw(table, ["tv_loss"]) == ""  # nothing above 0
    svg = draw(table, ["loss", "tv_loss"])
    assert len(svg) < 40_000  # as many points as are seen
    assert "tv_loss" not in svg
    assert "NaN" not in svg


def test_nothing_of_it_is_imported_before_the_end():
    """Nor for films and terminals: a run is not to begin later for what it may need in the end."""
    looked_for = "{'av', 'leather', 'textual_image', 'rich'} & set(sys.modules)"
    code = f"import sys, nst_lightning.cli.fit; print(sorted({looked_for}))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert set(ast.literal_eval(said)) <= {"rich"}  # which Lightning imports where it is installed


def test_a_size_that_makes_no_sense():
    with pytest.raises(UserError, match=r"report\.longest: must be at least 16 px, got 3"):
        Report(longest=3)


def test_the_settings_are_those_of_the_run(fit, place):
    page, _ = fit("--model.evaluations", "2")
    (path,) = place.glob("runs/*/config.yaml")
    kept = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert kept.pop("paths_from")
    (shown,) = (attributes for tag, attributes in page.tags if tag == "details")
    assert shown == {}
    assert any("seed_everything: 0" in said for said in page.texts)
