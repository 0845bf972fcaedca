"""Disks that fill, places that go away, and several runs at once cost files at most, never the picture or the run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import torch

from nst_lightning.cli import main
from nst_lightning.images import read_image
from nst_lightning.runs.checkpoint import read_checkpoint


def arguments(pair, *more, evaluations=6):
    return [
        *("fit", "--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"),
        *("--trainer.accelerator", "cpu", "--model.evaluations", str(evaluations), *map(str, more)),
        *("--snapshot_every", "2", "--checkpoint_every", "2", "--fallback", "safe"),
    ]


def test_a_disk_that_is_really_full(place, pair, capsys):
    disk = place / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        code = main(arguments(pair, "--trainer.default_root_dir", disk / "runs", evaluations=60))
        said = capsys.readouterr().err
        assert code == 0
        (written,) = re.findall(r"wrote (.*)", said)
        assert read_image(written).pixels.shape == (1, 3, 36, 48)
        assert "No space left on device" in said
        assert "Traceback" not in said
        for path in disk.rglob("*.png"):
            read_image(path)
        assert not list(disk.rglob(".nst-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_too_small_for_checkpoints_is_named_before_the_run(place, pair, monkeypatch, capsys):
    usage = shutil.disk_usage(place)._replace(free=1 << 19)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert main(arguments(pair)) == 0
    assert "checkpoint_keep: 2 need " in capsys.readouterr().err


def test_the_size_of_checkpoints_is_said_before_the_run(place, pair, capsys):
    assert main(arguments(pair)) == 0
    (said,) = re.findall(r"checkpoints of about (\d+) MB", capsys.readouterr().err)
    sizes = [path.stat().st_size / 1e6 for path in (place / "runs").glob("*/checkpoints/*")]
    assert abs(max(sizes) - int(said)) <= 0.6 + 0.1 * int(said)


@pytest.mark.slow
def test_two_runs_at_once_do_not_disturb_each_other(place, pair):
    assert main(arguments(pair, "--output", "alone.png", evaluations=30)) == 0
    shutil.rmtree(place / "runs")
    command = [sys.executable, "-m", "nst_lightning", *arguments(pair, "--output", "both.png", evaluations=30)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        _, said = run.communicate(timeout=600)
        assert run.returncode == 0, said
    folders = sorted((place / "runs").iterdir())
    assert len(folders) == 2
    alone = read_image("alone.png").pixels
    for path in [place / "both.png", *(folder / "result.png" for folder in folders)]:
        assert torch.equal(read_image(path).pixels, alone)
    contents = [sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in folders]
    assert contents[0] == contents[1]


def test_one_run_is_not_continued_twice_at_once(place, pair, capsys):
    from nst_lightning.runs.folder import hold

    assert main(arguments(pair)) == 0
    (folder,) = (place / "runs").iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    lock = hold(folder)
    capsys.readouterr()
    args = ["fit", "--ckpt_path", "last", "--model.evaluations", "9"]
    assert main(args) == 2
    assert "still going on" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    lock.release()
    assert main(args) == 0
    assert main([*args[:-1], "12"]) == 0  # and lets go of it afterwards


def test_the_same_seed_makes_the_same_picture_to_the_last_bit(place, pair):
    for _ in range(2):
        assert main(arguments(pair, "--data.init", "noise", evaluations=25)) == 0
    one, other = sorted((place / "runs").iterdir())
    assert (one / "result.png").read_bytes() == (other / "result.png").read_bytes()
    states = [read_checkpoint(max((run / "checkpoints").iterdir())) for run in (one, other)]
    assert torch.equal(*(state["state_dict"]["image"] for state in states))


def test_random_numbers_go_on_where_they_were(place, pair, monkeypatch):
    (place / "mine_noisy.py").write_text(
        "import torch\nfrom lightning.pytorch import Callback\n"
        "class Noisy(Callback):\n"
        "    def on_train_batch_end(self, trainer, module, *_):\n"
        "        module.image.data.add_(1e-3 * torch.randn(module.image.shape))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(place))
    noisy = "--trainer.callbacks=[{class_path: mine_noisy.Noisy}]"
    assert main(arguments(pair, noisy, evaluations=12)) == 0
    assert main([*arguments(pair, noisy, evaluations=12), "--trainer.max_steps", "8"]) == 0
    whole, cut = sorted((place / "runs").iterdir())
    torch.manual_seed(5)
    assert main(["fit", "--ckpt_path", "last", "--trainer.max_steps", "-1"]) == 0
    assert torch.equal(*(read_image(run / "result.png").pixels for run in (cut, whole)))
