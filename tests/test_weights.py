"""Where weights come from, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from nst_lightning.errors import UserError
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


def test_nowhere_names_all_four_places_in_order_with_reasons(hub):
    with pytest.raises(UserError) as error:
        load_vgg19_weights()
    message = message_of(error)
    places = [
        "model.extractor.weights (not set)",
        f"{ENVIRONMENT_VARIABLE} (not set)",
        f"{hub / HUB_NAME}: no such file",
        "OSError: network is unreachable",
    ]
    positions = [message.index(place) for place in places]
    assert positions == sorted(positions)
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in message


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


@pytest.mark.parametrize("name", ["net.bin", "net"])
def test_other_suffixes_are_refused(tiny_weights, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(tiny_weights.read_bytes())
    with pytest.raises(UserError, match=f"must end in .pth, .pt or .safetensors, got {path.suffix or 'no suffix'}"):
        read_vgg19_weights(path)


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
    path = tmp_path / "net-00000000.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"must start with 00000000, got {digest[:8]}"):
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
