"""Going on: with the right run, from any folder, and after every limit that ended it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUIET, picture
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file, save_file

from nst_lightning import Stage, StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.cli import main
from nst_lightning.features import VGG19
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE
from nst_lightning.files.digest import sha256_of
from nst_lightning.images import read_image, write_image
from nst_lightning.optim import LBFGS
from nst_lightning.runs.checkpoint import FACTS, read_checkpoint
from nst_lightning.runs.facts import files_of

OURS = "nst_lightning.optim.LBFGS"
STAGES = "[{evaluations: 2, scale: 0.6}, {evaluations: 2}, {evaluations: 3}]"  # the last two of one size


@pytest.fixture
def place(place, pair):
    """A folder with pictures a.png and b.png, another style c.png, and a configuration for each of the two styles."""
    for source, name in ((pair[0], "a.png"), (pair[1], "b.png"), (pair[0], "c.png")):
        shutil.copy(source, name)
    for style in "bc":
        settings = {
            "data": {"content": "a.png", "style": f"{style}.png", "size": 48},
            "model": {"evaluations": 2},
            "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
        }
        Path(f"{style}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return place


def fit(*args):
    return main(["fit", *map(str, args)])


def steps(folder):
    with (Path(folder) / "metrics.csv").open(encoding="utf-8") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def losses(folder):
    with (Path(folder) / "metrics.csv").open(encoding="utf-8") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_pictures_of_a_configuration_say_which_run(place):
    assert fit("--config", "b.yaml") == 0
    assert fit("--config", "c.yaml") == 0
    before = (place / "runs/a_c_001/result.png").read_bytes()
    assert fit("--config", "b.yaml", "--ckpt_path", "last", "--model.evaluations", 4) == 0
    assert steps("runs/a_b_001") == [1, 2, 3, 4]
    assert (place / "runs/a_c_001/result.png").read_bytes() == before


def test_a_configuration_alone_may_ask_to_go_on_in_its_own_place(place, capsys):
    settings = yaml.safe_load(Path("b.yaml").read_text(encoding="utf-8"))
    settings["trainer"]["default_root_dir"] = "mine"
    Path("b.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert fit("--config", "b.yaml") == 0
    Path("more.yaml").write_text("ckpt_path: last\nmodel: {evaluations: 3}\n", encoding="utf-8")
    assert fit("--config", "b.yaml", "--config", "more.yaml") == 0
    assert steps("mine/a_b_001") == [1, 2, 3]
    assert not Path("runs").exists()
    # What is kept of it goes on from the start, not from a checkpoint.
    assert yaml.safe_load(Path("mine/a_b_001/config.yaml").read_text(encoding="utf-8"))["ckpt_path"] is None
    # Without pictures, and from `trainer.default_root_dir` alone.
    Path("more.yaml").write_text(
        "ckpt_path: last\nmodel: {evaluations: 4}\ntrainer: {default_root_dir: mine}\n", encoding="utf-8"
    )
    assert fit("--config", "more.yaml") == 0
    assert steps("mine/a_b_001") == [1, 2, 3, 4]


def test_another_pictures_run_is_never_continued(place, capsys):
    assert fit("--config", "b.yaml") == 0
    capsys.readouterr()
    assert fit("--config", "c.yaml", "--ckpt_path", "last", "--model.evaluations", 4) == 2
    said = last_line(capsys)
    assert "got none of a.png, c.png below 'runs', where there are a_b_001 of a.png, b.png; leave it out" in said
    assert fit("--data.style=[a.png, b.png]", "--ckpt_path=last") == 2
    assert fit("--data.content=null", "--ckpt_path=last") == 2
    checkpoint = "runs/a_b_001/checkpoints/000002.ckpt"
    for index, styles in enumerate(("c.png", "[b.png, c.png]")):
        assert fit(f"--ckpt_path={checkpoint}", f"--data.style={styles}", "--model.evaluations", 4) == 2
        assert f"data.style[{index}].path: " in last_line(capsys)
    assert steps("runs/a_b_001") == [1, 2]


def test_one_picture_has_many_paths(place):
    assert fit("--config", "b.yaml") == 0
    Path("link.png").symlink_to("a.png")
    Path("sub").mkdir()
    for count, (content, style) in enumerate((("link.png", "sub/../b.png"), (place / "a.png", "./b.png")), start=3):
        assert (
            fit("--data.content", content, "--data.style", style, "--ckpt_path=last", "--model.evaluations", count) == 0
        )
        assert steps("runs/a_b_001")[-1] == count
    assert fit("--data.content=a.png", "--ckpt_path=last", "--model.evaluations=5") == 0  # one of the two is enough
    assert steps("runs/a_b_001")[-1] == 5


@pytest.mark.parametrize("name", ["content", "style", "mask", "style_mask", "content_mask", "init", "weights"])
def test_a_file_that_has_changed_is_noticed(place, pair, capsys, monkeypatch, tiny_weights, name):
    files = {key: f"{key}.png" for key in ("content", "style", "mask", "style_mask", "content_mask", "init")}
    for key, file in files.items():
        shutil.copy(pair[1] if key.startswith("style") else pair[0], file)
    shutil.copy(tiny_weights, "weights.safetensors")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "weights.safetensors")
    style = "[{path: style.png, mask: mask.png, style_mask: style_mask.png}, b.png]"
    others = [f"--data.{key}={files[key]}" for key in ("content", "content_mask", "init")]
    assert fit("--config=b.yaml", f"--data.style={style}", *others) == 0
    shown = {"style": "data.style[0].path", "mask": "data.style[0].mask", "style_mask": "data.style[0].style_mask"}
    if name == "weights":
        save_file({key: value * 1.01 for key, value in load_file("weights.safetensors").items()}, "new.safetensors")
        before, after = sha256_of("weights.safetensors"), sha256_of("new.safetensors")
        Path("new.safetensors").replace("weights.safetensors")
        argument = "model.extractor of stage 1"
    else:
        before = sha256_of(files[name])
        write_image(files[name], read_image(files[name]).pixels * 0.9)
        after = sha256_of(files[name])
        argument = shown.get(name, f"data.{name}")
    capsys.readouterr()
    assert fit("--ckpt_path=last", "--model.evaluations=4") == 2
    said = last_line(capsys)
    assert f"error: {argument}: " in said
    assert before[:8] in said
    assert after[:8] in said
    assert "give the same file" in said
    assert steps(next(Path("runs").iterdir())) == [1, 2]


def test_a_mask_added_on_purpose_is_an_option_like_others(place, capsys):
    assert fit("--config=b.yaml") == 0
    assert fit("--ckpt_path=last", "--model.evaluations=3", "--data.content_mask=a.png") == 0
    assert "data.content_mask: None -> a.png" in capsys.readouterr().err


def old_facts(path):
    """Give a checkpoint what those of earlier versions say of their run."""
    content = torch.load(path, weights_only=True)
    facts = content[FACTS]
    files = files_of(facts)
    content[FACTS] = {
        "content": "a.png",
        "content_sha256": files["data.content"].sha256,
        "styles": ["b.png"],
        "plans": facts["plans"],
        "precision": facts["precision"],
    }
    content["configuration"] = content["configuration"].split("\n", 1)[1]  # no folder either
    torch.save(content, path)


def test_checkpoints_of_earlier_versions_go_on(place, capsys):
    assert fit("--config=b.yaml") == 0
    old_facts("runs/a_b_001/checkpoints/000002.ckpt")
    assert fit("--config=c.yaml", "--ckpt_path=last", "--model.evaluations=4") == 2
    assert fit("--config=b.yaml", "--ckpt_path=last", "--model.evaluations=4") == 0
    assert steps("runs/a_b_001") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("optimizer", "key"), [(OURS, "rules"), (OURS, "prior"), ("torch.optim.Adam", "differentiable")]
)
def test_a_setting_that_an_optimiser_did_not_have_then_takes_its_default(place, tiny_weights, optimizer, key):
    given = ("--config=b.yaml", f"--model.optimizer={optimizer}")
    assert fit(*given, "--model.evaluations=4") == 0
    assert fit(*given) == 0
    path = Path("runs/a_b_002/checkpoints/000002.ckpt")
    content = read_checkpoint(path)
    del content["optimizer_states"][0]["param_groups"][0][key]
    torch.save(content, path)
    assert fit("--ckpt_path", path, "--model.evaluations=4") == 0
    assert torch.equal(picture("runs/a_b_002"), picture("runs/a_b_001"))
    program = StyleTransfer(evaluations=4, optimizer=LBFGS if optimizer == OURS else torch.optim.Adam)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = StyleTrainer(accelerator="cpu", max_epochs=-1, enable_model_summary=False, **quiet)
    content["callbacks"] = {}
    torch.save(content, "alone.ckpt")
    trainer.fit(program, datamodule=StyleTransferData("a.png", "b.png", size=48), ckpt_path="alone.ckpt")
    assert trainer.optimizers[0].param_groups[0][key] == trainer.optimizers[0].defaults[key]


def test_one_optimiser_is_no_earlier_version_of_another(place, capsys):
    assert fit("--config=b.yaml", "--model.optimizer=torch.optim.RAdam") == 0  # which has fewer settings than Adam
    given = ("--ckpt_path=last", "--model.evaluations=4", "--model.optimizer=torch.optim.Adam")
    assert fit(*given) == 2
    assert "was made with another optimiser" in last_line(capsys)


def test_last_looks_where_a_run_of_another_folder_left_its_checkpoints(place, monkeypatch, tmp_path_factory):
    assert fit("--config=b.yaml", "--trainer.default_root_dir=mine", "--output=out.png") == 0
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    own = place / "mine" / "a_b_001"
    (place / "out.png").unlink()
    assert fit("--config", own / "config.yaml", "--ckpt_path=last", "--model.evaluations=4") == 0
    assert steps(own) == [1, 2, 3, 4]
    assert (place / "out.png").is_file()
    assert not list(Path.cwd().iterdir())
    assert fit("--config", own / "config.yaml", "--ckpt_path=last", "--model.evaluations=5") == 0  # and once more
    assert steps(own) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("way", ["included", "option", "preset", "mapping"])
def test_last_sees_what_a_configuration_says_in_whatever_form(place, way):
    Path("data.yaml").write_text("content: a.png\nstyle: b.png\nsize: 48\n", encoding="utf-8")
    Path("trainer.yaml").write_text("default_root_dir: mine\naccelerator: cpu\n", encoding="utf-8")
    assert fit("--config=b.yaml", "--trainer.default_root_dir=mine") == 0
    assert fit("--config=c.yaml", "--trainer.default_root_dir=mine") == 0
    Path("all.yaml").write_text(
        {
            "included": "data: data.yaml\ntrainer: trainer.yaml\n",
            "option": "trainer: trainer.yaml\n",
            "preset": "data: {content: a.png, style: b.png, size: 48}\ntrainer: {default_root_dir: mine}\n",
            "mapping": "data: {content: a.png, style: [{path: b.png}], size: 48}\ntrainer: {default_root_dir: mine}\n",
        }[way],
        encoding="utf-8",
    )
    more = {"option": ["--data=data.yaml"], "preset": ["--config=hardware/cpu"]}.get(way, [])
    assert fit("--config=all.yaml", *more, "--ckpt_path=last", "--model.evaluations=4") == 0
    assert steps("mine/a_b_001") == [1, 2, 3, 4]
    assert steps("mine/a_c_001") == [1, 2]


def test_a_run_goes_on_and_is_made_again_from_any_folder(place, monkeypatch, tmp_path_factory, tiny_weights):
    shutil.copy(tiny_weights, "tiny.safetensors")
    own = ("--output=out/x.png", "--model.extractor=VGG19", "--model.extractor.weights=tiny.safetensors")
    assert fit("--config=b.yaml", *own, "--model.evaluations=4") == 0
    assert fit("--config=b.yaml", *own) == 0
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    cut = place / "runs" / "a_b_002"
    (place / "out" / "x.png").unlink()
    assert fit("--ckpt_path", cut / "checkpoints" / "000002.ckpt", "--model.evaluations=4") == 0
    assert torch.equal(picture(cut), picture(place / "runs" / "a_b_001"))
    assert (place / "out" / "x.png").is_file()  # where it went before
    assert not list(elsewhere.iterdir())
    assert fit("--config", cut / "config.yaml", "--output=null") == 0
    assert torch.equal(picture("runs/a_b_001"), picture(cut))
    module = StyleTransfer.load_from_checkpoint(max((cut / "checkpoints").iterdir()), weights_only=True)
    assert str(place / "tiny.safetensors") in module.extractor.origin


def test_a_folder_that_was_moved_with_its_pictures_goes_on(place, monkeypatch):
    (place / "old").mkdir()
    for name in ("a.png", "b.png", "b.yaml"):
        shutil.move(name, "old")
    monkeypatch.chdir(place / "old")
    assert fit("--config=b.yaml") == 0
    monkeypatch.chdir(place)
    Path("old").rename("new")
    monkeypatch.chdir(place / "new")
    assert fit("--data.content=a.png", "--data.style=b.png", "--ckpt_path=last", "--model.evaluations=3") == 0
    assert steps("runs/a_b_001") == [1, 2, 3]
    assert fit("--config=runs/a_b_001/config.yaml") == 0
    # A run folder alone, which finds its pictures where they were.
    monkeypatch.chdir(place)
    Path("new/runs/a_b_001").rename("kept")
    assert fit("--ckpt_path=kept/checkpoints/000003.ckpt", "--model.evaluations=4") == 0
    assert steps("kept") == [1, 2, 3, 4]


def test_a_checkpoint_outside_of_a_run_folder_goes_on_in_a_new_one_which_is_said(place, capsys):
    assert fit("--config=b.yaml") == 0
    next(Path("runs").glob("*/checkpoints/000002.ckpt")).rename("kept.ckpt")
    capsys.readouterr()
    assert fit("--ckpt_path=kept.ckpt", "--model.evaluations=3") == 0
    assert "nst: continuing from kept.ckpt; not as then: model.evaluations: 2 -> 3\n" in capsys.readouterr().err
    assert steps("runs/a_b_002") == [3]


class StopAt(Callback):
    """Stops after an evaluation, once."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.step


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pair, tiny_weights):
    """The folder of a run in stages that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    model = f"--model.extractor.weights={tiny_weights}"
    pictures = ("--data.content", pair[0], "--data.style", pair[1], "--data.size", 48)
    assert fit(*pictures, model, f"--model.stages={STAGES}", "--trainer.default_root_dir", folder) == 0
    return next(folder.iterdir())


EARLY = "{{class_path: EarlyStopping, init_args: {{monitor: loss, min_delta: 100, mode: min, {}}}}}"
AT = "{{class_path: test_going_on.StopAt, init_args: {{step: {}}}}}"


@pytest.mark.parametrize(
    ("limit", "made", "reason"),
    [
        ("--trainer.max_steps=1", 1, "trainer.max_steps"),
        ("--trainer.max_steps=2", 2, "trainer.max_steps"),  # the end of a stage
        ("--trainer.max_steps=4", 4, "trainer.max_steps"),  # the next one has the same size
        ("--trainer.max_steps=5", 5, "trainer.max_steps"),
        ("--trainer.max_epochs=1", 2, "trainer.max_epochs"),
        ("--trainer.max_epochs=2", 4, "trainer.max_epochs"),
        (
            f"--trainer.callbacks=[{EARLY.format('patience: 1, check_on_train_epoch_end: true')}]",
            4,
            "the callback EarlyStopping",
        ),
        (f"--trainer.callbacks=[{AT.format(2)}]", 2, "a callback"),
        (f"--trainer.callbacks=[{AT.format(3)}]", 3, "a callback"),
    ],
)
def test_a_run_that_was_ended_goes_on_to_the_same_last_bit(place, whole, pair, capsys, limit, made, reason):
    pictures = ("--data.content", pair[0], "--data.style", pair[1], "--data.size", 48)
    assert fit(*pictures, f"--model.stages={STAGES}", limit) == 0
    said = last_line(capsys)
    assert said == f"nst: stopped by {reason} after {made} of 7 evaluations; go on with --ckpt_path last"
    folder = next(Path("runs").iterdir())
    assert steps(folder) == list(range(1, made + 1))
    assert fit("--ckpt_path=last") == 0
    assert losses(folder) == losses(whole)
    assert torch.equal(picture(folder), picture(whole))
    assert last_line(capsys).startswith("wrote ")


def test_a_run_that_was_stopped_early_in_a_stage_goes_on_from_there(place, whole, pair, capsys):
    pictures = ("--data.content", pair[0], "--data.style", pair[1], "--data.size", 48)
    early = f"--trainer.callbacks=[{EARLY.format('patience: 2')}]"
    assert fit(*pictures, f"--model.stages={STAGES}", early) == 0
    assert "the callback EarlyStopping after 3 of 7 evaluations" in last_line(capsys)
    folder = next(Path("runs").iterdir())
    assert fit("--ckpt_path=last") == 0  # and it is as patient as before
    assert "the callback EarlyStopping after 5 of 7 evaluations" in last_line(capsys)
    assert losses(folder) == losses(whole)[:5]


def test_a_share_of_each_stage_leaves_the_rest_of_the_last(place, capsys):
    assert fit("--config=b.yaml", "--model.evaluations=4") == 0
    assert fit("--config=b.yaml", "--model.evaluations=4", "--trainer.limit_train_batches=0.5") == 0
    assert "stopped by trainer.limit_train_batches after 2 of 4 evaluations" in last_line(capsys)
    assert fit("--ckpt_path=last") == 0
    assert losses("runs/a_b_002") == losses("runs/a_b_001")


def test_time_counts_anew(place, capsys):
    # No time at all: one evaluation is made, then it is over.
    Path("short.yaml").write_text("trainer: {max_time: {microseconds: 1}}\n", encoding="utf-8")
    long = ("--config=b.yaml", "--model.evaluations=3")
    assert fit(*long) == 0
    assert fit(*long, "--config=short.yaml") == 0
    assert "stopped by trainer.max_time after" in last_line(capsys)
    first = steps("runs/a_b_002")[-1]
    assert fit("--ckpt_path=last") == 0
    assert steps("runs/a_b_002")[-1] == first + 1  # as much as the first time
    assert fit("--ckpt_path=last", "--trainer.max_time=null") == 0
    assert losses("runs/a_b_002") == losses("runs/a_b_001")


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("--trainer.max_steps=2", "trainer.max_steps: must be above the 2 evaluations that are made, got 2"),
        ("--trainer.max_epochs=1", "trainer.max_epochs: must be above the 1 stages that are made, got 1"),
    ],
)
def test_a_limit_given_now_that_leaves_nothing_is_said(place, pair, capsys, limit, words):
    pictures = ("--data.content", pair[0], "--data.style", pair[1], "--data.size", 48)
    assert fit(*pictures, f"--model.stages={STAGES}", "--trainer.max_epochs=1") == 0
    assert fit("--ckpt_path=last", limit) == 2
    assert words in last_line(capsys)


def test_each_fit_of_one_module_has_the_facts_of_its_own_pictures(place, tiny_weights):
    model = StyleTransfer(stages=[Stage(1)], extractor=VGG19(str(tiny_weights)))
    for style in ("b.png", "c.png"):
        trainer = Trainer(**{**QUIET, "max_epochs": 1})
        trainer.fit(model, datamodule=StyleTransferData("a.png", style, size=48))
        trainer.save_checkpoint("x.ckpt")
        found = files_of(read_checkpoint(Path("x.ckpt"))[FACTS])["data.style[0].path"]
        assert (found.given, found.path, found.sha256) == (style, str(place / style), sha256_of(style))
