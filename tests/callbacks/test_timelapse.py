"""Films of a run: what is in them, and what happens where they cannot be made."""

from __future__ import annotations

import importlib.util
import io
import time
from concurrent.futures import Executor, Future
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from helpers import QUIET
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from PIL import Image

from nst_lightning import StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Export, Timelapse, timelapse
from nst_lightning.callbacks.allowance import Allowance
from nst_lightning.callbacks.export import owner_of
from nst_lightning.callbacks.frames import Frames, shown_for
from nst_lightning.callbacks.timelapse import Timing, make_shots
from nst_lightning.cli import main
from nst_lightning.features import VGG19
from nst_lightning.images import read_image
from nst_lightning.images.film import Shot, write_film

STAGES = "--model.stages=[{evaluations: 4, scale: 0.5}, {evaluations: 5}]"


@pytest.fixture
def fit(place, pair):
    """Run `nst fit` with small pictures; gives the exit code."""

    def run(*options, style=None):
        pictures = ["--data.content", str(pair[0]), "--data.style", str(style or pair[1]), "--data.size", "48"]
        return main(["fit", *pictures, "--trainer.accelerator", "cpu", "--log", "lines", *options])

    return run


@pytest.fixture
def unhurried(monkeypatch):
    """Let every evaluation be taken, however long that takes."""

    class AtOnce(Executor):
        def __init__(self, *_, **__): ...

        def submit(self, function, /, *args, **kwargs):
            done = Future()
            try:
                done.set_result(function(*args, **kwargs))
            except OSError as error:
                done.set_exception(error)
            return done

    monkeypatch.setattr(timelapse, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(Allowance, "left", 1e9)


def film(path):
    """Pictures of a film and how long each is shown, in seconds."""
    if path.suffix == ".mp4":
        with av.open(path) as container:
            rate = float(container.streams.video[0].average_rate)
            return [(frame.to_image(), 1 / rate) for frame in container.decode(video=0)]
    shown = []
    with Image.open(path) as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            shown.append((picture.convert("RGB"), picture.info["duration"] / 1000))
    return shown


def apart(a, b):
    """Mean difference of two pictures, from 0 to 1; coarse, as H.264 and GIF are with noise of all colours."""
    size, box = (12, 9), Image.Resampling.BOX
    a, b = (np.asarray(picture.convert("RGB").resize(size, box), np.float32) / 255 for picture in (a, b))
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_a_film_goes_from_the_content_to_the_result(fit, place, pair, unhurried, suffix):
    path = place / "films" / f"film{suffix}"
    assert fit(STAGES, "--timelapse", str(path), "--output", "out.png", "--data.init", "noise") == 0
    shown = film(path)
    pictures = [picture for picture, _ in shown]
    assert {picture.size for picture in pictures} == {(48, 36)}
    assert sum(seconds for _, seconds in shown) == pytest.approx(1 + 8 + 2, abs=0.1)
    assert apart(pictures[0], Image.open(pair[0])) < 0.03
    assert apart(pictures[-1], Image.open("out.png")) < 0.03
    assert apart(pictures[0], pictures[-1]) > 0.06
    assert apart(pictures[0], pictures[len(pictures) // 3]) > 0.06
    assert len({picture.tobytes() for picture in pictures}) > 6
    assert not list(path.parent.glob(".nst-*"))


def test_mp4_is_what_every_player_takes(fit, place, unhurried):
    assert fit("--model.evaluations", "3", "--timelapse", "film.mp4", "--data.size", "45") == 0
    with av.open("film.mp4") as container:
        (stream,) = container.streams
        context = stream.codec_context
        found = (context.name, context.pix_fmt, context.width % 2, context.height % 2, stream.average_rate)
        assert found == ("h264", "yuv420p", 0, 0, 30)
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, 16 to 235
    content = (place / "film.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # it plays while it is fetched


def test_a_run_that_goes_on_has_its_beginning_in_the_film(fit, place, unhurried):
    options = (STAGES, "--timelapse", "film.webp", "--data.init", "noise", "--checkpoint_every", "2")
    assert fit(*options, "--trainer.max_steps", "3") == 0
    (run,) = (place / "runs").iterdir()
    early = {path.name: path.read_bytes() for path in (run / "timelapse").glob("*.jpg")}
    assert set(early) == {f"{step:06d}.jpg" for step in range(4)}
    first = film(place / "film.webp")
    (run / "timelapse" / "000007.jpg").write_bytes(early["000003.jpg"])  # of an evaluation that is made again
    (run / "timelapse" / "000002.jpg").write_bytes(b"\xff\xd8")  # which a power failure left
    trainer = SimpleNamespace(default_root_dir=run)
    (place / f".nst-{owner_of(trainer)}0123.tmp").write_bytes(b"half a film, which a kill left")
    assert fit("--ckpt_path", "last") == 0
    assert not list(place.glob(".nst-*"))
    frames = {path.name: path.read_bytes() for path in (run / "timelapse").glob("*.jpg")}
    assert set(frames) == {f"{step:06d}.jpg" for step in (0, 1, 3, 4, 5, 6, 7, 8, 9)}
    assert [frames[name] == early[name] for name in ("000000.jpg", "000001.jpg", "000003.jpg")] == [True] * 3
    assert frames["000007.jpg"] != early["000003.jpg"]
    whole = film(place / "film.webp")
    assert len(whole) > len(first)
    assert apart(whole[1][0], first[1][0]) < 0.02  # the noise
    assert [path.name for path in place.glob("film*")] == ["film.webp"]  # the run's own was replaced


def test_another_film_is_moved_aside(fit, place):
    (place / "film.gif").write_bytes(b"somebody's")
    assert fit("--model.evaluations", "2", "--timelapse", "film.gif") == 0
    assert (place / "film_001.gif").read_bytes() == b"somebody's"
    assert fit("--model.evaluations", "2", "--timelapse", "film.gif") == 0  # another run
    assert sorted(path.name for path in place.glob("film*")) == ["film.gif", "film_001.gif", "film_002.gif"]


class Fail(Callback):
    """Fails after an evaluation."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            raise RuntimeError("that was it")


def train(pair, callbacks, **options):
    trainer = StyleTrainer(**QUIET, callbacks=callbacks)
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=48, **options)
    trainer.fit(StyleTransfer(evaluations=5, extractor=VGG19()), datamodule=data)


def test_a_run_that_fails_leaves_its_film(place, pair, unhurried):
    with pytest.raises(RuntimeError, match="that was it"):
        train(pair, [Fail(), Timelapse("film.webp", seconds=1, rest=0)])
    assert len(film(place / "film.webp")) > 2


def test_a_film_that_cannot_be_written_costs_itself_alone(fit, place, capsys, monkeypatch):
    def fail(*_, **__):
        raise ValueError("the encoder is in a bad mood")

    monkeypatch.setattr(av, "open", fail)
    assert fit("--model.evaluations", "3", "--timelapse", "film.mp4", "--output", "out.png") == 0
    assert "could not write film.mp4: the encoder is in a bad mood; the run goes on" in capsys.readouterr().err
    assert read_image("out.png").height == 36
    assert not list(place.glob("film*"))


def test_frames_that_cannot_be_kept_are_told_of_once(fit, place, capsys, monkeypatch, unhurried):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Frames, "add", fail)
    assert fit("--model.evaluations", "5", "--timelapse", "film.gif") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line and "timelapse" in line]
    assert line.endswith("timelapse: No space left on device; the run goes on")
    assert len(film(place / "film.gif")) == 2  # content and result


def test_colours_are_those_of_the_result(place, pair):
    train(pair, [Export("out.png"), Timelapse("film.webp", seconds=1)], color="luminance")
    pictures = [picture for picture, _ in film(place / "film.webp")]
    assert apart(pictures[-1], Image.open("out.png")) < 0.03


def test_a_texture_begins_with_its_start(place, pair, unhurried):
    options = ["--data.style", str(pair[1]), "--data.size", "48", "--timelapse", "film.gif", "--log", "none"]
    assert main(["fit", "--config", "texture", "--model.extractor", "VGG19", *options, "--model.evaluations", "3"]) == 0
    assert len(film(place / "film.gif")) > 2


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("film.avi", "timelapse: must end in one of .mp4, .webp, .gif, got 'film.avi'; change the suffix of the path"),
        ("folder.mp4", "timelapse: needs a file, got the folder 'folder.mp4'; add the name of a file"),
        ("out.webp", "timelapse: must be another file than output, got out.webp; choose another name"),
        ("style.gif", "timelapse: must not be a picture that the run reads, got 'style.gif'; choose another name"),
    ],
)
def test_a_wrong_path_is_told_of_before_any_work(fit, place, pair, capsys, given, line):
    (place / "folder.mp4").mkdir()
    Image.open(pair[1]).save("style.gif")
    assert fit("--timelapse", given, "--output", "out.webp", style="style.gif") == 2
    assert capsys.readouterr().err == f"nst: error: {line}\n"
    assert not (place / "runs").exists()


def test_without_pyav_a_line_says_how_to_get_it(fit, place, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "av" else found(name))
    assert fit("--timelapse", "film.mp4") == 2
    assert capsys.readouterr().err == (
        "nst: error: timelapse: MP4 needs PyAV, which is not installed, got 'film.mp4'; "
        "pip install 'nst_lightning[video]', or choose .webp or .gif\n"
    )


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": 601}, {"rest": -1}, {"fps": 0}, {"longest": 8}])
def test_numbers_that_make_no_film(place, wrong):
    (name,) = wrong
    with pytest.raises(Exception, match=rf"timelapse\.{name}: must be"):
        Timelapse("film.gif", **wrong)


def grey(value):
    return np.full((36, 48, 3), value, np.uint8)


def test_frames_are_kept_where_the_picture_changes(tmp_path):
    """By 20 in each of the first ten steps, by 1 in the others."""
    frames = Frames(tmp_path / "frames", 12)
    values = [min(20 * step, 200) + max(0, step - 10) for step in range(51)]
    for step, value in enumerate(values):
        frames.add(step, grey(value))
    assert len(frames.steps) == 12
    assert sorted(int(path.stem) for path in (tmp_path / "frames").iterdir()) == frames.steps
    assert (frames.steps[0], frames.steps[-1]) == (0, 50)
    assert sum(step <= 10 for step in frames.steps) >= 8
    leaps = [abs(values[a] - values[b]) / 255 for a, b in zip(frames.steps, frames.steps[2:], strict=False)]
    assert frames._leaps == pytest.approx(leaps, abs=0.01)
    again = Frames(tmp_path / "frames", 12)
    again.begin(50)
    assert again.steps == frames.steps
    assert again.changes() == pytest.approx(frames.changes(), abs=0.01)
    again.begin(None)
    assert again.steps == []
    assert not list((tmp_path / "frames").iterdir())


@given(st.lists(st.floats(0, 1), max_size=80), st.integers(1, 400), st.floats(0.1, 30))
def test_lengths_fill_the_film(changes, frames, most):
    lengths = shown_for(changes, frames, most)
    assert sum(lengths) == (frames if changes else 0)
    assert all(0 <= length <= max(most, 2 * frames / len(changes)) + 1 for length in lengths)


def test_pictures_are_shown_in_proportion_to_their_changes():
    assert shown_for([0.1, 0.1, 0.2, 0.4], 80, 40) == [10, 10, 20, 40]
    assert shown_for([0.9, *[0.01] * 90], 100, 10) == pytest.approx([10, *[1] * 90])
    assert shown_for([0.0, 0.0], 10, 5) == [5, 5]


@pytest.mark.parametrize(("most", "rate", "shown"), [(100, 10, 21), (10, 5, 11), (1, Fraction(10, 20), 2)])
def test_a_film_has_as_many_frames_as_there_is_time_for(tmp_path, most, rate, shown):
    frames = Frames(tmp_path, 100)
    for step in range(41):
        frames.add(step, grey(3 * step))
    content, result = torch.zeros(1, 3, 36, 48), torch.ones(1, 3, 36, 48)
    shots, found = make_shots(frames, content, result, Timing(2.0, 10, 1.0), most)
    assert found == rate
    assert sum(shot.frames for shot in shots) / found == pytest.approx(0.5 + 2 + 1, abs=float(2 / found))
    assert len([shot for shot in shots if shot.frames]) <= shown + 2
    assert shots[0].picture().getpixel((0, 0)) == (0, 0, 0)
    assert shots[-1].picture().getpixel((0, 0)) == (255, 255, 255)


def test_frames_are_taken_while_there_is_time_for_them(place, pair, unhurried, monkeypatch):
    """And once more at the end, with the result."""
    for left, kept in ((1e9, [0, 1, 2, 3, 4, 5]), (-1.0, [0, 5])):
        monkeypatch.setattr(Allowance, "left", left)
        film = Timelapse("film.webp", seconds=1)
        train(pair, [film])
        assert film._frames.steps == kept


def test_time_spent_is_counted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    allowance = Allowance(0.02)
    allowance.begin()
    assert allowance.left == 0.0
    allowance.planned = 100.0
    assert allowance.left == pytest.approx(1.0)  # a part of what the run will allow
    with allowance.spending():
        now[0] += 3.0
    assert allowance.left == pytest.approx(-2.0)
    now[0] += 197.0
    assert allowance.left == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["film.mp4", "film.webp", "film.gif"])
def test_colours_and_lengths_are_those_given(tmp_path, name):
    colours = [(255, 0, 0), (0, 200, 0), (30, 30, 220), (128, 128, 128)]
    shots = [Shot(lambda colour=colour: Image.new("RGB", (48, 36), colour), 3) for colour in colours]
    assert write_film(tmp_path / name, [*shots, Shot(shots[0].picture, 0)], (36, 48), Fraction(10), None) is None
    shown = film(tmp_path / name)
    assert sum(seconds for _, seconds in shown) == pytest.approx(1.2)
    for index, colour in enumerate(colours):
        found = shown[index * len(shown) // 4][0].getpixel((20, 20))
        assert max(abs(a - b) for a, b in zip(found, colour, strict=True)) <= 4


def test_a_film_of_one_picture(tmp_path):
    frames = Frames(tmp_path, 3)
    frames.add(1, grey(7))
    assert frames.changes() == []
    buffer = io.BytesIO(frames.path(1).read_bytes())
    assert Image.open(buffer).size == (48, 36)
