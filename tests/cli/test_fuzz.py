"""Pictures, weights and configurations that were damaged at random: one clear line each, and no time or memory lost."""

from __future__ import annotations

import io
import random
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nst_lightning.cli import main
from nst_lightning.errors import UserError
from nst_lightning.features.weights import load_vgg19_weights
from nst_lightning.images import read_image
from nst_lightning.runs.checkpoint import read_checkpoint

SECONDS, MEMORY = 60.0, 1 << 30  # a hang, on however slow a machine


def pictures() -> list[bytes]:
    """A small picture in every format and mode that matters."""
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(24, 31, 4, generator=generator) * 255).to(torch.uint8).numpy()
    images = {
        "JPEG": [Image.fromarray(noise[..., :3]), Image.fromarray(noise).convert("CMYK")],
        "PNG": [Image.fromarray(noise), Image.fromarray(noise[..., 0]), Image.fromarray(noise[..., :3]).convert("P")],
        "TIFF": [Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0].astype("float32") / 255)],
        "WEBP": [Image.fromarray(noise)],
        "GIF": [Image.fromarray(noise[..., :3])],
        "BMP": [Image.fromarray(noise[..., :3])],
    }
    encoded = []
    for kind, many in images.items():
        for image in many:
            file = io.BytesIO()
            image.save(file, kind)
            encoded.append(file.getvalue())
    return encoded


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, double, insert and overwrite, a few times."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        where = chance.randrange(max(1, len(result)))
        kind = chance.randrange(6)
        if kind == 0:
            result[where : where + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del result[where:]
        elif kind == 2:
            result[where:where] = result[where : where + chance.randint(1, 64)]
        elif kind == 3:
            result[where : where + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        elif kind == 4:
            del result[where : where + chance.randint(1, 32)]
        else:
            result[where:where] = chance.randbytes(chance.randint(1, 16))
    return bytes(result)


def peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def survives(action) -> None:
    """Run something that may refuse with one line, and nothing else."""
    begin, before = time.monotonic(), peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert ": " in message
    assert time.monotonic() - begin < SECONDS
    assert peak() - before < MEMORY


def quick(examples):
    relaxed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=relaxed
    )


def check_picture(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = folder / "picture.bin"
    path.write_bytes(mutate(chance.choice(pictures()), chance))

    def read():
        pixels = read_image(path, name="data.content").pixels
        assert pixels.shape[:2] == (1, 3)
        assert bool(pixels.isfinite().all())

    survives(read)


def check_weights(folder: Path, tiny: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = folder / f"weights{chance.choice(['.safetensors', '.pth'])}"
    data = tiny.read_bytes()
    head = mutate(data[:3000], chance)
    path.write_bytes(head + data[3000:] if chance.random() < 0.7 else mutate(data, chance))
    survives(lambda: load_vgg19_weights(str(path)))


YAML = """
model:
  evaluations: 3
  strength: 2.0
  terms:
    - class_path: nst_lightning.losses.Content
      init_args: {layers: [relu4_2], weight: 0.5}
    - class_path: nst_lightning.losses.Gram
data: {size: 48, init: content}
trainer: {accelerator: cpu, max_steps: 1}
snapshot_every: 0
"""
HOSTILE = [
    "model: !!python/object/apply:os.system ['touch hacked']\n",
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd: [*c, *c, *c, *c]\n",
    "model: " + "[" * 3000 + "]" * 3000 + "\n",
    "model: " + "[" * 90 + "]" * 90 + "\n",
    "x0: &x0 [1]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    "model: {strength: {a: {b: {c: 1}}}}\n",
    "model:\n  callbacks: 3\n",
    "\0\0\0",
    "data: {content: ../../../etc/passwd}\n",
    "- just\n- a list\n",
    "'",
]


def check_yaml(folder: Path, text: str, capsys, pair) -> None:
    path = folder / "some.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    begin = time.monotonic()
    options = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
    rest = ["--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--checkpoint_seconds", "0"]
    code = main(["fit", "--config", str(path), *options, *rest])
    said = capsys.readouterr().err
    assert code in {0, 2}, said
    assert "Traceback" not in said
    if code == 2:
        assert said.strip().splitlines()[-1].startswith("nst: error: ")
    assert time.monotonic() - begin < SECONDS
    assert not (folder / "hacked").exists()


SEEDS = st.integers(0, 2**32 - 1)


@quick(100)
@given(seed=SEEDS)
def test_damaged_pictures(tmp_path, seed):
    check_picture(tmp_path, seed)


@quick(40)
@given(seed=SEEDS)
def test_damaged_weights(tmp_path, tiny_weights, seed):
    check_weights(tmp_path, tiny_weights, seed)


@quick(12)
@given(seed=SEEDS)
def test_damaged_configurations(tmp_path, monkeypatch, use_tiny_weights, capsys, pair, seed):
    monkeypatch.chdir(tmp_path)
    check_yaml(tmp_path, mutate(YAML.encode(), random.Random(seed)).decode(errors="surrogateescape"), capsys, pair)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_configurations(tmp_path, monkeypatch, use_tiny_weights, capsys, pair, text):
    monkeypatch.chdir(tmp_path)
    check_yaml(tmp_path, text, capsys, pair)


@pytest.mark.parametrize("step", [0, 1])
def test_a_picture_truncated_everywhere(tmp_path, step):
    """Every 48th byte of small files, which is finer than every KiB of large ones."""
    for data in pictures():
        for length in range(step, len(data), 48 + 13 * step):
            (tmp_path / "cut.bin").write_bytes(data[:length])
            survives(lambda: read_image(tmp_path / "cut.bin"))


@pytest.mark.slow
@quick(2000)
@given(seed=SEEDS)
def test_two_thousand_damaged_pictures(tmp_path, seed):
    check_picture(tmp_path, seed)


@pytest.mark.slow
@quick(300)
@given(seed=SEEDS)
def test_three_hundred_damaged_weights(tmp_path, tiny_weights, seed):
    check_weights(tmp_path, tiny_weights, seed)


@pytest.mark.slow
@quick(200)
@given(seed=SEEDS)
def test_two_hundred_damaged_configurations(tmp_path, monkeypatch, use_tiny_weights, capsys, pair, seed):
    monkeypatch.chdir(tmp_path)
    check_yaml(tmp_path, mutate(YAML.encode(), random.Random(seed)).decode(errors="surrogateescape"), capsys, pair)


def check_checkpoint(folder: Path, whole: bytes, seed: int) -> None:
    chance = random.Random(seed)
    path = folder / "some.ckpt"
    spots = chance.randrange(max(1, len(whole) - 3000))
    damaged = whole[:spots] + mutate(whole[spots : spots + 3000], chance) + whole[spots + 3000 :]
    path.write_bytes(damaged)
    survives(lambda: read_checkpoint(path))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_weights, pair):
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("NST_VGG19_WEIGHTS", str(tiny_weights))
        options = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
        history = ["--model.optimizer.history_size", "2"]
        assert main(["fit", *options, *history, "--trainer.accelerator", "cpu", "--model.evaluations", "2"]) == 0
    (path,) = place.glob("runs/*/checkpoints/*.ckpt")
    return path.read_bytes()


@quick(60)
@given(seed=SEEDS)
def test_damaged_checkpoints(tmp_path, checkpoint, seed):
    check_checkpoint(tmp_path, checkpoint, seed)


@pytest.mark.slow
@quick(300)
@given(seed=SEEDS)
def test_three_hundred_damaged_checkpoints(tmp_path, checkpoint, seed):
    check_checkpoint(tmp_path, checkpoint, seed)


@pytest.mark.parametrize(
    "name", ["with space", "Füße 絵", "new\nline", "per%cent", "-dash", "a=b", "{curly}", "*star?"]
)
def test_strange_names(tmp_path, monkeypatch, use_tiny_weights, capsys, pair, name):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    content, style = folder / f"{name}.png", folder / "style.png"
    shutil.copy(pair[0], content)
    shutil.copy(pair[1], style)
    rest = ["--data.size", "48", "--trainer.accelerator", "cpu", "--model.evaluations", "2", "--checkpoint_every", "1"]
    output = folder / f"{name} out.png"
    paths = [f"--data.content={content}", f"--data.style={style}", f"--output={output}"]
    assert main(["fit", *paths, *rest]) == 0
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert read_image(output).pixels.shape == (1, 3, 36, 48)
    assert main(["fit", *paths, *rest, "--ckpt_path", "last", "--model.evaluations", "3"]) == 0
    assert main(["fit", f"--data.content={content}x", f"--data.style={style}"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("nst: error: data.content")
