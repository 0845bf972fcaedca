"""Command lines with plausible mistakes, composed at random: one line that says what to do, and nothing left behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nst_lightning.cli import main

BASE = {
    "--data.content": "photo.jpg",
    "--data.style": "painting.jpg",
    "--data.size": "48",
    "--model.evaluations": "1",
    "--trainer.accelerator": "cpu",
    "--snapshot_every": "0",
    "--checkpoint_seconds": "0",
}
VALUES = {
    "--data.size": ["48px", "4e1", "48,5", "64x48", "", "big", "-3", "0", "null", "[48]", "1e99", "4 8"],
    "--data.style_size": ["40px", "small", "-1", "1.5"],
    "--data.side": ["width", "longest", "left", "LONG"],
    "--data.color": ["keep", "lumminance", "rgb", "true", "1"],
    "--data.init": ["random", "gray", "nois", "gone.png", ".", ""],
    "--data.seed": ["-1", "abc", "1.5", "99999999999999999999x"],
    "--data.style_follows": ["Flase", "maybe", "2", ""],
    "--model.evaluations": ["1e", "many", "0", "-5", "2.5", "1,000", "ten"],
    "--model.strength": ["1,5", "high", "-1", "nan", "inf", "50%", "[1]"],
    "--model.extractor": ["vgg16", "VGG", "resnet50", "CompactVGG", "nst_lightning.features.VGG18", "nowhere.Net"],
    "--model.extractor.pooling": ["avg", "none", "maximum", "L2"],
    "--model.extractor.weights": ["gone.pth", "photo.jpg", "."],
    "--model.optimizer": ["adam", "sgdd", "torch.optim.Adamm", "lbfgs", "{lr: 1}"],
    "--model.optimizer.lr": ["fast", "-1", "0,1"],
    "--model.optimizer.learning_rate": ["1"],
    "--model.terms": [
        "Gram",
        "Gramm",
        "[Gramm]",
        "[Content, Gram",
        "{Gram: 1}",
        "[{class_path: Gram, wieght: 2}]",
        "[1]",
    ],
    "--model.stages": ["[100, 50]", "[{evaluation: 2}]", "100", "[{evaluations: two}]", "[{scale: 0.5}]", "[]"],
    "--model.tile": ["big", "3", "0.5"],
    "--model.memory": ["6GB", "-1", "0"],
    "--trainer.accelerator": ["gpuu", "cpuu", "amd", ""],
    "--trainer.devices": ["zero", "0", "-2", "[a]", "1.5"],
    "--trainer.precision": ["fp16", "half", "float32", "33", "bf-16"],
    "--trainer.callbacks": [
        "Snapshot",
        "[Snapshots, Nothing]",
        "[{class_path: Snapshots, init_args: {evry: 2}}]",
        "{a: b}",
    ],
    "--trainer.logger": ["TensorBord", "wandb", "[]x"],
    "--trainer.max_steps": ["-5", "0", "many"],
    "--trainer.max_time": ["soon", "5", "1h"],
    "--output": ["out", "out.bmp", "photo.jpg", "gone/deep/out.xyz", ".", "out.jpgg", ""],
    "--bits": ["12", "sixteen", "-8", "8.5"],
    "--quality": ["0", "101", "best", "95%"],
    "--log": ["loud", "JSON", "quiet", "true"],
    "--seed_everything": ["abc", "-1", "1.5", "99999999999"],
    "--ckpt_path": ["gone.ckpt", "photo.jpg", ".", "newest"],
    "--snapshot_every": ["-1", "often", "0.5"],
    "--checkpoint_keep": ["0", "all"],
}
FOREIGN = [
    "--style_weight 1e3", "-content_weight 5", "--size 512", "-image_size 512", "--iterations 300", "-num_iterations 9",
    "--device cuda", "-gpu 0", "--cuda", "-backend cudnn", "-optimizer adam", "--lr 0.1", "-tv_weight 1e-3",
    "--output-image x.png", "-o x.png", "--preserve-colors", "-original_colors 1", "-style_scale 0.5", "-pooling avg",
    "-init random", "--seed 3", "-save_iter 10", "--content photo.jpg", "--style painting.jpg", "--epochs 2",
    "--num-steps 9", "--alpha 0.5", "-style_layers relu1_1,relu2_1", "--preset gatys", "--model vgg19", "--zebra 3",
    "--verbose", "extra.jpg", "painting.jpg", "gatys", "size=48", "data.size=48", "fit", "--resume", "--fp16",
]  # fmt: skip
PICTURES = [
    "Photo.JPG", "photo.jpeg", "photo", "phto.jpg", "gone.jpg", "gone/photo.jpg", "*.jpg", "photo.{jpg,png}", ".",
    "https://example.org/photo.jpg", "file:///photo.jpg", "C:\\Users\\me\\photo.jpg", "text.jpg", "empty.png",
    "-photo.jpg",
    "photo.jpg,painting.jpg", "[photo.jpg", "{path: photo.jpg}", "", " photo.jpg", "mine.yaml", "~/gone.jpg", "42",
    "[{path: photo.jpg, wieght: 2}]", "[{file: photo.jpg}]", "[]", "[[photo.jpg]]", "[photo.jpg, gone.jpg]",
    "demo:contnet",
]  # fmt: skip
FILES = [
    "model:\n\tevaluations: 3\n", "modle: {evaluations: 3}\n", "model: {evaluation: 3}\n", "evaluations: 3\n",
    "fit: {model: {evaluations: 3}}\n", "model: [evaluations]\n", "model: 3\n", "data: {size: big}\n", "data:\n",
    "data: {style: [{path: painting.jpg, wait: 2}]}\n", "data: {style: {pth: painting.jpg}}\n", "data: {size: 48\n",
    "model: {terms: [{class_path: Grm}]}\n", "model: {terms: [{clas_path: Gram}]}\n", "model: {terms: Gram}\n",
    "model: {terms: [{class_path: Gram, init_arg: {weight: 2}}]}\n", "model: {terms: {Gram: {weight: 2}}}\n",
    "model: {extractor: {class_path: VGG19, init_args: {poling: max}}}\n", "model: {extractor: [VGG19]}\n",
    "model: {stages: [{evaluations: 1, sclae: 1}]}\n", "model: {stages: {evaluations: 1}}\n", "model: {stages: 5}\n",
    "model: {optimizer: {class_path: torch.optim.Adam, init_args: {learning_rate: 1}}}\n", "- model\n", "just words\n",
    "trainer: {callbacks: [{class_path: Snapshotz}]}\n", "trainer: {callbacks: {class_path: my.own.Thing}}\n", "",
    "trainer: {callbacks: [null]}\n", "model: {terms: [null]}\n", "data: {style: [null]}\n",
    "{model: {strength: '1,5'}}\n",
    "output: [a, b]\n", "data: {content: [photo.jpg]}\n", "data: {size: yes}\n", "seed_everything: {a: 1}\n",
    "log: 3\n",
    "data.size: 48px\n", "model: {strength: }\n", "model: {evaluations: '3x'}\n", "%YAML 9\n", "a: b: c\n",
    "\ufeffmodle: 1\n",
]  # fmt: skip


def misspelt(word: str, chance: random.Random) -> str:
    """A letter left out, doubled, in place of its neighbour's, or of another kind."""
    where = chance.randrange(3, len(word) - 1)
    kind = chance.randrange(4)
    if kind == 0:
        return word[:where] + word[where + 1 :]
    if kind == 1:
        return word[:where] + word[where] + word[where:]
    if kind == 2:
        return word[:where] + word[where + 1] + word[where] + word[where + 2 :]
    return word.replace("_", "-", 1) if "_" in word else word.upper()


def command_line(seed: int) -> list[str]:
    """Options that would make a picture, with one to three mistakes."""
    chance = random.Random(seed)
    options = dict(BASE)
    more: list[str] = []

    def wrong_value() -> None:
        option = chance.choice(list(VALUES))
        options[option] = chance.choice(VALUES[option])

    def wrong_name() -> None:
        option = chance.choice([name for name in VALUES if len(name) > 6])
        options.pop(option, None)
        more.extend([misspelt(option, chance), chance.choice(["3", "true", "photo.jpg"])])

    def of_another_program() -> None:
        more.extend(chance.choice(FOREIGN).split())

    def wrong_picture() -> None:
        options[chance.choice(["--data.content", "--data.style", "--data.content_mask"])] = chance.choice(PICTURES)

    def wrong_file() -> None:
        more.extend(["--config", f"{chance.randrange(len(FILES))}.yaml"])

    def wrong_shape() -> None:
        kind = chance.randrange(5)
        option = chance.choice(list(options))
        if kind == 0:
            more.append(option)  # without a value, at the end
        elif kind == 1:
            more.extend([option, options.pop(option)])
            more[-2] = more[-2].lstrip("-")
        elif kind == 2:
            more.extend(["--data.style", "gone.jpg"])
        elif kind == 3:
            options.pop(chance.choice(["--data.content", "--data.style"]), None)
        else:
            more.extend(["--config", chance.choice(["gatis", "gone.yaml", "photo.jpg", "", ".", "hardware/gpu"])])

    mistakes: list[Callable[[], None]] = [
        wrong_value, wrong_value, wrong_value, wrong_name, of_another_program, wrong_picture, wrong_file, wrong_shape,
    ]  # fmt: skip
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        chance.choice(mistakes)()
    given = [[f"{name}={value}"] if chance.random() < 0.5 else [name, value] for name, value in options.items()]
    words = [word for pair in given for word in pair]
    return [*more, *words] if more and more[0].startswith("--config") else [*words, *more]


@pytest.fixture
def place(place):
    for name, size in (("photo.jpg", (48, 36)), ("painting.jpg", (40, 40))):
        Image.radial_gradient("L").resize(size).convert("RGB").save(name)
    Path("text.jpg").write_text("no picture\n", encoding="utf-8")
    Path("empty.png").touch()
    Path("mine.yaml").write_text("model: {strength: 2}\n", encoding="utf-8")
    for index, text in enumerate(FILES):
        Path(f"{index}.yaml").write_text(text, encoding="utf-8")
    return place


def judge(seed: int, capsys) -> None:
    words = command_line(seed)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code = main(["fit", *words])
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    what = f"seed {seed}: {words}\n{captured.err}"
    assert code in {0, 2}, what
    assert "Traceback" not in captured.err, what
    assert not captured.out, what
    errors = [line for line in lines if line.startswith("nst: error: ") or line.startswith('{"event": "error"')]
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert all(after.get(path) == content for path, content in before.items()), what
    if code == 2:
        assert len(errors) == 1, what
        assert [line for line in lines if not line.startswith("nst: warning: ")] == errors, what
        assert "usage:" not in errors[0], what
        assert ": " in errors[0].removeprefix("nst: error: "), what
        assert len(errors[0]) < 1500, what
        assert set(after) == set(before), what
        assert not Path("runs").exists(), what
    else:
        assert not errors, what
        for path in set(after) - set(before):
            path.unlink()
        for folder in sorted((path for path in Path().rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()


@pytest.mark.parametrize("group", range(6))
def test_sixty_command_lines_with_mistakes(place, capsys, group):
    for seed in range(10 * group, 10 * group + 10):
        judge(seed, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("group", range(30))
def test_three_hundred_command_lines_with_mistakes(place, capsys, group):
    for seed in range(1000 + 10 * group, 1000 + 10 * group + 10):
        judge(seed, capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [evaluations]\n", "model: must hold keys, each with a value, got [evaluations]; mend it.yaml"),
        ("model: 3\n", "model: must hold keys, each with a value, got 3; mend it.yaml"),
        ("model: {strength: }\n", "model.strength: must be float, got null; leave it out for 1.0"),
        ("data: {color: null}\n", "data.color: must be one of style, luminance"),
        ("model: {terms: [{class_path: Grm}]}\n", "model.terms: must name a class, got Grm; did you mean Gram?"),
        (
            "data: {style: [{path: painting.jpg, wait: 2}]}\n",
            "data.style: wait: there is no such key; did you mean weight?",
        ),
        ("model:\n\tstrength: 3\n", "--config: must be YAML, which takes no tabs"),
        ("zebra_crossing: 3\n", "zebra_crossing: there is no such option"),
    ],
)
def test_a_known_mistake_in_a_file_has_its_hint(place, capsys, text, said):
    Path("it.yaml").write_text(text, encoding="utf-8")
    assert main(["fit", "--data.content", "photo.jpg", "--data.style", "painting.jpg", "--config", "it.yaml"]) == 2
    assert capsys.readouterr().err.startswith(f"nst: error: {said}")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--data.content=Photo.JPG"], "did you mean photo.jpg?"),
        (["--data.content=photo.jpeg"], "did you mean photo.jpg?"),
        (["--data.content=*.jpeg"], "the shell did not expand the pattern"),
        (["--data.content=https://example.org/a/b.jpg"], "curl -O 'https://example.org/a/b.jpg'"),
        (["--data.content=C:\\Users\\me\\b.jpg"], "did you mean /mnt/c/Users/me/b.jpg?"),
        (["--data.content=photo.jpg", "--data.size=512px"], "did you mean 512?"),
        (["--data.content=photo.jpg", "--data.size=1e3"], "did you mean 1000?"),
        (["--data.content=photo.jpg", "--model.strength=1,5"], "did you mean 1.5?"),
        (["--data.content=photo.jpg", "--data.style_follows=Flase"], "did you mean false?"),
        (["--data.content=photo.jpg", "--trainer.precision=fp16"], "did you mean bf16-mixed?"),
        (["--data.content=photo.jpg", "--data.init=random"], "did you mean noise?"),
        (["--data.content=photo.jpg", "--model.extractor.pooling=avg"], "did you mean average?"),
        (["--data.content=photo.jpg", "--model.optimizer=adam"], "did you mean Adam?"),
        (["--data.content=photo.jpg", "--model.terms=Gram"], "type: --model.terms '[Gram]'"),
        (["--data.content=photo.jpg", "--model.terms=[{class_path: Gram, weight: 2}]"], "type: init_args: {weight: 2}"),
        (["--data.content=photo.jpg", "--trainer.logger=TensorBord"], "did you mean TensorBoardLogger?"),
        (["--data.content=photo.jpg", "--config=painting.jpg"], "type --data.content painting.jpg"),
    ],
)
def test_a_known_mistake_has_its_hint(place, capsys, options, hint):
    assert main(["fit", "--data.style=painting.jpg", *options]) == 2
    assert hint in capsys.readouterr().err
