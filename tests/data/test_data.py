"""From files to the tensors of a stage."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nst_lightning import Stage, Style, StyleTransferData, demo
from nst_lightning.cli import main
from nst_lightning.config.build import build
from nst_lightning.console import log
from nst_lightning.data.loader import EvaluationLoader, StageBatch
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.images import check_image


def test_sizes_mean_the_long_or_the_short_side(pair):
    long = StyleTransferData(str(pair[0]), str(pair[1]), size=32)
    short = StyleTransferData(str(pair[0]), str(pair[1]), size=24, side="short")
    assert long.stage_size() == (24, 32)
    assert short.stage_size() == (24, 32)
    assert long.stage_size(0.5) == (12, 16)
    assert long.stage_images().content.shape == (1, 3, 24, 32)


def test_style_has_a_size_of_its_own(pair):
    data = StyleTransferData(str(pair[0]), [Style(str(pair[1]), scale=1.5), str(pair[0])], size=32, style_size=20)
    assert data.style_sizes() == [(30, 30), (15, 20)]
    assert [style.shape[-2:] for style, _ in data.stage_images(0.5).styles] == [(15, 15), (8, 10)]
    assert data.stage_size() == (24, 32)
    each = StyleTransferData(
        str(pair[0]), [Style(str(pair[1]), size=24), Style(str(pair[1]), size=24, scale=0.5), str(pair[1])], size=32
    )
    assert each.style_sizes() == [(24, 24), (12, 12), (32, 32)]
    assert each.style_sizes(0.5) == [(12, 12), (6, 6), (16, 16)]


def test_weights_of_styles_become_shares(pair):
    data = StyleTransferData(str(pair[0]), [Style(str(pair[1]), weight=3.0), Style(str(pair[0]), weight=1.0)], size=32)
    assert [share for _, share in data.stage_images().styles] == [0.75, 0.25]


def test_styles_of_a_file_are_paths_or_mappings(pair, tmp_path, monkeypatch, use_tiny_weights):
    """The blend that YAML asks for is the one that Python builds."""
    monkeypatch.chdir(tmp_path)
    items = [{"path": str(pair[1]), "weight": 3.0, "scale": 1.5}, str(pair[0])]
    settings = {"content": str(pair[0]), "style": items, "size": 48}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": settings}), encoding="utf-8")
    data = build(["--config", "mine.yaml", "--model.evaluations=1"]).data
    assert data.styles == [Style(str(pair[1]), weight=3.0, scale=1.5), Style(str(pair[0]))]
    python = StyleTransferData(str(pair[0]), [Style(str(pair[1]), weight=3.0, scale=1.5), str(pair[0])], size=48)
    for (ours, share), (theirs, other) in zip(data.stage_images().styles, python.stage_images().styles, strict=True):
        assert share == other
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "as_given",
    [
        lambda path: path,
        lambda path: [path],
        lambda path: (path,),
        str,
        Style,
        lambda path: [Style(str(path))],
        lambda path: {"path": path},
        lambda path: [{"path": str(path), "weight": 1}],
        lambda path: MappingProxyType({"path": str(path)}),
    ],
)
def test_a_style_from_python_is_a_path_a_style_a_mapping_or_a_list(pair, as_given):
    data = StyleTransferData(pair[0], as_given(pair[1]), size=32, init=pair[0], content_mask=pair[0])
    assert data.styles == [Style(str(pair[1]))]
    request = data.request
    assert (request.content, request.init, request.content_mask) == (str(pair[0]),) * 3
    both = StyleTransferData(pair[0], [pair[1], {"path": pair[0], "style_mask": pair[0]}], size=32)
    assert both.styles == [Style(str(pair[1])), Style(str(pair[0]), style_mask=str(pair[0]))]


IN_MEMORY = "a picture in memory is to be saved to a file first"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": Image.new("RGB", (20, 20))}, f"data.style: must be a path, a Style, .* got Image; {IN_MEMORY}"),
        ({"style": [np.zeros((20, 20, 3))]}, rf"data.style\[0\]: must be a path, .* got ndarray; {IN_MEMORY}"),
        ({"style": torch.zeros(3, 20, 20)}, f"data.style: .* got Tensor; {IN_MEMORY}"),
        ({"style": 3}, "data.style: must be a path, a Style, a mapping or a list of these, got int; name a picture"),
        ({"style": None}, "data.style: must be a path, .* got NoneType"),
        ({"style": ""}, "data.style: must be a path, .* got an empty path"),
        ({"style": [["a.png"]]}, r"data.style\[0\]: must be a path, a Style, .* got list"),
        ({"style": {"pth": "a.png"}}, "data.style.pth: must be one of path, .* got pth; did you mean path"),
        ({"style": [{"weight": 2.0}]}, r"data.style\[0\].path: must name the style's picture, got nothing"),
        ({"style": [{"path": "a", "weight": "2"}]}, r"data.style\[0\].weight: must be a number, got '2'"),
        ({"style": [{"path": "a", "size": 20.5}]}, r"data.style\[0\].size: must be a whole number of pixels, got 20.5"),
        ({"style": [{"path": "a", "layers": "relu1_1"}]}, r"layers: must be a list of names .* got 'relu1_1'"),
        ({"style": Style(3)}, r"data.style\[0\].path: must be a path, got int"),
        ({"style": Style("a", mask=Image.new("L", (9, 9)))}, rf"data.style\[0\].mask: .* got Image; {IN_MEMORY}"),
        ({"content": Image.new("RGB", (20, 20))}, f"data.content: must be a path or null, got Image; {IN_MEMORY}"),
        ({"content": b"a.png"}, "data.content: must be a path or null, got bytes"),
        ({"content_mask": np.zeros((9, 9))}, f"data.content_mask: must be a path, got ndarray; {IN_MEMORY}"),
        ({"init": torch.zeros(3, 9, 9)}, f"data.init: must be content, recolored, white, .* got Tensor; {IN_MEMORY}"),
    ],
)
def test_what_is_no_file_is_refused_in_one_line(pair, options, words):
    with pytest.raises(UserError, match=words):
        StyleTransferData(**{"content": pair[0], "style": pair[1], "size": 32, **options})


def test_styles_are_never_enlarged_unasked(pair):
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=160)  # the style has 40x40 px
    assert [data.style_sizes(scale)[0] for scale in (0.125, 0.25, 0.5, 1.0)] == [(20, 20), (40, 40), (40, 40), (40, 40)]
    larger = StyleTransferData(str(pair[0]), [Style(str(pair[1]), scale=2.0)], size=160)
    assert larger.style_sizes() == [(80, 80)]  # that is asking


def test_styles_may_keep_their_size_in_all_stages(pair):
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=64, style_size=36, style_follows=False)
    assert data.style_sizes(0.5) == data.style_sizes(1.0) == [(36, 36)]


@pytest.mark.parametrize("style_size", [16, 40, 96])
def test_the_style_size_leaves_the_content_alone(pair, style_size):
    plain = StyleTransferData(str(pair[0]), str(pair[1]), size=32)
    other = StyleTransferData(str(pair[0]), str(pair[1]), size=32, style_size=style_size)
    assert torch.equal(plain.stage_images().content, other.stage_images().content)
    assert other.stage_images().styles[0][0].shape == (1, 3, style_size, style_size)


@pytest.mark.parametrize(("init", "value"), [("white", 1.0), ("grey", 0.5)])
def test_plain_starts(pair, init, value):
    start = StyleTransferData(str(pair[0]), str(pair[1]), size=32, init=init).start_image()
    assert start.shape == (1, 3, 24, 32)
    assert (start == value).all()


def test_start_from_content_noise_and_file(pair):
    content = StyleTransferData(str(pair[0]), str(pair[1]), size=32)
    assert torch.equal(content.start_image(), content.stage_images().content)
    noise = [
        StyleTransferData(str(pair[0]), str(pair[1]), size=32, init="noise", seed=s).start_image() for s in (1, 1, 2)
    ]
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])
    assert abs(float(noise[0].mean()) - 0.5) < 0.05
    file = StyleTransferData(str(pair[0]), str(pair[1]), size=32, init=str(pair[0])).start_image()
    assert torch.equal(file, content.start_image())


@pytest.mark.parametrize("shape", [(40, 96), (90, 48)])
def test_a_start_picture_of_another_shape_is_cropped(pair, tmp_path, shape):
    """A square stays one: its middle 4:3 is taken, with a word, and nothing is stretched."""
    array = np.zeros((*shape, 3), np.uint8)
    array[shape[0] // 2 - 9 : shape[0] // 2 + 9, shape[1] // 2 - 9 : shape[1] // 2 + 9] = 255
    Image.fromarray(array).save(tmp_path / "start.png")
    data = StyleTransferData(pair[0], pair[1], size=64, init=tmp_path / "start.png")
    with pytest.warns(UserNotice, match=rf"data.init: has another shape \({shape[1]}x{shape[0]} px\) than the picture"):
        start = data.start_image()[0, 0]
    assert start.shape == (48, 64)
    across, down = (start[24] > 0.5).sum(), (start[:, 32] > 0.5).sum()
    assert abs(int(across) - int(down)) <= 1
    rows, columns = np.nonzero(start.numpy() > 0.5)
    assert abs(rows.mean() - 23.5) < 1  # the middle
    assert abs(columns.mean() - 31.5) < 1


def test_a_start_picture_may_be_rounded_to_its_pixels(pair, tmp_path):
    for size in ((32, 24), (33, 24), (100, 75), (301, 226)):
        Image.new("RGB", size).save(tmp_path / "start.png")
        StyleTransferData(pair[0], pair[1], size=32, init=tmp_path / "start.png").start_image()


@pytest.mark.parametrize(
    ("side", "scale", "expected"),
    [("long", 1.0, (16, 368)), ("long", 0.25, (16, 368)), ("short", 1.0, (20, 460)), ("short", 0.25, (16, 368))],
)
def test_a_strip_of_a_style_keeps_its_cells(pair, tmp_path, side, scale, expected):
    Image.new("RGB", (460, 20)).save(tmp_path / "strip.png")
    data = StyleTransferData(pair[0], tmp_path / "strip.png", size=64, side=side)
    assert data.style_sizes(scale) == [expected]
    asked = StyleTransferData(pair[0], Style(tmp_path / "strip.png", size=64), size=64, side="long")
    assert asked.style_sizes() == [(3, 64)]  # that was asked for, and is refused elsewhere


def test_a_tiny_style_is_enlarged_to_the_cells_that_are_needed(pair, tmp_path):
    Image.new("RGB", (9, 6)).save(tmp_path / "tiny.png")
    data = StyleTransferData(pair[0], tmp_path / "tiny.png", size=512)
    assert data.style_sizes() == data.style_sizes(0.5) == [(16, 24)]
    data.schedule([Stage(1)], 32)
    assert data.style_sizes() == [(32, 48)]


def test_images_stay_in_range_and_float32(pair):
    for resample in ("bicubic", "bilinear"):
        images = StyleTransferData(str(pair[0]), str(pair[1]), size=100, resample=resample).stage_images()
        for image in (images.content, images.styles[0][0]):
            assert image.dtype == torch.float32
            assert 0 <= float(image.min()) <= float(image.max()) <= 1


def test_alpha_of_the_content_has_the_results_size(tmp_path, pair):
    path = tmp_path / "alpha.png"
    Image.new("RGBA", (40, 20), (255, 0, 0, 128)).save(path)
    data = StyleTransferData(str(path), str(pair[1]), size=32)
    assert data.alpha().shape == (1, 1, 16, 32)
    assert float(data.alpha().mean()) == pytest.approx(128 / 255, abs=1e-3)
    assert StyleTransferData(str(pair[0]), str(pair[1])).alpha() is None


def test_the_demo_pair_has_names():
    data = StyleTransferData("demo:content", "demo:style")
    assert data.content_path == str(demo.CONTENT)
    assert data.styles[0].path == str(demo.STYLE)


def test_a_users_style_objects_are_left_alone(pair):
    style = Style("demo:style")
    StyleTransferData(str(pair[0]), [style])
    assert style.path == "demo:style"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 15}, "data.size: must be at least 16 px, got 15"),
        ({"style_size": 3}, "data.style_size: must be at least 16 px, got 3"),
        ({"side": "left"}, "data.side: must be one of long, short, got left"),
        ({"resample": "sinc"}, "data.resample: must be one of bicubic, bilinear, got sinc"),
        ({"seed": -1}, "data.seed: must be at least 0, got -1"),
        ({"content_floor": -0.1}, "data.content_floor: must be from 0 to 1, got -0.1"),
        ({"content_floor": float("nan")}, "data.content_floor: must be from 0 to 1, got nan"),
        (
            {"init": "purple"},
            "data.init: must be content, recolored, white, grey, noise or a picture file, got 'purple'",
        ),
        ({"style": []}, "data.style: must name at least one picture"),
        ({"style": [Style("x.png", weight=-1.0)]}, r"data.style\[0\].weight: must be finite and at least 0, got -1"),
        ({"style": [Style("x.png", scale=0.0)]}, r"data.style\[0\].scale: must be finite and above 0, got 0"),
        ({"style": [Style("x.png", size=15)]}, r"data.style\[0\].size: must be at least 16 px, got 15"),
        ({"style": [Style("x.png", weight=0.0)]}, "weights must not all be 0"),
    ],
)
def test_bad_options(pair, options, words):
    with pytest.raises(UserError, match=words):
        StyleTransferData(**{"content": str(pair[0]), "style": str(pair[1]), **options})


def test_the_loader_goes_on_where_it_was():
    batch = StageBatch(1, lambda: None)
    loader = EvaluationLoader(5, batch)
    iterator = iter(loader)
    assert [next(iterator), next(iterator)] == [batch, batch]
    state = loader.state_dict()
    assert state == {"position": 2}  # as in checkpoints of version 0.1.0
    resumed = EvaluationLoader(5, batch)
    resumed.load_state_dict(state)
    assert list(resumed) == [batch] * 3
    assert list(resumed) == [batch] * 5
    assert len(resumed) == 5


def test_the_loader_needs_a_trainer(pair):
    with pytest.raises(RuntimeError, match="needs a trainer"):
        StyleTransferData(str(pair[0]), str(pair[1])).train_dataloader()


class TestSizeOfTheContent:
    """``size: content``: the content's 36 x 48 px, the style's 40 x 40."""

    @pytest.mark.parametrize(("side", "length"), [("long", 48), ("short", 36)])
    def test_the_result_is_as_large_as_the_content(self, pair, side, length):
        data = StyleTransferData(str(pair[0]), str(pair[1]), size="content", side=side)
        same = StyleTransferData(str(pair[0]), str(pair[1]), size=length, side=side)
        assert data.stage_size() == same.stage_size() == (36, 48)
        assert data.stage_size(0.5) == (18, 24)
        assert data.style_sizes() == same.style_sizes()
        assert data.style_sizes(0.5) == same.style_sizes(0.5)
        with Image.open(pair[0]) as image:
            content = np.asarray(image)
        np.testing.assert_allclose(data.stage_images().content[0].permute(1, 2, 0).numpy() * 255, content, atol=1e-4)

    def test_of_an_upright_photograph(self, pair, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        with Image.open(pair[0]) as image:
            image.save(tmp_path / "turned.png", exif=exif)
        assert StyleTransferData(str(tmp_path / "turned.png"), str(pair[1]), size="content").stage_size() == (48, 36)

    def test_by_the_command_and_again_from_its_configuration(self, pair, tmp_path, monkeypatch, use_tiny_weights):
        monkeypatch.chdir(tmp_path)
        pictures = [f"--data.content={pair[0]}", f"--data.style={pair[1]}", "--data.size=content"]
        assert main(["fit", *pictures, "--model.evaluations=2", "--output=one.png"]) == 0
        configuration = next(iter(Path("runs").glob("*/config.yaml")))
        assert yaml.safe_load(configuration.read_text(encoding="utf-8"))["data"]["size"] == "content"
        assert main(["fit", f"--config={configuration}", "--output=two.png"]) == 0
        assert check_image("one.png") == check_image("two.png") == (36, 48)

    @pytest.mark.parametrize(
        ("content", "size", "message"),
        [
            (
                None,
                "content",
                "data.size: must be a number of pixels without a content, got content; give one, such as",
            ),
            (0, "big", "data.size: must be a number of pixels or content, got 'big'; give one, such as 512"),
            (0, 12.5, "data.size: must be a number of pixels or content, got 12.5; give one, such as 512"),
            ("small", "content", "data.size: the content must have 16 px, got 12; give a number of pixels"),
        ],
    )
    def test_refused(self, pair, tmp_path, content, size, message):
        Image.new("RGB", (12, 9)).save(tmp_path / "small.png")
        path = {None: None, 0: str(pair[0]), "small": str(tmp_path / "small.png")}[content]
        with pytest.raises(UserError, match=message):
            StyleTransferData(path, str(pair[1]), size=size)


def test_the_seed_of_everything_reaches_the_noise(tmp_path, monkeypatch, use_tiny_weights):
    monkeypatch.chdir(tmp_path)

    def noise(*options):
        with log.speaking([]):  # afterwards as before
            job = build(
                ["--config", str(tmp_path / "noise.yaml"), "--trainer.accelerator", "cpu", "--log", "none", *options]
            )
        job.release_folder()
        return job.data.start_image(), job.model.configuration

    pictures = "{content: 'demo:content', style: 'demo:style', size: 32, init: noise}"
    (tmp_path / "noise.yaml").write_text(f"data: {pictures}\nmodel: {{evaluations: 1}}\n", encoding="utf-8")
    default, zero, one, two = (noise(*more)[0] for more in ([], *(["--seed_everything", str(n)] for n in range(3))))
    assert default.equal(zero)
    assert not one.equal(zero)
    assert not one.equal(two)
    assert noise("--data.seed", "1")[0].equal(one)
    assert noise("--data.seed", "1", "--seed_everything", "2")[0].equal(one)  # what is given for the noise alone wins
    kept = noise("--seed_everything", "2")[1]
    (tmp_path / "noise.yaml").write_text(kept, encoding="utf-8")
    assert noise()[0].equal(two)  # the configuration repeats the run,
    assert noise("--seed_everything", "1")[0].equal(one)  # or another one of its kind
    chosen, kept = noise("--seed_everything", "true")
    (tmp_path / "noise.yaml").write_text(kept, encoding="utf-8")
    assert noise()[0].equal(chosen)
