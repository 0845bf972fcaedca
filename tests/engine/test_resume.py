"""Nothing is lost: checkpoints, resuming, signals, and places that cannot be written."""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from forked import Running, nst
from helpers import picture

from nst_lightning.cli import main
from nst_lightning.config.resume import Resumed, compares_anew
from nst_lightning.data import schedule
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import read_image
from nst_lightning.runs.checkpoint import WholeFiles, read_checkpoint
from nst_lightning.runs.finding import Pictures, find_last


def arguments(pair, *more, evaluations=12):
    return [
        *("fit", "--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"),
        *("--trainer.accelerator", "cpu", "--model.evaluations", str(evaluations), *map(str, more)),
    ]


def newest(place):
    return max((place / "runs").iterdir())


def losses(folder):
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [(int(row["step"]), row["loss"]) for row in csv.DictReader(file)]


def test_last_goes_on_in_the_same_folder_with_the_same_settings(place, pair, capsys):
    assert main(arguments(pair, "--model.strength", 2)) == 0
    assert main(arguments(pair, "--model.strength", 2, "--checkpoint_every", 3, evaluations=8)) == 0
    whole, cut = sorted((place / "runs").iterdir())
    assert [p.name for p in (cut / "checkpoints").iterdir()] == ["000008.ckpt"]
    capsys.readouterr()
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1])]
    assert main(["fit", *pictures, "--ckpt_path", "last", "--model.evaluations", "12"]) == 0  # no strength, no size
    assert newest(place) == cut
    assert losses(cut) == losses(whole)
    assert torch.equal(picture(cut), picture(whole))
    said = capsys.readouterr().err
    assert f"continuing from {Path('runs') / cut.name}/checkpoints/000008.ckpt" in said
    assert "not as then: model.evaluations: 8 -> 12" in said
    assert [p.name for p in (cut / "checkpoints").iterdir()] == ["000012.ckpt"]


def test_a_checkpoint_alone_is_enough(place, pair):
    assert main(arguments(pair, "--model.strength", 2)) == 0
    whole = newest(place)
    assert main(arguments(pair, "--model.strength", 2, evaluations=8)) == 0
    elsewhere = place / "elsewhere.ckpt"
    shutil.copy(newest(place) / "checkpoints" / "000008.ckpt", elsewhere)
    assert main(["fit", "--ckpt_path", str(elsewhere), "--model.evaluations", "12"]) == 0
    assert len(list((place / "runs").iterdir())) == 3  # in a folder of its own
    assert torch.equal(picture(newest(place)), picture(whole))


def test_options_win_over_the_checkpoint_and_are_named(place, pair, capsys):
    assert main(arguments(pair, evaluations=4)) == 0
    path = newest(place) / "checkpoints" / "000004.ckpt"
    assert main(arguments(pair, "--ckpt_path", path, "--model.strength", 3, evaluations=6)) == 0
    assert "model.strength: 1.0 -> 3.0" in capsys.readouterr().err
    assert main(["fit", "--ckpt_path", "last", "--model.evaluations", "7"]) == 0  # not even pictures are needed
    assert [step for step, _ in losses(newest(place))] == list(range(1, 8))


STAGES = ["--model.stages", "[{evaluations: 4, scale: 0.5}, {evaluations: 2}]"]


@pytest.mark.parametrize(("stages", "again"), [([], False), (STAGES, False), (STAGES, True)])
@pytest.mark.parametrize(("made", "expected"), [(6, [0] * 4 + [1] * 5), (3, [0] * 6 + [1] * 3)])
def test_a_run_in_stages_keeps_them_when_it_is_lengthened(
    place, pair, capsys, monkeypatch, stages, again, made, expected
):
    """What is behind stays; the stage that it is in, and those to come, share what is added.

    So it is where the stages are given again, as by the preset on the same line as before.
    """
    for name, value in (("COARSEST", 48), ("_FIRST", 4), ("_SECOND", 2), ("_LEAST", 2)):
        monkeypatch.setattr(schedule, name, value)
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "96"]
    assert main(["fit", *pictures, *stages, "--trainer.accelerator", "cpu", "--trainer.max_steps", str(made)]) == 0
    capsys.readouterr()
    again = [*pictures, *stages] if again else []
    assert main(["fit", *again, "--ckpt_path", "last", "--model.evaluations", "9"]) == 0
    assert "stopped" not in capsys.readouterr().err
    with (newest(place) / "metrics.csv").open(encoding="utf-8") as file:
        assert [int(row["stage"]) for row in csv.DictReader(file)] == expected


@pytest.mark.parametrize(
    ("made", "asked", "words"),
    [
        (6, 6, "has 6 evaluations and the run 6, so nothing is left to do"),
        (6, 4, "has 6 evaluations and the run 4, so nothing is left to do"),
        (6, 1, "has 6 evaluations and the run 1, so nothing is left to do"),
        (3, 2, "has 3 evaluations and the run 2, so nothing is left to do"),
        (4, 4, "has 4 evaluations and the run 4, so nothing is left to do"),
    ],
)
def test_no_more_than_is_made_makes_nothing(place, pair, capsys, made, asked, words):
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
    assert main(["fit", *pictures, *STAGES, "--trainer.accelerator", "cpu", "--trainer.max_steps", str(made)]) == 0
    before = sorted(path.name for path in newest(place).iterdir())
    capsys.readouterr()
    assert main(["fit", "--ckpt_path", "last", "--model.evaluations", str(asked)]) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert sorted(path.name for path in newest(place).iterdir()) == before


def test_a_stage_beyond_its_share_is_over(place, pair):
    """Three of four are made: of five in all the first stage would have three, of four it has three as well."""
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
    stages = ["--model.stages", "[{evaluations: 4, scale: 0.5}, {evaluations: 4}]"]
    assert main(["fit", *pictures, *stages, "--trainer.accelerator", "cpu", "--trainer.max_steps", "3"]) == 0
    assert main(["fit", "--ckpt_path", "last", "--model.evaluations", "4"]) == 0
    with (newest(place) / "metrics.csv").open(encoding="utf-8") as file:
        assert [int(row["stage"]) for row in csv.DictReader(file)] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--data.size", "40"], "holds an image of 48x36 px, got 40x30 px"),
        (["--data.content", "STYLE"], r"was made of .*content\.png \(sha256 \w{8}\), got .*style\.png"),
        (["--model.evaluations", "4"], "has 4 evaluations and the run 4"),
        (["--model.optimizer", "torch.optim.Adam"], "another optimiser"),
    ],
)
def test_what_does_not_belong_together_is_refused(place, pair, capsys, change, words):
    assert main(arguments(pair, evaluations=4)) == 0
    path = newest(place) / "checkpoints" / "000004.ckpt"
    before = sorted(p.name for p in newest(place).iterdir())
    change = [str(pair[1]) if arg == "STYLE" else arg for arg in change]
    capsys.readouterr()
    given = arguments(pair, "--ckpt_path", path, evaluations=9)
    if change[0] in given:
        place_of = given.index(change[0])
        del given[place_of : place_of + 2]
    assert main([*given, *change]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(words, said[-1])
    assert sorted(p.name for p in newest(place).iterdir()) == before  # nothing of the run was touched


def test_none_is_found(place, pair, capsys):
    assert main(arguments(pair, "--ckpt_path", "last")) == 2
    assert "ckpt_path: must be last only where a run left a checkpoint" in capsys.readouterr().err
    assert main(arguments(pair, evaluations=2)) == 0
    other = place / "other.png"
    shutil.copy(pair[0], other)
    assert main([*arguments(pair, "--ckpt_path", "last"), "--data.content", str(other)]) == 2


def test_damaged_checkpoints_are_passed_over(place, pair):
    assert main(arguments(pair, "--checkpoint_every", 2, evaluations=4)) == 0
    folder = newest(place) / "checkpoints"
    newer = folder / "000009.ckpt"
    newer.write_bytes((folder / "000004.ckpt").read_bytes()[:5000])
    assert find_last(place / "runs", Pictures()) == folder / "000004.ckpt"
    with pytest.raises(UserError, match="must be a checkpoint of nst fit"):
        read_checkpoint(newer)


def test_a_checkpoint_that_cannot_be_written_costs_itself_and_keeps_the_one_before(tmp_path, monkeypatch):
    files = WholeFiles()
    first, second = tmp_path / "1.ckpt", tmp_path / "2.ckpt"
    files.save_checkpoint({"a": torch.zeros(3)}, first)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserNotice, match=r"no checkpoint .*2\.ckpt: No space left on device; the run goes on"):
        files.save_checkpoint({"a": torch.zeros(3)}, second)
    files.remove_checkpoint(first)  # Lightning believes that the second is there
    assert [p.name for p in tmp_path.iterdir()] == ["1.ckpt"]


def test_the_checkpoint_that_a_run_went_on_from_stays_until_there_is_a_newer_one(place, pair):
    """Lightning removes it as soon as it believes that there are enough of newer ones."""
    assert main(arguments(pair, evaluations=4)) == 0
    (path,) = newest(place).glob("checkpoints/*")
    files = WholeFiles()
    files.load_checkpoint(os.path.relpath(path))
    files.remove_checkpoint(path)
    assert path.exists()
    files.save_checkpoint({"a": torch.zeros(3)}, path.with_name("000005.ckpt"))
    files.remove_checkpoint(path)
    assert not path.exists()


def test_a_checkpoint_leaves_room_for_the_picture(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 4 * 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    image = torch.zeros(1, 3, 10, 10)
    with pytest.warns(UserNotice, match="it and the picture need 2400 bytes, and the disk has 1200 left; the run goes"):
        WholeFiles().save_checkpoint({"state_dict": {"image": image}}, tmp_path / "1.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_everything_be_written(place, pair, number):
    run = Running(place, arguments(pair, "--checkpoint_every", 5, evaluations=100_000))
    run.wait_for(lambda: any(place.glob("runs/*/checkpoints/*.ckpt")))
    stopped = run.end(number)
    assert stopped.code == 128 + number
    assert "Traceback" not in stopped.said
    folder = newest(place)
    last = max((folder / "checkpoints").iterdir())
    assert read_checkpoint(last)["global_step"] == int(last.stem) == losses(folder)[-1][0]
    assert picture(folder).shape == (1, 3, 36, 48)
    assert main(["fit", "--ckpt_path", "last", "--trainer.max_steps", str(int(last.stem) + 2)]) == 0
    assert len(losses(folder)) == int(last.stem) + 2


def kill_test(place, pair, evaluations, kills, seed):
    """Kill a run at random moments, resume it each time, and compare with one that nobody killed."""
    options = ("--checkpoint_every", 1, "--snapshot_every", 7)
    assert main(arguments(pair, *options, evaluations=evaluations)) == 0
    whole = newest(place)
    shutil.move(whole, place / "whole")
    chance = random.Random(seed)
    args = arguments(pair, *options, evaluations=evaluations)
    for _ in range(kills):
        before = set((place / "runs").glob("*/checkpoints/*.ckpt"))
        run = Running(place, args)
        run.wait_for(lambda before=before: set((place / "runs").glob("*/checkpoints/*.ckpt")) != before)
        time.sleep(chance.random() * 0.3)
        ended = run.end()
        for path in (place / "runs").glob("*/checkpoints/*.ckpt"):
            read_checkpoint(path)  # none is torn
        for path in (place / "runs").rglob("*.png"):
            read_image(path)
        args = ["fit", "--ckpt_path", "last"]
        if ended.code == 0:
            break
    else:
        assert main(args) == 0
    (folder,) = (place / "runs").iterdir()
    assert losses(folder) == losses(place / "whole")
    assert torch.equal(picture(folder), picture(place / "whole"))


@pytest.mark.slow  # test_kills.py looks closer, and sooner
def test_killed_and_resumed_is_bitwise_the_run_that_was_not(place, pair):
    kill_test(place, pair, evaluations=60, kills=2, seed=1)


@pytest.mark.slow
def test_killed_fifty_times(place, pair):
    kill_test(place, pair, evaluations=3000, kills=50, seed=2)


def test_places_that_vanish_cost_the_files_not_the_picture(place, pair, monkeypatch):
    (place / "mine_vanish.py").write_text(
        "import shutil\nfrom pathlib import Path\nfrom lightning.pytorch import Callback\n"
        "class Vanish(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 3:\n"
        "            folder = Path(trainer.default_root_dir)\n"
        "            shutil.rmtree(folder)\n"
        "            folder.write_text('in the way')\n",
        encoding="utf-8",
    )
    safe = place / "safe"
    callbacks = "--trainer.callbacks=[{class_path: mine_vanish.Vanish}]"
    options = (callbacks, "--snapshot_every", 2, "--checkpoint_every", 2, "--fallback", safe)
    ended = nst(place, *arguments(pair, *options, evaluations=6))
    said = ended.said
    assert ended.code == 0, said
    assert "Traceback" not in said
    (result,) = safe.iterdir()
    assert read_image(result).pixels.shape == (1, 3, 36, 48)
    warned = [line for line in said.splitlines() if "nst: warning: " in line]
    for what in ("checkpoint", "snapshots", "metrics.csv", "result.png", "figure.png"):
        assert any(what in line for line in warned), what
    assert said.strip().splitlines()[-1].startswith(("wrote ", "nst: warning: could not write"))
    assert f"wrote {result}" in said


def test_with_another_strength_losses_from_before_count_no_more(place, pair, capsys):
    assert main(arguments(pair, evaluations=4)) == 0
    assert main(arguments(pair, "--ckpt_path", "last", "--model.strength", 4, evaluations=12)) == 0
    said = capsys.readouterr().err
    assert "model.strength: 1.0 -> 4.0" in said
    assert "the image that had it is kept" not in said


def test_with_another_color_losses_from_before_count_no_more(place, pair, capsys):
    """Of a style in the content's colours less has to be changed: its losses are lower from the start."""
    assert main(arguments(pair, "--data.init", "noise", "--data.color", "match", evaluations=12)) == 0
    assert main(arguments(pair, "--ckpt_path", "last", "--data.color", "style", evaluations=13)) == 0
    said = capsys.readouterr().err
    assert "data.color: match -> style" in said
    (*_, (_, before)), after = losses(newest(place))[:12], losses(newest(place))[-1][1]
    assert float(after) > 1.1 * float(before)
    assert "the image that had it is kept" not in said


def test_what_losses_are_of():
    then = {
        **{"data.regions": 0, "data.color": "style", "data.style.0.path": "/a/x.jpg", "data.style.0.mask": "/a/m.png"},
        **{
            "data.seed": 0,
            "model.extractor.init_args.weights": "/a/vgg.pth",
            "model.extractor.init_args.pooling": "max",
        },
    }
    resumed = Resumed(Path("a.ckpt"), None, then, ended=False)
    for change in (
        {"data.seed": 1},
        {"data.style.0.mask": "/b/m.png"},
        {"model.extractor.init_args.weights": "vgg.pth"},
    ):
        assert not compares_anew(resumed, {**then, **change})
    for change in (
        *({"data.regions": 2}, {"data.color": "match"}, {"data.style.0.mask": None}, {"data.style.0.scale": 2.0}),
        *({"data.content_mask": "faces"}, {"model.extractor.init_args.pooling": "average"}, {"model.draft": "VGG19"}),
        *(
            {"data.style_size": 1024},
            {"data.style_follows": True},
            {"data.resample": "bilinear"},
            {"data.style.scale": 2},
        ),
    ):
        assert compares_anew(resumed, {**then, **change})
    assert not compares_anew(resumed._replace(configuration={}), then)
    del then["data.regions"]  # as files of version 0.1.0
    older = resumed._replace(configuration=then)
    assert not compares_anew(older, {**then, "data.regions": 0})
    assert compares_anew(older, {**then, "data.regions": 2})
