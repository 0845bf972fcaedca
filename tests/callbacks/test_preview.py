"""What is seen of a run while it goes on."""

from __future__ import annotations

import importlib.util
import os
import re
import select
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import Running
from lightning.pytorch import Callback
from PIL import Image

from nst_lightning.callbacks import Preview
from nst_lightning.callbacks.allowance import Allowance
from nst_lightning.cli import main
from nst_lightning.errors import UserError

SIXEL = re.compile(rb"\x1bP[0-9;]*q.*?\x1b\\", re.DOTALL)


@pytest.fixture
def fit(place, pair):
    """Run `nst fit` with small pictures; gives the exit code."""

    def run(*options):
        pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
        return main(["fit", *pictures, "--trainer.accelerator", "cpu", "--log", "lines", *options])

    return run


class Look(Callback):
    """Notes the file's pixels and inode after each evaluation."""

    seen: list[tuple[int, bytes]] = []  # noqa: RUF012 - the command makes the object

    def on_train_batch_end(self, trainer, module, *_):
        path = Path(trainer.default_root_dir) / "preview.jpg"
        for other in trainer.callbacks:
            if isinstance(other, Preview):
                other._wait()
        if path.exists():
            with Image.open(path) as picture:
                self.seen.append((path.stat().st_ino, np.asarray(picture).tobytes()))


def test_the_file_is_rewritten_and_is_the_result_in_the_end(fit, place, monkeypatch):
    monkeypatch.setattr(Allowance, "left", 1.0)
    monkeypatch.setattr(Look, "seen", [])
    callbacks = "--trainer.callbacks=[{class_path: test_preview.Look}]"
    monkeypatch.setitem(sys.modules, "test_preview", sys.modules[__name__])
    assert fit("--model.evaluations", "6", "--preview_seconds", "0.0001", "--output", "out.png", callbacks) == 0
    assert len({pixels for _, pixels in Look.seen}) >= 4
    (path,) = place.glob("runs/*/preview.jpg")
    with Image.open(path) as preview, Image.open("out.png") as result:
        assert preview.size == result.size == (48, 36)
        small = [
            np.asarray(picture.convert("RGB").resize((12, 9), Image.Resampling.BOX), int)
            for picture in (preview, result)
        ]
    assert np.abs(small[0] - small[1]).mean() < 4
    assert not list(path.parent.glob(".nst-*"))


def test_a_large_picture_is_scaled_down(fit, place):
    preview = "--trainer.callbacks=[{class_path: Preview, init_args: {longest: 32}}]"
    assert fit("--model.evaluations", "2", preview) == 0
    (path,) = place.glob("runs/*/preview.jpg")
    with Image.open(path) as picture:
        assert picture.size == (32, 24)


def test_none_is_made_where_none_is_wanted(fit, place):
    assert fit("--model.evaluations", "2", "--preview_seconds", "0") == 0
    assert not list(place.glob("runs/*/preview.jpg"))


def test_a_file_that_cannot_be_written_is_told_of_once(fit, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nst_lightning.callbacks.preview.write_jpeg", fail)
    monkeypatch.setattr(Allowance, "left", 1.0)
    assert fit("--model.evaluations", "8", "--preview_seconds", "0.0001") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "preview.jpg" in line]
    (line,) = lines
    assert line.endswith("preview.jpg: No space left on device; the run goes on")


def test_it_waits_until_there_is_time_for_it(fit, place, monkeypatch):
    written = []
    monkeypatch.setattr("nst_lightning.callbacks.preview.write_jpeg", lambda path, *_: written.append(path))
    monkeypatch.setattr(Allowance, "left", -1.0)
    assert fit("--model.evaluations", "5", "--preview_seconds", "0.0001") == 0
    assert len(written) == 1  # the result


def test_numbers_that_make_no_sense():
    for wrong in ({"seconds": -1}, {"seconds": float("nan")}, {"longest": 2}):
        with pytest.raises(UserError, match=rf"preview\.{next(iter(wrong))}: must be at least"):
            Preview(**wrong)


needs_terminal = pytest.mark.skipif(
    not hasattr(os, "openpty") or importlib.util.find_spec("textual_image") is None, reason="no terminal to be had"
)


_PATIENT = """
from textual_image import _terminal
read = _terminal.read
_terminal.read = lambda file, length, timeout: read(file, length, 300)  # not a tenth of a second: machines are busy
"""


def on_terminal(pair, answers, *options, first=""):
    """Run the command on a terminal that gives answers; returns what was written to it, and the exit code."""
    import fcntl
    import termios

    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 1000, 800))
    pictures = ["fit", "--data.content", pair[0], "--data.style", pair[1], "--data.size", 48]
    small = ["--model.evaluations", 60, "--trainer.accelerator", "cpu", "--preview_seconds", 0.001]
    run = Running(Path.cwd(), [*pictures, *small, *options], terminal=os.ttyname(its), first=first)
    said, unanswered = b"", dict(answers)
    while select.select([ours], [], [], 0.1)[0] or not run.is_over:
        if select.select([ours], [], [], 0)[0]:
            said += os.read(ours, 1 << 16)
        for question in [asked for asked in unanswered if asked in said]:
            os.write(ours, unanswered.pop(question))
    os.close(its)
    os.close(ours)
    return said, run.wait().code


@needs_terminal
def test_a_terminal_that_knows_sixel_shows_it(place, pair):
    first = "from nst_lightning.callbacks.allowance import Allowance\nAllowance.left = 1e9"
    said, code = on_terminal(pair, {b"\x1b[c": b"\x1b[?62;4;22c"}, first=_PATIENT + first)
    assert code == 0
    assert len(SIXEL.findall(said)) >= 2
    assert b"60/60" in said  # the bar
    up = re.findall(rb"\x1b\[(\d+)A\r\x1b\[J", said)
    assert up  # one takes the place of the other


@needs_terminal
def test_kitty_shows_it(place, pair):
    said, code = on_terminal(pair, {b"\x1b[c": b"\x1b[?62c", b"a=q": b"\x1b_Gi=1;OK\x1b\\"}, first=_PATIENT)
    assert code == 0
    assert b"\x1b_Gi=" in said
    assert "\U0010eeee".encode() in said


@needs_terminal
@pytest.mark.parametrize("options", [(), ("--log", "lines")], ids=str)
def test_other_terminals_show_none(place, pair, options):
    """One that does not answer, and one that would, of which nobody asks."""
    said, code = on_terminal(pair, {} if not options else {b"\x1b[c": b"\x1b[?62;4;22c"}, *options)
    assert code == 0
    assert not SIXEL.search(said)
    assert b"\x1b_Gi=" not in said.replace(b"a=q", b"") or not options
    assert (b"\x1b[c" in said) == (not options)


@needs_terminal
def test_a_program_in_the_background_asks_nothing(place, pair):
    """It would be stopped by the attempt to read from the terminal."""
    first = """
import os
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.setpgid(0, 0)
"""
    said, code = on_terminal(pair, {b"\x1b[c": b"\x1b[?62;4;22c"}, first=first)
    assert code == 0
    assert b"\x1b[c" not in said
    assert not SIXEL.search(said)
