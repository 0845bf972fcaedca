"""Faces of a content stay clear: where the mask lies, what is said, and that it is the same again."""

from __future__ import annotations

import io
import math
import shutil
from importlib import metadata
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
import yaml
from helpers import picture

from nst_lightning import StyleTransferData
from nst_lightning.cli import main
from nst_lightning.data import mask_files, request
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.faces import Face, detector, ellipses, find_faces, weights
from nst_lightning.gallery.parcels import _moved
from nst_lightning.images import read_image

LEFT = Face(0.1, 0.3, 0.3, 0.7)


@pytest.fixture
def found(monkeypatch):
    """What a detector finds that stands for the real one, and the pictures that it was shown."""
    faces, shown = [LEFT], []

    def find(pixels):
        shown.append(pixels)
        return faces

    monkeypatch.setattr(mask_files, "find_faces", find)
    monkeypatch.setattr(request, "check_weights", lambda: None)
    return faces, shown


class TestEllipses:
    @pytest.mark.parametrize("size", [(60, 80), (1200, 1600), (1201, 1601)])
    def test_white_beyond_the_rectangle_and_black_far_from_it(self, size):
        mask = ellipses([LEFT], size)
        assert mask.shape == (1, 1, *size)

        def at(x, y):
            return float(mask[0, 0, round(y * size[0] - 0.5), round(x * size[1] - 0.5)])

        assert at(0.2, 0.5) == 1
        # Half a width is 0.1, half a height 0.2: cheeks, brow, chin; then ears and hair, a little beyond.
        for x, y in ((0.1, 0.48), (0.3, 0.48), (0.2, 0.3), (0.2, 0.7), (0.2, 0.25), (0.09, 0.48)):
            assert at(x, y) == pytest.approx(1, abs=0.02), (x, y)
        # Axes 0.125 and 0.26 about (0.2, 0.48); the edge ends at one and a half of them, and is one half in its middle.
        assert at(0.2 + 1.25 * 0.125, 0.48) == pytest.approx(0.5, abs=0.12)
        for x, y in ((0.4, 0.48), (0.2, 0.9), (0.2, 0.05), (0.8, 0.5)):
            assert at(x, y) == 0, (x, y)

    def test_no_border_shows(self):
        mask = ellipses([LEFT], (768, 1024))[0, 0]
        assert float(mask.diff(dim=1).abs().max()) < 0.03
        assert float(mask.diff(dim=0).abs().max()) < 0.03

    def test_two_faces_are_both_white_where_they_meet(self):
        near = Face(0.25, 0.3, 0.45, 0.7)
        both, one, other = (ellipses(faces, (90, 120)) for faces in ([LEFT, near], [LEFT], [near]))
        torch.testing.assert_close(both, torch.maximum(one, other), rtol=0, atol=0.05)
        assert float(both.max()) <= 1

    def test_a_small_face_is_not_lost_between_pixels(self):
        tiny = Face(0.500, 0.500, 0.512, 0.516)
        areas = [float(ellipses([tiny], (side, side)).mean()) for side in (16, 64, 1024)]
        assert areas == pytest.approx([areas[2]] * 3, rel=0.02)
        assert areas[2] > math.pi * 0.0075 * 0.0104

    def test_no_face_is_black(self):
        assert not ellipses([], (20, 30)).any()


class TestRequest:
    def test_a_mask_at_each_stage_of_one_look(self, pair, found):
        data = StyleTransferData(*map(str, pair), size=48, content_mask="faces", content_floor=0.1)
        assert (data.request.faces, data.request.content_mask, data.faces) == (True, None, None)
        assert data.request.inputs == list(pair)
        for scale in (1.0, 0.5):
            masks = data.masks(scale)
            torch.testing.assert_close(masks.content.pixels, ellipses([LEFT], data.stage_size(scale)))
            assert masks.floor == 0.1
        data.keep_gamut(True)
        data.masks()
        (shown,) = found[1]
        assert torch.equal(shown, read_image(pair[0]).pixels)
        assert data.faces == 1

    def test_without_a_face_it_is_as_if_none_was_asked_for(self, pair, found):
        found[0].clear()
        data = StyleTransferData(*map(str, pair), size=48, content_mask="faces")
        with pytest.warns(UserNotice, match=r"^data.content_mask: no faces in the content, which counts alike every"):
            data.setup()
        assert data.masks() is None
        assert data.faces == 0

    @pytest.mark.parametrize("name", ["./faces", Path("faces")])
    def test_a_file_of_this_name_is_reached(self, pair, found, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        shutil.copy(pair[0], "faces")
        data = StyleTransferData(*map(str, pair), size=48, content_mask=name)
        assert (data.request.faces, data.request.content_mask) == (False, "faces")
        with pytest.warns(UserNotice, match="data.content_mask: 'faces': is in colours"):
            assert data.masks() is not None
        assert (found[1], data.faces) == ([], None)

    def test_a_texture_has_no_faces(self, pair, found):
        with pytest.raises(UserError, match=r"^data.content_mask: faces are looked for in a content, got none;"):
            StyleTransferData(None, str(pair[1]), content_mask="faces")

    def test_a_parcel_takes_the_word_along(self):
        data = {"content": "a.png", "content_mask": "faces", "init": "noise", "style": [{"path": "b.png"}]}
        moved = _moved(data, "there/{}".format)
        assert moved == {**data, "content": "there/a.png", "style": [{"path": "there/b.png"}]}
        assert _moved({**data, "content_mask": "./faces"}, "there/{}".format)["content_mask"] == "there/./faces"


class TestCommand:
    @pytest.fixture
    def fit(self, place, pair, capsys):
        def run(*args, code=0):
            assert main(["fit", "--trainer.accelerator=cpu", "--log=lines", *args]) == code
            return capsys.readouterr().err

        shutil.copy(pair[0], "a.png")
        shutil.copy(pair[1], "b.png")
        return run

    def test_a_run_says_so_and_goes_on_with_the_same_mask(self, fit, found):
        pictures = ["--data.content=a.png", "--data.style=b.png", "--data.size=48"]
        said = fit(*pictures, "--data.content_mask=faces", "--model.evaluations=4", "--output=whole.png")
        assert "; 1 face to stay clear; " in said
        written = yaml.safe_load(Path("runs/a_b_001/config.yaml").read_text(encoding="utf-8"))
        assert written["data"]["content_mask"] == "faces"
        fit(*pictures, "--data.content_mask=faces", "--model.evaluations=4", "--trainer.max_steps=2")
        fit("--ckpt_path=last", "--trainer.max_steps=-1", "--output=again.png")
        assert torch.equal(read_image("again.png").pixels, read_image("whole.png").pixels)
        fit(*pictures, "--model.evaluations=4", "--output=plain.png")
        assert not torch.equal(read_image("plain.png").pixels, read_image("whole.png").pixels)

    def test_a_face_smaller_than_a_cell_ends_no_run_while_something_counts(self, fit, found):
        found[0][:] = [Face(0.5, 0.5, 0.501, 0.501)]
        asked = ["--data.content=a.png", "--data.style=b.png", "--data.content_mask=faces", "--model.evaluations=2"]
        fit(*asked, "--data.size=48")
        assert torch.isfinite(picture("runs/a_b_001")).all()
        said = fit(*asked, "--data.size=48", "--data.content_floor=0", code=2)
        assert "error: data.content_mask: faces: must leave a cell of layer " in said

    def test_without_the_extra_one_line(self, fit, monkeypatch):
        def missing(name):
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(weights.metadata, "files", missing)
        said = fit("--data.content=a.png", "--data.style=b.png", "--data.content_mask=faces", code=2)
        assert said.strip().splitlines() == [
            "nst: error: data.content_mask: faces needs the package mtcnn 1.0.0, which is not installed; "
            "pip install 'nst_lightning[faces]'"
        ]
        assert not Path("runs").exists()


def test_other_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "mtcnn/assets/weights").mkdir(parents=True)
    (tmp_path / "mtcnn/assets/weights/pnet.lz4").write_bytes(b"other")
    (tmp_path / "mtcnn-9.0.dist-info").mkdir()
    (tmp_path / "mtcnn-9.0.dist-info/METADATA").write_text("Name: mtcnn\nVersion: 9.0\n")
    (tmp_path / "mtcnn-9.0.dist-info/RECORD").write_text("mtcnn/assets/weights/pnet.lz4,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"needs the package mtcnn 1\.0\.0, got 9\.0 with other weights; pip install"):
        weights.check_weights()


def test_arrays_are_taken_from_between_the_opcodes(tmp_path, monkeypatch):
    """A stream as joblib writes it: the stand-in's state, a byte that says how far the array's own bytes are away."""
    first, second = np.arange(6, dtype=np.float32), np.float32([7, 8])
    state = b"}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00bK\x02ub"
    stream = io.BytesIO()
    for array, pad in ((first, 3), (second, 0)):
        stream.write(b"N" + state + bytes([pad]) + b"\xff" * pad + array.tobytes())
    stream.write(b".")
    file = tmp_path / "net.lz4"
    file.write_bytes(imagecodecs.lz4f_encode(stream.getvalue()))
    monkeypatch.setattr(weights, "weights_file", lambda network: file)
    arrays = weights.read_weights("pnet", [(2, 3), (2,)])
    assert [array.tolist() for array in arrays] == [[[0, 1, 2], [3, 4, 5]], [7, 8]]


@pytest.fixture
def installed():
    try:
        weights.check_weights()
    except UserError as error:
        pytest.skip(str(error))


class TestDetector:
    def test_nothing_is_found_in_patterns(self, installed):
        tiles = (torch.arange(300)[:, None] // 25 + torch.arange(400)[None] // 25) % 2
        assert find_faces(tiles.float().expand(1, 3, -1, -1)) == []
        assert find_faces(torch.rand(1, 3, 200, 300)) == []
        assert find_faces(torch.full((1, 3, 9, 2000), 0.5)) == []

    def test_a_portrait(self, installed):
        try:
            files = metadata.files("scikit-image") or []
        except metadata.PackageNotFoundError:
            files = []
        paths = [Path(str(file.locate())) for file in files if file.as_posix() == "skimage/data/astronaut.png"]
        if not paths:
            pytest.skip("scikit-image, which has a portrait, is not installed")
        pixels = read_image(paths[0]).pixels
        ((face, score),) = detector.scored_faces(pixels)
        assert score > 0.99
        assert np.allclose(face, (0.354, 0.119, 0.523, 0.340), atol=0.02)  # brow to chin, as one sees
        ((mirrored, _),) = detector.scored_faces(pixels.flip(3))
        assert mirrored.left == pytest.approx(1 - face.right, abs=0.03)
