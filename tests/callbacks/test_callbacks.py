"""What a run leaves behind, and what it says."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUIET
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from nst_lightning import StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Export, Figure, Logs, Metrics, Snapshots, Watch
from nst_lightning.cli import main
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.images import read_image, read_metadata


@pytest.fixture
def run(tmp_path, monkeypatch, use_tiny_weights, pair):
    """Run `nst fit` in an empty folder with small pictures; gives the newest run folder."""
    monkeypatch.chdir(tmp_path)

    def fit(*options, content=None, evaluations=7, code=0):
        arguments = ["--data.content", str(content or pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
        length = ["--model.evaluations", str(evaluations)] if evaluations else []
        assert main(["fit", *arguments, *length, "--trainer.accelerator", "cpu", *options]) == code
        return max((tmp_path / "runs").iterdir(), key=lambda folder: folder.name)

    return fit


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_folder_holds_everything(run):
    folder = run("--snapshot_every", "3")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pictures = {"result.png", "figure.png", "preview.jpg", "snapshots/000003.png", "snapshots/000006.png"}
    tables = {"config.yaml", "run.json", "metrics.csv", "report.html"}
    assert names == {".lock", "checkpoints/000007.ckpt", *tables, *pictures}


def test_the_kept_configuration_repeats_the_run(run):
    first = run("--model.strength", "2", "--data.init", "noise")
    second = run("--config", str(first / "config.yaml"), evaluations=None)
    assert second != first
    assert torch.equal(read_image(first / "result.png").pixels, read_image(second / "result.png").pixels)
    losses = [[row["loss"] for row in rows_of(folder)] for folder in (first, second)]
    assert losses[0] == losses[1]


class LookAtStates(Callback):
    """Asks callbacks for their states after an evaluation, then writes a checkpoint, and looks at the folder."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step != 3:
            return
        folder = Path(trainer.default_root_dir)
        self.asked = [[str(callback.state_dict()) for callback in trainer.callbacks] for _ in range(2)]
        self.before = [(folder / place / "metrics.csv").exists() for place in (".", "logs")]
        trainer.save_checkpoint(folder / "own.ckpt")
        self.rows = [row["step"] for row in rows_of(folder)]
        self.logged = [row["step"] for row in rows_of(folder / "logs")]


@pytest.mark.parametrize("kind", [Trainer, StyleTrainer])
def test_a_checkpoint_waits_for_the_rows_before_it_and_a_state_does_nothing(kind, tmp_path, use_tiny_weights, pair):
    look = LookAtStates()
    callbacks = [Metrics(), Watch(), Figure(), Snapshots(2), Logs(), look]
    logger = CSVLogger(tmp_path, name="", version="logs")
    trainer = kind(
        accelerator="cpu", precision="32-true", max_epochs=-1, logger=logger, callbacks=callbacks, log_every_n_steps=1,
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = StyleTransfer(evaluations=4, extractor=VGG19())
    trainer.fit(model, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=48))
    assert look.asked[0] == look.asked[1]
    assert look.before == [False, False]
    assert look.rows == ["1", "2", "3"]
    assert look.logged == ["1", "2", "3"]


def test_metrics_have_one_row_for_every_evaluation(run):
    callbacks = "[{class_path: Metrics, init_args: {every: 3}}]"
    rows = rows_of(run(f"--trainer.callbacks={callbacks}"))
    assert [int(row["step"]) for row in rows] == list(range(1, 8))
    layers = ["content.relu4_2", *(f"gram.relu{block}_1" for block in range(1, 6))]
    columns = ["step", "stage", "loss", "content_loss", "style_loss", "tv_loss", *layers, "seconds"]
    assert list(rows[0]) == columns
    for row in rows:
        total = sum(float(row[f"{group}_loss"]) for group in ("content", "style", "tv"))
        assert total == pytest.approx(float(row["loss"]), rel=1e-5)
        assert sum(float(row[name]) for name in layers[1:]) == pytest.approx(float(row["style_loss"]), rel=1e-5)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_a_run_of_two_stages_resumed_by_the_command_is_bitwise_the_same(run, tmp_path):
    stages = "--model.stages=[{evaluations: 3, scale: 0.5}, {evaluations: 4}]"
    keep = "--trainer.callbacks=[{class_path: Snapshots, init_args: {every: 2, checkpoint: true}}]"
    whole = run(stages, keep, evaluations=None)
    rows = rows_of(whole)
    assert [(int(row["step"]), int(row["stage"])) for row in rows] == [(n, int(n > 3)) for n in range(1, 8)]
    pixels = read_image(whole / "result.png").pixels
    for at in (2, 4):
        checkpoint = whole / "snapshots" / f"{at:06d}.ckpt"
        assert run(stages, keep, "--ckpt_path", str(checkpoint), evaluations=None) == whole  # in its own folder
        again = rows_of(whole)
        untimed = [[{**row, "seconds": ""} for row in table] for table in (again, rows)]
        assert untimed[0] == untimed[1]
        assert again[:2] == rows[:2]
        assert float(again[at]["seconds"]) > float(again[at - 1]["seconds"])  # it counts on
        assert torch.equal(read_image(whole / "result.png").pixels, pixels)


def test_a_finished_run_can_be_made_longer(run):
    (checkpoint,) = run(evaluations=4).rglob("*.ckpt")
    longer = rows_of(run("--ckpt_path", str(checkpoint), evaluations=7))
    assert [row["loss"] for row in longer] == [row["loss"] for row in rows_of(run(evaluations=7))]


@pytest.mark.parametrize("first", [[], ["--config", "gatys"]])
def test_another_optimiser_starts_from_its_own_defaults(run, first):
    """L-BFGS takes steps of 1, with which Adam would wreck the picture."""
    for options, rate in ([], 1e-3), (["--model.optimizer.lr=0.02"], 0.02):
        folder = run(*first, "--model.optimizer=torch.optim.Adam", *options, "--data.size=48", "--trainer.max_steps=1")
        optimiser = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model"]["optimizer"]
        assert (optimiser["class_path"], optimiser["init_args"]["lr"]) == ("torch.optim.Adam", rate)


class HostReads(TorchDispatchMode):
    """Counts the values that the host reads."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def test_the_loop_reads_nothing_between_writes(tiny_weights, pair, tmp_path):
    class Watch(Callback):
        mode = HostReads()

        def on_train_start(self, *_):
            self.mode.__enter__()

        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 8:
                self.mode.__exit__(None, None, None)

    trainer = Trainer(default_root_dir=str(tmp_path), callbacks=[Metrics(every=9), Watch()], **QUIET)
    module = StyleTransfer(10, extractor=VGG19(str(tiny_weights)))
    trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=32))
    assert Watch.mode.count == 0
    assert len(rows_of(tmp_path)) == 10


def test_snapshots_are_numbered_and_show_the_image_then(tiny_weights, pair, tmp_path):
    class Keep(Callback):
        pictures = {}  # noqa: RUF012

        def on_train_batch_end(self, trainer, module, *_):
            self.pictures[trainer.global_step] = module.picture()

    callbacks = [Keep(), Snapshots(2, checkpoint=True)]
    trainer = Trainer(default_root_dir=str(tmp_path), callbacks=callbacks, **QUIET)
    module = StyleTransfer(5, extractor=VGG19(str(tiny_weights)))
    trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=32))
    names = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert names == ["000002.ckpt", "000002.png", "000004.ckpt", "000004.png"]
    for step in (2, 4):
        shown = read_image(tmp_path / "snapshots" / f"{step:06d}.png").pixels
        torch.testing.assert_close(shown, Keep.pictures[step], rtol=0, atol=0.5 / 255 + 1e-6)


def test_the_figure_shows_content_style_result_and_the_change(run):
    folder = run("--trainer.callbacks=[{class_path: Figure, init_args: {width: 640, frames: 4}}]", evaluations=30)
    picture = read_image(folder / "figure.png").pixels[0]
    assert picture.shape[-1] == 640
    painted = picture.amin(dim=0) < 0.97

    def pictures_in(rows):
        columns = torch.nn.functional.pad(rows.float().mean(dim=0) > 0.3, (1, 1))
        return int(columns.int().diff().eq(1).sum())

    assert pictures_in(painted[20:60]) == 3
    assert pictures_in(painted[-60:-30]) == 4
    assert picture.shape[-2] > 250


def test_the_line_before_the_run(run, capsys):
    run("--model.optimizer.history_size", "5")
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("cpu ("))
    for part in (
        "threads",
        "bf16-mixed" if "bf16" in line else "32-true",
        "image 48x36 px",
        "style 40x40 px",
        "7 evaluations",
    ):
        assert part in line
    assert re.search(r"weights: unknown set from .*tiny.safetensors \(sha256 [0-9a-f]{8}\)", line)
    assert re.search(r"; takes about 1 s and \d\.\d GiB; checkpoints of about 1 MB; run folder runs", line)
    assert "run folder runs" in line


def test_the_bar_shows_the_loss_and_ends_full(run, capsys):
    run("--log", "bar")
    err = capsys.readouterr().err
    assert "7/7" in err
    assert "loss" in err


def test_the_bar_can_be_switched_off(run, capsys):
    run("--log", "bar", "--trainer.enable_progress_bar", "false")
    err = capsys.readouterr().err
    assert "7/7" not in err
    assert err.startswith("cpu (")  # the line before the run stays
    assert "wrote" in err


def test_a_callback_of_the_configuration_replaces_the_default(run):
    folder = run(
        "--trainer.callbacks=[{class_path: Snapshots, init_args: {every: 5, format: jpg}}]", "--snapshot_every=2"
    )
    assert [path.name for path in (folder / "snapshots").iterdir()] == ["000005.jpg"]


def test_a_users_own_callback(run, tmp_path, monkeypatch):
    (tmp_path / "mine_callbacks.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Stop(Callback):\n"
        "    def __init__(self, at: int):\n"
        "        self.at = at\n"
        "    def on_train_batch_end(self, trainer, module, *_):\n"
        "        trainer.should_stop = trainer.global_step >= self.at\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = run("--trainer.callbacks=[{class_path: mine_callbacks.Stop, init_args: {at: 3}}]")
    assert len(rows_of(folder)) == 3
    assert (folder / "result.png").is_file()


def test_every_run_has_a_folder_of_its_own(run):
    first, second = run(evaluations=1), run(evaluations=1)
    assert (first.name, second.name) == ("content_style_001", "content_style_002")


@pytest.mark.parametrize(
    ("name", "bits", "format"),
    [("a.jpg", 8, "JPEG"), ("a.png", 16, "PNG"), ("sub/a.tif", 16, "TIFF"), ("a.webp", 8, "WEBP")],
)
def test_output_formats_and_metadata(run, tmp_path, name, bits, format):
    folder = run("--output", name, "--bits", str(bits), evaluations=1)
    with Image.open(tmp_path / name) as image:
        assert image.format == format
        assert image.info.get("icc_profile")
    assert (folder / f"result{(tmp_path / name).suffix}").is_file()
    metadata = read_metadata(tmp_path / name)
    assert metadata["Software"].startswith("nst_lightning")
    assert metadata["Evaluations"] == "1"
    assert "evaluations: 1" in metadata["Configuration"]


def test_alpha_comes_back(run, tmp_path):
    path = tmp_path / "alpha.png"
    mask = Image.linear_gradient("L").resize((48, 36))
    image = Image.new("RGB", (48, 36), (200, 90, 30))
    image.putalpha(mask)
    image.save(path)
    run("--output", "out.png", content=path)
    with Image.open(tmp_path / "out.png") as result:
        assert result.mode == "RGBA"
        difference = torch.tensor(list(result.getchannel("A").tobytes())) - torch.tensor(list(mask.tobytes()))
    assert int(difference.abs().max()) <= 1


@pytest.mark.parametrize("error", ["RuntimeError('boom')", "KeyboardInterrupt()"])
def test_an_end_in_the_middle_keeps_what_was_computed(run, tmp_path, monkeypatch, error):
    name = f"mine_{error.split('(')[0].lower()}"  # modules are imported once a process
    (tmp_path / f"{name}.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Fail(Callback):\n"
        "    def on_train_batch_end(self, trainer, module, *_):\n"
        f"        if trainer.global_step == 3: raise {error}\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    option = f"--trainer.callbacks=[{name}.Fail]"
    with pytest.raises(KeyboardInterrupt if "Keyboard" in error else RuntimeError):
        run(option, "--output", "out.png")
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(rows_of(folder)) == 3
    assert (folder / "result.png").is_file()
    assert (tmp_path / "out.png").is_file()


def test_a_place_that_fails_does_not_cost_the_other(run, tmp_path, monkeypatch, capsys):
    """The folder of --output vanishes under a file while the run goes on."""
    (tmp_path / "mine_blocking.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch import Callback\n"
        "class Block(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        Path('sub').rmdir(); Path('sub').write_text('in the way')\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = run("--trainer.callbacks=[mine_blocking.Block]", "--output", "sub/out.png")
    assert (folder / "result.png").is_file()
    assert "nst: warning: could not write sub/out.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Snapshots(-1), "snapshots.every: must be .*, got -1"),
        (lambda: Metrics(0), "metrics.every: must be .*, got 0"),
        (lambda: Figure(width=10), "figure: width must be at least 256 .*, got 10"),
        (lambda: Export(bits=9), "bits: must have 8 or 16 bits a sample .*, got 9"),
        (lambda: Export(quality=0), "quality: must be .*, got 0"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(UserError, match=message):
        build()
