"""A request is resolved once, and the trainer is handed its stages."""

from __future__ import annotations

import functools
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from nst_lightning import Stage, Style, StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.config.build import build
from nst_lightning.features import VGG19

STAGES = [Stage(2, scale=0.5), Stage(3)]


def test_what_is_asked_for_is_resolved(pair):
    content, style = map(str, pair)
    styles = [Style(style, weight=3.0, scale=0.5, mask=content), Style(content, weight=2.0)]
    request = StyleTransferData(
        content, styles, size="content", side="short", init="noise", content_mask=content
    ).request
    assert (request.size, request.seed, request.content_shape, request.style_shapes) == (
        36,
        0,
        (36, 48),
        ((40, 40), (36, 48)),
    )
    assert (request.shares, request.regions) == ([1.0, 1.0], 2)
    assert (request.stage_size(0.5), request.style_sizes(0.5)) == ((18, 24), [(16, 16), (18, 24)])
    assert request.files == {
        "data.content": content,
        "data.style[0].path": style,
        "data.style[0].mask": content,
        "data.style[1].path": content,
        "data.content_mask": content,
    }
    with pytest.raises(FrozenInstanceError):
        request.size = 64


def test_a_word_is_no_file_that_is_read(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("noise").write_bytes(b"something else")
    assert StyleTransferData(*map(str, pair), init="noise").request.inputs == list(pair)


def test_the_data_module_needs_no_model_to_know_its_stages(pair):
    data = StyleTransferData(*map(str, pair), size=32)
    data.schedule(STAGES, 24)
    assert data.request.least_style_side == 24
    for epoch, (stage, length) in enumerate([(0, 2), (1, 3), (1, 3)]):
        data.trainer = SimpleNamespace(current_epoch=epoch)
        batches = list(data.train_dataloader())
        assert [batch.stage for batch in batches] == [stage] * length
        images, expected = batches[0].images(), data.stage_images(STAGES[stage].scale)
        assert torch.equal(images.content, expected.content)
        assert torch.equal(images.styles[0][0], expected.styles[0][0])


class Watcher(Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_all_evaluations_of_a_stage_are_given_one_object(pair, tiny_weights, precision):
    """Which holds no tensor, so nothing is moved or converted between them."""
    watcher = Watcher()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = StyleTrainer(accelerator="cpu", precision=precision, max_epochs=-1, callbacks=[watcher], **quiet)
    model = StyleTransfer(stages=STAGES, extractor=VGG19(str(tiny_weights)))
    trainer.fit(model, datamodule=StyleTransferData(*map(str, pair), size=48))
    assert [batch.stage for batch in watcher.batches] == [0, 0, 1, 1, 1]
    assert len(set(map(id, watcher.batches))) == len(STAGES)
    assert not any(isinstance(value, torch.Tensor) for batch in watcher.batches for value in vars(batch).values())


def test_the_command_builds_the_data_once(pair, tmp_path, monkeypatch, use_tiny_weights):
    monkeypatch.chdir(tmp_path)
    built, init = [], StyleTransferData.__init__

    @functools.wraps(init)
    def counted(self, *args, **kwargs):
        built.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(StyleTransferData, "__init__", counted)
    job = build(["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--log=none"])
    job.release_folder()
    assert built == [job.data]
