"""The average of the last images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nst_lightning.callbacks import Averaging
from nst_lightning.cli import main
from nst_lightning.errors import UserError
from nst_lightning.images import read_image


def fed(images, decay=0.8):
    callback, module = Averaging(decay), SimpleNamespace(image=torch.zeros(1, 3, 2, 2), went_back=False)
    for value in images:
        module.image = torch.full((1, 3, 2, 2), value, dtype=torch.float64)
        callback.on_train_batch_end(None, module)
    return callback, module


def test_weights_by_hand():
    """Of 1, 2 and 4 with a decay of 0.8: weights 0.128, 0.16 and 0.2 over their sum, 0.488."""
    callback, module = fed([1.0, 2.0, 4.0])
    expected = (0.128 * 1 + 0.16 * 2 + 0.2 * 4) / 0.488
    torch.testing.assert_close(callback.average(), torch.full((1, 3, 2, 2), expected, dtype=torch.float64))
    assert float(module.image[0, 0, 0, 0]) == 4  # what is optimised is not touched
    callback.on_train_epoch_end(SimpleNamespace(callbacks=[]), module)
    assert float(module.image[0, 0, 0, 0]) == pytest.approx(expected)
    assert callback.average() is None  # the next stage begins anew


def test_a_constant_image_is_its_own_average():
    callback, _ = fed([0.3] * 4, 0.99)
    torch.testing.assert_close(callback.average(), torch.full((1, 3, 2, 2), 0.3, dtype=torch.float64))


def test_no_decay_is_the_last_image():
    callback, _ = fed([1.0, 5.0], 0.0)
    assert float(callback.average().mean()) == 5


def test_decay_is_checked():
    with pytest.raises(UserError, match=r"averaging\.decay: must be at least 0 and below 1, got 1"):
        Averaging(1.0)


def test_a_broken_run_ends_as_a_whole_one(pair, tmp_path, monkeypatch, use_tiny_weights):
    """With Adam, stopped and continued in the middle of a stage."""
    monkeypatch.chdir(tmp_path)
    common = ["fit", "--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "48"]
    common += ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.02", "--trainer.accelerator", "cpu"]
    common += ["--model.stages", "[{evaluations: 5, scale: 0.6}, {evaluations: 7}]", "--checkpoint_every", "1"]
    averaged = ["--trainer.callbacks", "[{class_path: nst_lightning.callbacks.Averaging, init_args: {decay: 0.7}}]"]
    assert main([*common, "--output", "plain.png", "--trainer.default_root_dir", "a"]) == 0
    assert main([*common, *averaged, "--output", "whole.png", "--trainer.default_root_dir", "b"]) == 0
    part = ["--trainer.max_steps", "8", "--output", "part.png", "--trainer.default_root_dir", "c"]
    assert main([*common, *averaged, *part]) == 0
    rest = ["--trainer.max_steps", "-1", "--output", "rest.png", "--trainer.default_root_dir", "c"]
    assert main(["fit", "--ckpt_path", "last", *rest]) == 0
    pictures = {name: read_image(f"{name}.png").pixels for name in ("plain", "whole", "rest")}
    assert torch.equal(pictures["whole"], pictures["rest"])
    assert not torch.equal(pictures["whole"], pictures["plain"])


def test_a_stage_that_went_astray_keeps_its_best_image():
    callback, module = fed([1.0, 2.0])
    module.went_back = True
    callback.on_train_epoch_end(None, module)
    assert float(module.image[0, 0, 0, 0]) == 2
    assert callback.average() is None
    callback, module = fed([1.0, 2.0])
    callback.on_train_epoch_end(None, module)
    assert float(module.image[0, 0, 0, 0]) < 2
