"""One call, one line and a pipe make the very picture of ``nst fit``, and whatever a program has in memory will do."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nst_lightning import Result, Session, UserError, stylize
from nst_lightning.cli import main as nst
from nst_lightning.config.short import Short
from nst_lightning.errors import UserNotice
from nst_lightning.images import read_metadata
from nst_lightning.planning.duration import Speed
from nst_lightning.session.budget import within

SHORT = {"size": 48, "evaluations": 4, "precision": "32-true", "device": "cpu"}
LONG = "--config fast --data.size 48 --model.evaluations 4 --trainer.precision 32-true --trainer.accelerator cpu"


def samples(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def made(pair, tmp_path_factory):
    """The picture of ``nst fit``."""
    folder = tmp_path_factory.mktemp("made")
    args = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--output", str(folder / "fit.png")]
    assert nst(["fit", *LONG.split(), *args, "--trainer.default_root_dir", str(folder), "--log", "none"]) == 0
    return samples(folder / "fit.png")


def short_line(content, style, *more) -> list[str]:
    words = ["--size", "48", "--model.evaluations", "4", "--precision", "32-true", "--device", "cpu"]
    return ["stylize", str(content), str(style), *words, *more]


def test_the_same_bytes_from_each_face(pair, made, place):
    assert nst(short_line(*pair, "-o", "line.png")) == 0
    assert np.array_equal(samples("line.png"), made)
    result = stylize(*pair, **SHORT, output="call.png")
    assert isinstance(result.image, Image.Image)
    assert np.array_equal(np.asarray(result.image), made)
    assert np.array_equal(samples("call.png"), made)
    result.save("saved.png")
    assert np.array_equal(samples("saved.png"), made)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(result._repr_png_()))), made)
    assert read_metadata("saved.png")["Content"] == "content.png"


def test_a_pipe_carries_the_picture_and_nothing_else(pair, made, place, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    command = [sys.executable, "-m", "nst_lightning", *short_line("-", pair[1], "-o", "png:-")]
    done = subprocess.run(command, input=pair[0].read_bytes(), capture_output=True, check=True, timeout=300)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(done.stdout))), made)
    assert b"evaluation 4 of 4" in done.stderr


def test_events_are_lines_of_json_on_standard_output(pair, place, capfd):
    assert nst(short_line(*pair, "-o", "line.png", "--json")) == 0
    said = capfd.readouterr()
    events = [json.loads(line) for line in said.out.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "plan"
    assert {"progress", "wrote"} <= set(names)
    assert said.err == ""
    assert nst(["stylize", str(pair[0]), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["event"] == "error"


def test_the_yaml_repeats_the_picture(pair, made, place, capfd):
    with pytest.raises(SystemExit) as end:
        nst(short_line(*pair, "--print_config"))
    assert end.value.code == 0
    (place / "run.yaml").write_text(capfd.readouterr().out)
    assert nst(["fit", "--config", "run.yaml", "--output", "again.png", "--log", "none"]) == 0
    assert np.array_equal(samples("again.png"), made)
    (place / "call.yaml").write_text(stylize(*pair, **SHORT).configuration)
    assert nst(["fit", "--config", "call.yaml", "--output", "call.png", "--log", "none"]) == 0
    assert np.array_equal(samples("call.png"), made)


def test_a_program_gets_the_kind_that_it_gave(pair, made, place):
    session = Session(**{"trainer.accelerator": "cpu", "trainer.precision": "32-true"})
    image = Image.open(pair[0]).convert("RGB")
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    style = Image.open(pair[1])
    kinds = [image, array, array.astype(np.uint16) * 257, array / np.float32(255), tensor, tensor[None].float() / 255]
    for given in kinds:
        result = session.stylize(given, style, size=48, evaluations=4)
        assert type(result.image) is (Image.Image if given is image else type(given))
        assert np.array_equal(np.asarray(result), made)
        if given is not image:
            assert result.image.dtype == given.dtype
            assert result.image.shape == (given.shape if given is not array else made.shape)
    assert np.abs(result.image[0].permute(1, 2, 0).numpy() * 255 - made).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr", "1"])
def test_pil_images_of_each_mode_are_read_as_their_files(mode, pair, place):
    image = Image.open(pair[0]).convert("RGB")
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image
    image = image if mode == "I;16" else image.convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    (image if mode != "YCbCr" else image.convert("RGB")).save(f"file.{suffix}")
    short = {"size": 32, "evaluations": 2, "precision": "32-true", "device": "cpu"}
    expected = stylize(f"file.{suffix}", pair[1], **short)
    assert np.array_equal(np.asarray(stylize(image, pair[1], **short)), np.asarray(expected))


def test_progress_and_a_wish_to_stop(pair, place):
    seen = []

    def progress(update):
        seen.append((update.evaluation, update.total, tuple(update.preview(16).shape)))
        return False

    result = stylize(*pair, size=48, evaluations=50, precision="32-true", progress=progress)
    assert seen == [(1, 50, (1, 3, 12, 16))]
    assert (result.evaluations, result.total, result.size) == (1, 50, (48, 36))
    event = threading.Event()
    event.set()
    assert stylize(*pair, size=48, evaluations=50, stop=event).evaluations == 1
    with pytest.raises(ValueError, match="mine"):
        stylize(*pair, size=48, evaluations=5, progress=lambda _: (_ for _ in ()).throw(ValueError("mine")))


def test_a_session_keeps_networks_and_targets_and_changes_no_bit(pair, made, place):
    session = Session()
    first = session.stylize(*pair, **SHORT)
    networks = dict(session._networks._built)
    again = session.stylize(*pair, **SHORT)
    assert np.array_equal(np.asarray(first), made)
    assert np.array_equal(np.asarray(again), made)
    assert session._styles.hits == 1
    assert session._networks._built == networks
    assert len(networks) == 1
    other = session.stylize(*pair, **{**SHORT, "strength": 3.0})
    assert session._styles.hits == 1  # another objective has targets of its own
    assert np.array_equal(np.asarray(other), np.asarray(stylize(*pair, **SHORT, strength=3.0)))


def test_eight_threads_and_no_warning(pair, made, place):
    session, results = Session(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [
            threading.Thread(target=lambda index=index: results.update({index: session.stylize(*pair, **SHORT)}))
            for index in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(np.asarray(results[index]), made) for index in range(8))


def test_several_styles_with_weights(pair, place):
    options = {**SHORT, "stroke_size": 1.5}
    named = stylize(pair[0], [f"{pair[1]}:2", str(pair[0])], **options)
    pairs = stylize(pair[0], [(pair[1], 2), Image.open(pair[0])], **options)
    assert np.array_equal(np.asarray(named), np.asarray(pairs))
    assert "scale: 1.5" in named.configuration
    assert nst(short_line(pair[0], f"{pair[1]}:2", str(pair[0]), "--stroke-size", "1.5", "-o", "line.png")) == 0
    assert np.array_equal(samples("line.png"), np.asarray(named))


def test_masks_are_paths_as_objects_or_pictures_in_memory(pair, place):
    """Each kind makes the same picture, and another one than without masks."""
    masks = {"mask": np.full((48, 64), 255, np.uint8), "style_mask": np.full((40, 40), 255, np.uint8)}
    for name, samples_of_mask in masks.items():
        samples_of_mask[:, :20] = 0
        Image.fromarray(samples_of_mask).save(f"{name}.png")
    second, options = {"path": str(pair[0])}, {**SHORT, "evaluations": 1}

    def picture(kinds, mask):
        styles = [{"path": pair[1], **kinds}, second]
        return np.asarray(stylize(pair[0], styles, **options, **{"data.content_mask": mask}))

    texts = {name: f"{name}.png" for name in masks}
    wanted = picture(texts, "mask.png")
    assert np.array_equal(picture({name: Path(path) for name, path in texts.items()}, Path("mask.png")), wanted)
    assert np.array_equal(picture(masks, "mask.png"), wanted)
    assert not np.array_equal(picture({}, None), wanted)


REFUSED = {
    "a missing picture": (("no.png", "{style}"), {}, "data.content: needs an existing picture, got 'no.png'"),
    "a list as content": (([1], "{style}"), {}, "content: must be a path, a PIL image, an array (H, W, 3)"),
    "floats out of range": ((np.ones((32, 32, 3)) * 255, "{style}"), {}, "floats must be in [0, 1], got 255 to 255"),
    "a list as mask": (("{content}", {"path": "demo:style", "mask": [1]}), {}, "style[0].mask: must be a path, a PIL"),
    "channels last in a tensor": ((torch.zeros(32, 32, 3), "{style}"), {}, "a tensor must be (3, H, W)"),
    "two channels": ((np.zeros((32, 32, 2), np.uint8), "{style}"), {}, "an array must be (H, W)"),
    "whole numbers": ((np.zeros((32, 32, 3), np.int64), "{style}"), {}, "samples must be uint8, uint16 or floats"),
    "floats of PIL": ((Image.new("F", (32, 32)), "{style}"), {}, "a PIL image must be of mode"),
    "an option that is none": (("{content}", "{style}"), {"data.siz": 3}, "data.siz: there is no such option"),
    "no preset": (("{content}", "{style}"), {"preset": "fats"}, "--config: must be a file or a preset, got 'fats'"),
    "a size that is too small": (("{content}", "{style}"), {"size": 3}, "data.size: must be at least 16 px, got 3"),
    "stroke size 0": (("{content}", "{style}"), {"stroke_size": 0}, "stroke_size: must be above 0, got 0"),
    "no time": (("{content}", "{style}"), {"seconds": 0}, "seconds: must be above 0, got 0"),
    "two lengths": (
        ("{content}", "{style}"),
        {"seconds": 9, "evaluations": 30},
        "seconds: must be left out where the evaluations are given, got 9 and 30; choose one",
    ),
    "several devices": (("{content}", "{style}"), {"trainer.devices": 2}, "trainer.devices: must be one device"),
    "a device of letters": (("{content}", "{style}"), {"device": "cuda:x"}, "device: must be a kind such as cuda"),
    "a thing said twice": (("{content}", "{style}"), {"size": 48, "data.size": 64}, "data.size: must be given once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_line(case, pair, place):
    pictures, options, said = REFUSED[case]
    named = [p.format(content=pair[0], style=pair[1]) if isinstance(p, str) else p for p in pictures]
    with pytest.raises(UserError) as error:
        stylize(*named, **options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


LINES = {
    "one picture": (["{content}"], "pictures: must be a content and at least one style, got only"),
    "none": ([], "pictures: must be a content and at least one style, got none"),
    "two pipes": (["-", "-"], "pictures: must name standard input once, got - twice"),
    "a folder": (
        ["{content}", "."],
        "style: must be a picture file, got the folder '.'; nst gallery makes pictures of",
    ),
    "a weight": (["{content}", "{style}:x"], "style: a weight must be a number"),
    "a slip": (["{content}", "{style}", "--strenght", "3"], "--strenght: there is no such option, got --strenght; did"),
    "a size": (["{content}", "{style}", "--size", "big"], "data.size: must be int or one of content, got big"),
    "json into a pipe": (["{content}", "{style}", "-o", "-", "--json"], "output: must be a file with --json"),
    "a format": (["{content}", "{style}", "-o", "xyz:-"], "must end in one of"),
    "two lengths": (
        ["{content}", "{style}", "--seconds", "9", "--model.evaluations", "30"],
        "seconds: must be left out where the evaluations are given, got 9 and 30; choose one",
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_a_line_that_cannot_be_ends_with_2(case, pair, place, capfd):
    words, said = LINES[case]
    words = [word.format(content=pair[0], style=pair[1]) for word in words]
    assert nst(["stylize", *words]) == 2
    found = capfd.readouterr()
    lines = (found.out + found.err).strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_what_a_file_is_called_does_not_matter(pair, place):
    for name in ("null", "[a].png", "true.png", "a b:c.png", "-x.png"):
        (place / name).write_bytes(pair[0].read_bytes())
        result = stylize(
            f"./{name}" if name.startswith("-") else name, name if name != "-x.png" else "./-x.png", **SHORT
        )
        assert isinstance(result, Result)


def test_a_run_in_a_given_time_has_the_evaluations_that_fit(pair, place, monkeypatch):
    """A millisecond for each evaluation at 48 px leaves time for 198 in a second."""
    monkeypatch.setattr("nst_lightning.session.budget.speed_of", lambda *_: Speed(1e-3 / (48 * 36 * 2 * 1.25)))
    monkeypatch.setattr("nst_lightning.session.budget.picture_speed", lambda *_: Speed(0.0))
    args = Short(size=48).arguments(str(pair[0]), [str(pair[1])])
    assert within(args, 1.0, 0.2) == ["--data.size=48", "--model.evaluations=198"]
    with pytest.warns(UserNotice, match="seconds: 0.5 are few for this machine; 12 evaluations at 48 px take longer"):
        assert within(args, 0.5, 0.2) == ["--data.size=48", "--model.evaluations=12"]
    args = Short().arguments(str(pair[0]), [str(pair[1])])
    size, *_ = within(args, 1e6, 0.0)
    assert size == "--data.size=2048"
    # At 256 px, in one stage, 60 evaluations take 1.7 s; at 384 px, in two, 40 and 40 take 3.8 s.
    size, evaluations = within(args, 3.0, 0.0)
    assert (size, evaluations) == ("--data.size=256", "--model.evaluations=82")
    size, stages, _ = within(args, 5.0, 0.0)
    assert (size, stages) == (
        "--data.size=384",
        '--model.stages=[{"evaluations": 53, "scale": 0.5}, {"evaluations": 53, "scale": 1.0}]',
    )
    # Terms that look at the picture take their time, too: as much again.
    with monkeypatch.context() as patch:
        patch.setattr("nst_lightning.session.budget.picture_speed", lambda *_: Speed(1e-3 / (48 * 36 * 1.25)))
        of_48 = Short(size=48).arguments(str(pair[0]), [str(pair[1])])
        assert within(of_48, 1.0, 0.2) == ["--data.size=48", "--model.evaluations=98"]
    # With a draft its stages stay its own.
    _, stages, _ = within([*args, "--model.draft=CompactVGG19"], 5.0, 0.0)
    first, second, third = json.loads(stages.removeprefix("--model.stages="))
    assert (
        first["extractor"]["class_path"] == second["extractor"]["class_path"] == "nst_lightning.features.CompactVGG19"
    )
    assert (first["scale"], second["scale"], third["scale"], "extractor" in third) == (0.5, 1.0, 1.0, False)


def test_the_yaml_says_what_was_chosen_for_a_time(pair, place, monkeypatch, capsys):
    monkeypatch.setattr("nst_lightning.session.budget.speed_of", lambda *_: Speed(1e-3 / (48 * 36 * 2 * 1.25)))
    with pytest.raises(SystemExit):
        nst(["stylize", *map(str, pair), "--size", "48", "--seconds", "9", "--print_config"])
    written = yaml.safe_load(capsys.readouterr().out)
    assert written["data"]["size"] == 48
    assert 60 < written["model"]["evaluations"] <= 240


@pytest.mark.parametrize("word", ["--size=48", "--data.size=48", "--data.size 48"])
def test_a_size_that_is_given_stays_whatever_time_there_is(word, pair, place, monkeypatch):
    """As a short word, and as an option of ``nst fit``."""
    monkeypatch.setattr("nst_lightning.session.budget.speed_of", lambda *_: Speed(1e-3 / (48 * 36 * 2 * 1.25)))
    assert nst(["stylize", *map(str, pair), "--seconds", "0.9", "-o", "line.png", *word.split()]) == 0
    assert samples("line.png").shape == (36, 48, 3)
    options = {"size": 48} if word.startswith("--size") else {"data.size": 48}
    assert stylize(*pair, seconds=0.9, **options).size == (48, 36)
