"""What users get wrong: one line that names it and exit code 2, before any evaluation and without a run folder."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from nst_lightning.cli import main
from nst_lightning.engine.module import StyleTransfer
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE


@pytest.fixture
def place(tmp_path, monkeypatch, use_tiny_weights):
    """An empty working folder, and a module that must not be evaluated."""

    def evaluated(*_):
        raise AssertionError("an evaluation was made")

    monkeypatch.setattr(StyleTransfer, "training_step", evaluated)
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(place, pair, capsys):
    """Run ``nst fit`` on the pair with more options; give back the one line of the error."""

    def run(*options, content=pair[0], style=pair[1], evaluations="2", size="48"):
        given = [f"--data.content={content}" if content else None, f"--data.style={style}" if style else None]
        given += [f"--model.evaluations={evaluations}" if evaluations else None, f"--data.size={size}" if size else ""]
        return error_of(capsys, ["fit", *filter(None, given), *map(str, options)])

    return run


def error_of(capsys, arguments):
    before = set(Path().rglob("*"))
    code = main(arguments)
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("nst: warning:")]
    assert code == 2, captured.err
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("nst: error: ")
    assert not captured.out
    assert "Traceback" not in lines[0]
    assert "usage:" not in lines[0]
    assert set(Path().rglob("*")) == before, "something was left behind"
    return lines[0].removeprefix("nst: error: ")


def says(line, *parts):
    for part in parts:
        assert part in line, line


# ---------------------------------------------------------------------------------------------------- pictures


def encoded(size=(48, 36), kind="PNG"):
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def header_of_png(width, height):
    png = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        png += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png


DAMAGED = {
    "empty": b"",
    "text": b"this is no picture at all\n" * 9,
    "truncated": encoded()[:-300],
    "truncated header": encoded()[:20],
    "truncated jpeg": encoded(kind="JPEG")[:400],
    "one pixel": encoded((1, 1)),
    "bomb": header_of_png(60000, 60000),
}


@pytest.mark.parametrize("which", ["content", "style"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_picture_is_named(refused, place, which, damage):
    path = place / "picture.png"
    path.write_bytes(DAMAGED[damage])
    says(refused(**{which: path}), f"data.{which}", "picture.png")


@pytest.mark.parametrize("which", ["content", "style"])
def test_a_missing_picture_is_named(refused, which):
    says(refused(**{which: "nowhere/picture.png"}), f"data.{which}", "nowhere/picture.png")


@pytest.mark.parametrize("which", ["content", "style"])
def test_a_folder_is_no_picture(refused, place, which):
    (place / "folder.png").mkdir()
    says(refused(**{which: "folder.png"}), f"data.{which}", "folder.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("which", ["content", "style"])
def test_an_unreadable_picture_is_named(refused, place, which):
    path = place / "picture.png"
    path.write_bytes(encoded())
    path.chmod(0)
    says(refused(**{which: path}), f"data.{which}", "picture.png")


@pytest.mark.parametrize("which", ["content", "style"])
def test_a_picture_that_the_system_refuses_is_named(refused, place, monkeypatch, which):
    path = place / "picture.png"
    path.write_bytes(encoded())
    genuine = io.open
    monkeypatch.setattr(
        "pathlib.Path.open",
        lambda self, *args, **kwargs: (
            (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(self)))
            if self.name == "picture.png"
            else genuine(self, *args, **kwargs)
        ),
    )
    says(refused(**{which: path}), f"data.{which}", "picture.png")


def test_a_missing_start_picture_is_named(refused):
    says(refused("--data.init=nothing.png"), "data.init", "nothing.png", "noise")


def test_a_damaged_start_picture_is_named(refused, place):
    (place / "start.png").write_bytes(DAMAGED["truncated"])
    says(refused("--data.init=start.png"), "data.init", "start.png")


def test_one_of_several_styles_is_named(refused, pair):
    says(refused(f'--data.style=["{pair[1]}", "other.png"]', style=None), "data.style", "other.png")


def test_a_mask_is_not_supported_yet(refused, pair):
    says(refused(f'--data.style=[{{"path": "{pair[1]}", "mask": "m.png"}}]', style=None), "data.style[0].mask", "m.png")


# ----------------------------------------------------------------------------------------------- the objective


def terms(**init_args):
    arguments = ", ".join(f"{key}: {value}" for key, value in init_args.items())
    return f"--model.terms=[{{class_path: nst_lightning.losses.Gram, init_args: {{{arguments}}}}}]"


@pytest.mark.parametrize("layers", ["[relu1_1, relu4_9]", "{relu4_9: 1.0}"])
def test_an_unknown_layer_comes_with_the_nearest_and_all(refused, layers):
    says(refused(terms(layers=layers)), "model.terms", "'relu4_9'", "did you mean relu4_", "conv1_1", "relu5_4")


def test_a_size_too_small_for_the_deepest_layer(refused, place):
    Image.new("RGB", (96, 24)).save("wide.png")
    says(refused(content="wide.png"), "data.size", "16 px", "48x12", "relu5_1")


def test_a_style_size_too_small_for_the_deepest_layer(refused, place):
    Image.new("RGB", (96, 24)).save("wide.png")
    says(refused("--data.style_size=48", style="wide.png"), "data.style", "wide.png", "16 px", "48x12", "relu5_1")


def test_a_coarse_stage_too_small_for_the_deepest_layer(refused):
    line = refused("--model.stages=[{evaluations: 1, scale: 0.25}, {evaluations: 1}]", evaluations=None)
    says(line, "16 px", "12x9", "relu5_1")


@pytest.mark.parametrize("size", ["15", "0", "-48"])
def test_a_size_below_one_cell(refused, size):
    says(refused(size=size), "data.size", "16", size)


def test_a_style_size_below_one_cell(refused):
    says(refused("--data.style_size=3"), "data.style_size", "16", "3")


@pytest.mark.parametrize("value", ["-1", ".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("where", ["term", "layer", "strength", "style"])
def test_weights_are_finite_and_not_negative(refused, pair, where, value):
    option = {
        "term": terms(weight=value),
        "layer": terms(layers=f"{{relu1_1: {value}}}"),
        "strength": f"--model.strength={value}",
        "style": f"--data.style=[{{path: '{pair[1]}', weight: {value}}}]",
    }[where]
    line = refused(option, style=None if where == "style" else pair[1])
    says(line, "finite and at least 0", value.replace(".nan", "nan").replace(".inf", "inf"))
    named = {"term": "weight", "layer": "relu1_1", "strength": "model.strength", "style": "data.style[0].weight"}
    says(line, named[where])


def test_styles_that_weigh_nothing(refused, pair):
    says(refused(f"--data.style=[{{path: '{pair[1]}', weight: 0}}]", style=None), "data.style", "0")


@pytest.mark.parametrize("value", ["0", "-1", ".nan", ".inf"])
def test_a_style_scale_is_above_zero(refused, pair, value):
    says(refused(f"--data.style=[{{path: '{pair[1]}', scale: {value}}}]", style=None), "data.style[0].scale")


def test_an_empty_list_of_styles(refused):
    says(refused("--data.style=[]", style=None), "data.style")


def test_an_empty_list_of_terms(refused):
    says(refused("--model.terms=[]"), "model.terms")


def test_fewer_evaluations_than_stages(refused):
    line = refused("--model.stages=[{evaluations: 2, scale: 0.5}, {evaluations: 2}]", evaluations="1")
    says(line, "model.evaluations", "at least 2", "got 1")


@pytest.mark.parametrize("value", ["0", "-3"])
def test_at_least_one_evaluation(refused, value):
    says(refused(evaluations=value), "model.evaluations", "at least 1", value)


@pytest.mark.parametrize("scale", ["0.5", "0", "2", ".nan"])
def test_the_last_stage_has_the_full_size(refused, scale):
    line = refused(f"--model.stages=[{{evaluations: 1, scale: {scale}}}]", evaluations=None)
    says(line, "model.stages", "scale" if scale != "0.5" else "last")


def test_rescaled_pooling_contradicts_max(refused):
    says(refused("--model.extractor.rescale_pooling=true"), "rescale_pooling", "max")


# ------------------------------------------------------------------------------------------ trainer, optimiser


@pytest.mark.parametrize("value", ["1", "0.5"])
def test_gradients_are_not_clipped(refused, value):
    says(refused(f"--trainer.gradient_clip_val={value}"), "trainer.gradient_clip_val", value)


def test_evaluations_are_not_accumulated(refused):
    says(refused("--trainer.accumulate_grad_batches=4"), "trainer.accumulate_grad_batches", "4")


@pytest.mark.parametrize("value", ["16-true", "16-mixed", "16", "bf16-true", "nonsense"])
def test_a_precision_that_cannot_work(refused, value):
    line = refused("--trainer.accelerator=cpu", f"--trainer.precision={value}")
    says(line, "trainer.precision", value, "bf16-mixed")


@pytest.mark.parametrize("value", ["cuda", "mps", "xpu"])
def test_an_accelerator_that_is_not_there(refused, value, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    says(refused(f"--trainer.accelerator={value}"), "trainer.accelerator", value, "cpu", "auto")


def test_an_accelerator_that_does_not_exist(refused):
    says(refused("--trainer.accelerator=abacus"), "trainer", "abacus")


def test_several_devices_that_train_as_lightning_does(refused):
    line = refused("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    says(line, "trainer.strategy", "auto", "ddp")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["torch.optim.Adam", "--model.optimizer.lr=-1"], ["learning rate", "-1"]),
        (["nst_lightning.optim.LBFGS", "--model.optimizer.history_size=0"], ["history_size", "0"]),
        (["nst_lightning.optim.LBFGS", "--model.optimizer.lr=0"], ["lr", "0"]),
        (["nst_lightning.optim.LBFGS", "--model.optimizer.history_size=many"], ["history_size", "many"]),
        (["nst_lightning.optim.LBFGS", "--model.optimizer.historysize=3"], ["historysize", "history_size"]),
        (["torch.optim.Adam", "--model.optimizer.momentun=3"], ["momentun"]),
        (["torch.optim.LBFGS", "--model.optimizer.line_search_fn=strong_wolfe"], ["line_search_fn", "strong_wolfe"]),
        (["torch.optim.Nothing"], ["Nothing"]),
    ],
)
def test_wrong_arguments_of_an_optimizer(refused, options, parts):
    says(refused(f"--model.optimizer={options[0]}", *options[1:]), "model.optimizer", *parts)


def test_a_missing_checkpoint(refused):
    says(refused("--ckpt_path=gone.ckpt"), "ckpt_path", "gone.ckpt")


class Executed:
    """What a file of pickled objects may do to whoever loads it."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("content", [b"", b"junk" * 99, {"state_dict": {}}, {"state_dict": Executed()}, None])
def test_a_file_that_is_no_checkpoint(refused, place, pair, content):
    if isinstance(content, dict):
        torch.save(content, "other.ckpt")
    else:
        (place / "other.ckpt").write_bytes(pair[0].read_bytes() if content is None else content)
    says(refused("--ckpt_path=other.ckpt"), "ckpt_path: must be a checkpoint of nst fit", "other.ckpt")
    assert not (place / "executed").exists()


@pytest.fixture
def checkpoint(tmp_path, monkeypatch, use_tiny_weights, pair):
    """A checkpoint at the end of a run of two evaluations."""
    monkeypatch.chdir(tmp_path)
    keep = "--trainer.callbacks=[{class_path: Snapshots, init_args: {every: 2, checkpoint: true}}]"
    pictures = [f"--data.content={pair[0]}", f"--data.style={pair[1]}", "--data.size=48", "--model.evaluations=2"]
    assert main(["fit", *pictures, keep, "--trainer.accelerator=cpu"]) == 0
    (path,) = tmp_path.rglob("snapshots/*.ckpt")
    return path


def test_a_checkpoint_of_another_optimizer(checkpoint, refused, capsys):
    capsys.readouterr()
    line = refused(f"--ckpt_path={checkpoint}", "--model.optimizer=torch.optim.Adam", evaluations="4")
    says(line, "ckpt_path", "another optimiser", "model.optimizer")


def test_a_checkpoint_with_nothing_left_to_do(checkpoint, refused, capsys):
    capsys.readouterr()
    says(refused(f"--ckpt_path={checkpoint}"), "ckpt_path", "2 evaluations", "nothing is left")


@pytest.mark.parametrize("name", ["max_steps", "max_epochs"])
def test_a_limit_of_nothing(refused, name):
    says(refused(f"--trainer.{name}=0"), f"trainer.{name}: must be at least 1", "got 0")


@pytest.mark.parametrize("seed", ["-5", "4294967296"])
def test_a_seed_out_of_range(refused, seed):
    says(refused(f"--seed_everything={seed}"), "seed_everything", "4294967295", seed)


def test_a_callback_that_the_trainer_refuses(refused):
    callback = "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.LearningRateMonitor}]"
    says(refused(callback, "--trainer.enable_progress_bar=false"), "trainer.logger: ", "LearningRateMonitor")


@pytest.mark.parametrize("which", ["content", "style"])
def test_the_result_never_replaces_a_picture_it_is_made_from(refused, place, which):
    (place / "mine.png").write_bytes(encoded())
    says(refused("--output=./mine.png", **{which: "mine.png"}), "output", "mine.png")
    assert (place / "mine.png").read_bytes() == encoded()


# ------------------------------------------------------------------------------------ misspelt and mistyped keys


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--outptu=x.png", "output"),
        ("--modle.evaluations=3", "model.evaluations"),
        ("--model.evaluation=3", "model.evaluations"),
        ("--model.strenght=3", "model.strength"),
        ("--data.sise=48", "data.size"),
        ("--trainer.precison=32-true", "trainer.precision"),
        ("--model.extractor.poling=average", "pooling"),
        (terms(normalisation="paper"), "normalization"),
        (terms(wieght="2"), "weight"),
        (
            "--trainer.callbacks=[{class_path: nst_lightning.callbacks.Snapshots, init_args: {evry: 2}}]",
            "every",
        ),
    ],
)
def test_a_misspelt_option_comes_with_the_nearest(refused, option, near):
    line = refused(option)
    says(line, f"did you mean {near}?")


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("modle: {evaluations: 2}", "modle", "model.evaluations"),
        ("snapshot_evry: 2", "snapshot_evry", "snapshot_every"),
        ("model: {evaluation: 2}", "evaluation", "evaluations"),
        ("data: {sise: 48}", "sise", "size"),
        ("trainer: {precison: 32-true}", "precison", "precision"),
        ("trainer: {max_step: 2}", "max_step", "max_steps"),
        ("model: {extractor: {class_path: VGG19, init_args: {poling: max}}}", "poling", "pooling"),
        (
            "model: {terms: [{class_path: nst_lightning.losses.Gram, init_args: {normalisation: paper}}]}",
            "normalisation",
            "normalization",
        ),
        (
            "model: {optimizer: {class_path: nst_lightning.optim.LBFGS, init_args: {historysize: 3}}}",
            "historysize",
            "history_size",
        ),
        (
            "trainer: {callbacks: [{class_path: nst_lightning.callbacks.Figure, init_args: {frame: 3}}]}",
            "frame",
            "frames",
        ),
        ("model: {stages: [{evaluation: 2}]}", "evaluation", "evaluations"),
    ],
)
def test_a_misspelt_key_of_a_file_comes_with_the_nearest(refused, place, text, key, near):
    (place / "mine.yaml").write_text(text, encoding="utf-8")
    line = refused("--config=mine.yaml", evaluations=None)
    says(line, key, f"did you mean {near}?" if "." in near or f"did you mean {near}?" in line else f".{near}?")


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("--model.evaluations=abc", ["model.evaluations", "int", "abc"]),
        ("--model.evaluations=2.5", ["model.evaluations", "int", "2.5"]),
        ("--model.strength=much", ["model.strength", "float", "much"]),
        ("--data.size=big", ["data.size", "int", "big"]),
        ("--data.side=left", ["data.side", "long", "short", "left"]),
        ("--data.seed=-1", ["data.seed", "-1"]),
        ("--data.resample=nearest", ["data.resample", "bicubic", "nearest"]),
        ("--bits=many", ["bits", "int", "many"]),
        ("--bits=12", ["bits", "8", "16", "12"]),
        ("--quality=0", ["quality", "100", "0"]),
        ("--snapshot_every=-1", ["snapshot", "-1"]),
        ("--trainer.max_steps=few", ["trainer.max_steps", "int", "few"]),
        ("--model.extractor.pooling=min", ["pooling", "average", "min"]),
        (terms(normalization="own"), ["normalization", "balanced", "own"]),
        (terms(weight="heavy"), ["weight", "heavy"]),
        ("--model.terms=Gram", ["model.terms", "Gram"]),
        ("--model.terms=[{class_path: nst_lightning.losses.Grem}]", ["nst_lightning.losses.Grem"]),
        ("--model.terms=[{class_path: nowhere.at.all}]", ["nowhere"]),
        ("--model.terms=[{class_path: torch.nn.ReLU}]", ["torch.nn.ReLU"]),
        ("--model.extractor=nst_lightning.features.VGG16", ["VGG16"]),
        ("--trainer.callbacks=[{class_path: nst_lightning.callbacks.Snapshot}]", ["Snapshot"]),
        ("--trainer.callbacks=[{class_path: nst_lightning.callbacks.Metrics, init_args: {every: 0}}]", ["every", "0"]),
        ("--trainer.callbacks=[{class_path: nst_lightning.callbacks.Figure, init_args: {width: 9}}]", ["width", "9"]),
        ("--trainer.callbacks=[{class_path: nst_lightning.callbacks.Progress, init_args: {every: 0}}]", ["every", "0"]),
    ],
)
def test_values_of_another_kind(refused, option, parts):
    says(refused(option), *parts)


def test_a_stray_word(refused):
    says(refused("picture.jpg"), "picture.jpg")


@pytest.mark.parametrize("missing", ["content", "style"])
def test_what_must_be_given(refused, missing):
    says(refused(**{missing: None}), f"data.{missing}", "must be given")


# ------------------------------------------------------------------------------------------ configuration files


def test_an_unknown_preset_comes_with_the_nearest_and_all(refused):
    says(refused("--config=gatis"), "--config", "'gatis'", "did you mean gatys?", "hardware/cpu", "quickstart")


def test_config_needs_a_value(refused):
    says(refused("--config"), "--config")


@pytest.mark.parametrize(
    "text",
    ["model: [unclosed", "- a\n- list\n", "", "# only a comment\n", "just words", "\tmodel: 3", "model: {a: b: c}"],
)
def test_a_file_that_is_no_configuration(refused, place, text):
    (place / "mine.yaml").write_text(text, encoding="utf-8")
    says(refused("--config", "mine.yaml"), "--config", "mine.yaml")


def test_a_file_that_is_no_text(refused, place):
    (place / "mine.yaml").write_bytes(b"\xff\xfe\x00\x01\x80")
    says(refused("--config=mine.yaml"), "--config", "mine.yaml")


def test_a_file_executes_nothing(refused, place):
    (place / "mine.yaml").write_text("model: !!python/object/apply:os.mkdir ['executed']\n", encoding="utf-8")
    says(refused("--config=mine.yaml"), "--config", "mine.yaml", "python/object")
    assert not (place / "executed").exists()


def test_a_value_on_the_command_line_executes_nothing(refused, place):
    refused("--model.strength=!!python/object/apply:os.mkdir ['executed']")
    assert not (place / "executed").exists()


# ----------------------------------------------------------------------------------------------- where results go


def test_output_below_a_file(refused, place):
    (place / "file").write_bytes(b"")
    says(refused("--output=file/result.png"), "output", "file/result.png")


def test_output_with_an_unknown_suffix(refused):
    says(refused("--output=result.bmp"), "output", "result.bmp", ".png")


def test_output_without_a_suffix(refused):
    says(refused("--output=result"), "output", "result", ".png")


def test_output_that_is_a_folder(refused, place):
    (place / "folder.png").mkdir()
    says(refused("--output=folder.png"), "output", "folder.png")


def test_sixteen_bits_of_jpeg(refused):
    says(refused("--output=result.jpg", "--bits=16"), "16", "result.jpg")


def test_a_root_of_runs_that_is_a_file(refused, place):
    (place / "runs").write_bytes(b"")
    says(refused(), "trainer.default_root_dir", "runs")


def test_a_root_of_runs_below_a_file(refused, place):
    (place / "file").write_bytes(b"")
    says(refused("--trainer.default_root_dir=file/runs"), "trainer.default_root_dir", "file/runs")


# ------------------------------------------------------------------------------------------------------- weights


def test_missing_weights_name_every_place(refused, place, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    says(refused(), "model.extractor.weights", ENVIRONMENT_VARIABLE, str(place / "hub"), "download", "no network")


def test_weights_that_are_named_and_missing(refused):
    says(refused("--model.extractor.weights=gone.pth"), "model.extractor.weights", "gone.pth", "no such file")


def test_weights_that_the_variable_names_and_that_are_missing(refused, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "gone.safetensors")
    says(refused(), ENVIRONMENT_VARIABLE, "gone.safetensors")


def test_weights_that_are_damaged(refused, place):
    (place / "weights.pth").write_bytes(b"PK damaged")
    says(refused("--model.extractor.weights=weights.pth"), "weights.pth")


def test_weights_of_another_hash(refused):
    says(refused("--model.extractor.sha256=00000000"), "SHA-256", "00000000")


# --------------------------------------------------------------------------------------------------- the command


def test_an_unknown_subcommand_comes_with_the_nearest(place, capsys):
    says(error_of(capsys, ["fti"]), "'fti'", "did you mean fit?", "--help")


def test_no_subcommand_shows_what_there_is(capsys):
    assert main([]) == 2
    assert "fit" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(capsys, flag):
    assert main([flag]) == 0
    captured = capsys.readouterr()
    assert "usage: nst" in captured.out
    assert "make a picture" in captured.out
    assert not captured.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split()[0] == "nst_lightning"


def test_the_real_process_ends_with_code_2_and_no_traceback(tmp_path, pair, tiny_weights):
    done = subprocess.run(
        [sys.executable, "-m", "nst_lightning", "fit", f"--data.content={pair[0]}", "--data.style=gone.png"],
        cwd=tmp_path,
        env={**os.environ, ENVIRONMENT_VARIABLE: str(tiny_weights)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("nst: warning:")]
    assert len(lines) == 1
    assert lines[0].startswith("nst: error: data.style: ")
    assert "gone.png" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_larger_than_its_file_can_be(refused):
    said = refused("--output", "picture.webp", size="20000")
    assert (
        said == "output: WebP holds at most 16383 px a side, got 15000 x 20000 for 'picture.webp'; choose PNG or TIFF"
    )
