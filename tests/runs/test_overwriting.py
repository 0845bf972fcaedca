"""A picture that is there already gives its place only to one of the same settings; nothing is lost on the way."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from helpers import QUIET
from PIL import Image

from nst_lightning import cli
from nst_lightning.callbacks import Export
from nst_lightning.data.module import StyleTransferData
from nst_lightning.errors import UserError
from nst_lightning.files.atomic import keeping
from nst_lightning.images import read_metadata, write_image
from nst_lightning.runs.overwriting import may_be_replaced, refuse_inputs, run_fingerprint


def never(path):
    return False


def put(path, content, replaceable=never):
    with keeping(path, replaceable) as new:
        new.file.write(content)
    return new.aside


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestKeeping:
    def test_numbers(self, tmp_path):
        path = tmp_path / "x.png"
        assert put(path, b"1") is None
        assert put(path, b"2") == tmp_path / "x_001.png"
        (tmp_path / "x_003.png").write_bytes(b"mine")
        assert put(path, b"3") == tmp_path / "x_002.png"
        assert put(path, b"4") == tmp_path / "x_004.png"
        assert put(path, b"5", lambda old: old.read_bytes() == b"4") is None
        expected = {"x.png": b"5", "x_001.png": b"1", "x_002.png": b"2", "x_003.png": b"mine", "x_004.png": b"3"}
        assert contents(tmp_path) == expected

    def test_through_a_link(self, tmp_path):
        (tmp_path / "there").mkdir()
        put(tmp_path / "there" / "x.png", b"old")
        (tmp_path / "x.png").symlink_to("there/x.png")
        assert put(tmp_path / "x.png", b"new") == tmp_path / "there" / "x_001.png"
        assert (tmp_path / "x.png").is_symlink()
        assert contents(tmp_path / "there") == {"x.png": b"new", "x_001.png": b"old"}

    def test_without_hard_links(self, tmp_path, monkeypatch):
        def refuse(*arguments):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
        put(tmp_path / "x.png", b"old")
        assert put(tmp_path / "x.png", b"new") == tmp_path / "x_001.png"
        assert contents(tmp_path) == {"x.png": b"new", "x_001.png": b"old"}

    @pytest.mark.parametrize("step", ["fsync", "replace", "link", "unlink"])
    def test_a_crash_between_any_two_steps_loses_nothing(self, tmp_path, step):
        """The process ends at once, as by a power cut or kill -9, before each of the steps."""
        for count in range(1, 4):
            folder = tmp_path / f"{step}{count}"
            folder.mkdir()
            (folder / "x.png").write_bytes(b"old")
            program = f"""
import os, pathlib
left, true = [{count}], getattr(os, {step!r})
def end(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os._exit(9)
    return true(*arguments, **options)
from nst_lightning.files import atomic as module
os.{step} = end
with module.keeping(pathlib.Path({str(folder / "x.png")!r}), lambda path: False) as new:
    new.file.write(b"new")
"""
            code = subprocess.run([sys.executable, "-c", program], check=False, timeout=300).returncode
            assert code in (0, 9)
            assert b"old" in contents(folder).values()
            if code == 0:
                assert contents(folder)["x.png"] == b"new"
                break
        assert code == 0  # all of its calls have been stopped at

    def test_a_name_that_cannot_be_removed_is_no_failure(self, tmp_path, monkeypatch):
        """The picture is there by then; that its other name stays is no reason to say that it could not be written."""

        def refuse(*arguments, **options):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "unlink", refuse)
        assert put(tmp_path / "x.png", b"new") is None
        assert contents(tmp_path)["x.png"] == b"new"

    def test_many_at_once(self, tmp_path):
        """Each of them is there afterwards, under one name."""
        barrier = threading.Barrier(8)

        def work(number):
            barrier.wait()
            for round_ in range(5):
                put(tmp_path / "x.png", f"{number} {round_}".encode())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = sorted(contents(tmp_path).values())
        assert found == sorted(f"{number} {round_}".encode() for number in range(8) for round_ in range(5))

    def test_a_failure_leaves_the_old_one(self, tmp_path):
        put(tmp_path / "x.png", b"old")
        with pytest.raises(RuntimeError), keeping(tmp_path / "x.png", never):
            raise RuntimeError
        assert contents(tmp_path) == {"x.png": b"old"}


class TestSameSettings:
    def test_fingerprint(self, pair, tmp_path):
        data = StyleTransferData(str(pair[0]), str(pair[1])).request.inputs
        plain = "{model: {strength: 1.0}, trainer: {max_steps: -1}}"
        name = run_fingerprint(plain, data, "1")
        elsewhere = (
            "{model: {strength: 1.0}, trainer: {max_steps: -1, default_root_dir: x}, output: a.png, fallback: b}"
        )
        assert run_fingerprint(elsewhere, data, "1") == name
        assert run_fingerprint("{model: {strength: 2.0}, trainer: {max_steps: -1}}", data, "1") != name
        other = tmp_path / pair[0].name  # of the same name, and another picture
        Image.new("RGB", (48, 36)).save(other)
        assert run_fingerprint(plain, StyleTransferData(str(other), str(pair[1])).request.inputs, "1") != name
        other.write_bytes(pair[0].read_bytes())
        assert run_fingerprint(plain, StyleTransferData(str(other), str(pair[1])).request.inputs, "1") == name
        assert run_fingerprint(plain, data, "2") != name

    @pytest.mark.parametrize(
        ("earlier", "replaced"),
        [
            ({"Fingerprint": "a", "Evaluations": "5"}, True),
            ({"Fingerprint": "a", "Evaluations": "4"}, True),
            ({"Fingerprint": "a", "Evaluations": "6"}, False),  # had come further
            ({"Fingerprint": "b", "Evaluations": "5"}, False),
            ({"Software": "nst_lightning 0.1.0"}, False),
            ({}, False),
        ],
    )
    def test_may_be_replaced(self, tmp_path, earlier, replaced):
        write_image(tmp_path / "x.png", torch.zeros(1, 3, 4, 4), metadata=earlier)
        assert may_be_replaced(tmp_path / "x.png", {"Fingerprint": "a", "Evaluations": "5"}) is replaced
        assert not may_be_replaced(tmp_path / "x.png", {"Evaluations": "5"})

    def test_what_is_no_picture_is_kept(self, tmp_path):
        (tmp_path / "x.png").write_bytes(b"a diary")
        assert not may_be_replaced(tmp_path / "x.png", {"Fingerprint": "a", "Evaluations": "5"})


@pytest.fixture
def fit(pair, tmp_path, monkeypatch, use_tiny_weights, capsys):
    """Run ``nst fit`` in a folder of its own; returns what it said."""
    monkeypatch.chdir(tmp_path)
    content, style = pair

    def run(*args, code=0):
        pictures = ["--data.content", str(content), "--data.style", str(style)]
        given = {arg.split("=")[0] for arg in args}
        pictures = [] if "--data.content" in given else pictures
        settings = ["--data.size", "32", "--model.evaluations", "2", "--snapshot_every", "0"]
        settings += ["--trainer.enable_progress_bar", "false"]
        assert cli.main(["fit", *pictures, *settings, *args]) == code
        return capsys.readouterr().err

    return run


class TestRuns:
    def test_other_settings_keep_the_earlier_result(self, fit, tmp_path):
        fit("--output", "out.png")
        first = (tmp_path / "out.png").read_bytes()
        said = fit("--output", "out.png")
        assert "moved" not in said
        assert "is now" not in said
        assert [path.name for path in tmp_path.glob("out*")] == ["out.png"]
        said = fit("--output", "out.png", "--model.strength", "3")
        assert said.strip().endswith("wrote out.png; the other picture that was there is now out_001.png")
        assert (tmp_path / "out_001.png").read_bytes() == first
        assert "strength: 3" in read_metadata(tmp_path / "out.png")["Configuration"]

    def test_a_photograph_is_never_lost(self, fit, tmp_path, pair):
        Image.new("RGB", (9, 9), "red").save(tmp_path / "out.jpg")
        photograph = (tmp_path / "out.jpg").read_bytes()
        fit("--output", "out.jpg")
        assert (tmp_path / "out_001.jpg").read_bytes() == photograph

    @pytest.mark.parametrize("which", ["content", "style", "mask", "style_mask", "content_mask", "init"])
    def test_a_picture_that_is_read_is_refused_first(self, fit, tmp_path, pair, which):
        for name, size in (("content", (48, 36)), ("style", (40, 40))):
            Image.new("RGB", size, "white").save(tmp_path / f"{name}.png")
        for name, size in (
            ("mask", (48, 36)),
            ("style_mask", (40, 40)),
            ("content_mask", (48, 36)),
            ("init", (48, 36)),
        ):
            Image.new("L", size, 255).save(tmp_path / f"{name}.png")
        before = contents(tmp_path)
        style = "[{path: style.png, mask: mask.png, style_mask: style_mask.png}]"
        pictures = ["--data.content", "content.png", "--data.style", style, "--data.init", "init.png"]
        said = fit(*pictures, "--data.content_mask", "content_mask.png", "--output", f"{which}.png", code=2)
        assert f"output: must not be a picture that the run reads, got '{which}.png'; choose another name" in said
        assert contents(tmp_path) == before

    def test_a_run_that_goes_on_replaces_its_own_result(self, fit, tmp_path):
        fit("--output", "out.png", "--trainer.max_steps", "1", "--checkpoint_every", "1")
        assert read_metadata(tmp_path / "out.png")["Evaluations"] == "1"
        fit("--output", "out.png", "--ckpt_path", "last", "--trainer.max_steps", "-1", "--model.strength", "2")
        assert read_metadata(tmp_path / "out.png")["Evaluations"] == "2"
        assert [path.name for path in tmp_path.glob("out*")] == ["out.png"]
        assert [path.name for path in (tmp_path / "runs").glob("*/result*")] == ["result.png"]

    def test_what_the_picture_says(self, fit, tmp_path, pair):
        (tmp_path / "private folder").mkdir()
        fit(
            "--output",
            "private folder/out.png",
            "--trainer.default_root_dir",
            "private runs",
            "--fallback",
            str(tmp_path),
        )
        for path in [tmp_path / "private folder" / "out.png", *(tmp_path / "private runs").glob("*/result.png")]:
            data = path.read_bytes()
            for private in (
                str(pair[0].parent),
                str(tmp_path),
                "private",
                os.environ["NST_VGG19_WEIGHTS"],
                str(Path.home()),
            ):
                assert private.encode() not in data
            said = read_metadata(path)
            assert (said["Content"], said["Style"]) == (pair[0].name, pair[1].name)
            assert f"content: {pair[0].name}" in said["Configuration"]
            with Image.open(path) as image:
                assert "Description" not in image.info


def test_in_memory_of_one_trainer(pair, tmp_path, tiny_weights):
    """Two pictures by one callback into one file: both are there."""
    from lightning.pytorch import Trainer

    from nst_lightning import StyleTransfer
    from nst_lightning.features import VGG19

    export = Export(str(tmp_path / "out.png"))
    for content in pair:
        data = StyleTransferData(str(content), str(pair[1]), size=32)
        trainer = Trainer(callbacks=[export], default_root_dir=tmp_path / "root", **QUIET)
        trainer.fit(StyleTransfer(evaluations=1, extractor=VGG19(str(tiny_weights))), datamodule=data)
    assert read_metadata(tmp_path / "out_001.png")["Content"] == pair[0].name
    assert read_metadata(tmp_path / "out.png")["Content"] == pair[1].name
    assert read_metadata(tmp_path / "root" / "result_001.png")["Content"] == pair[0].name
    with pytest.raises(UserError, match="output: must not be a picture that the run reads"):
        refuse_inputs(pair[0], pair)
