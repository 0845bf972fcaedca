"""Losses stay on the device, and are read once for all callbacks."""

from __future__ import annotations

import csv
import gc

import pytest
import torch
from helpers import QUIET
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Faults, Logs, Metrics, Progress, Snapshots, Watch
from nst_lightning.engine.ledger import Ledger, Reader, Row
from nst_lightning.features import VGG19


@pytest.fixture
def reads(monkeypatch):
    """Names of all ways in which the host has read a tensor."""
    done = []

    def counted(name, genuine):
        def read(*args, **kwargs):
            done.append(name)
            return genuine(*args, **kwargs)

        return read

    for name in ("tolist", "item", "cpu", "numpy", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    return done


@pytest.fixture
def fit(tiny_weights, pair, tmp_path):
    def run(*callbacks, evaluations=100, **options):
        settings = {"default_root_dir": str(tmp_path), "callbacks": list(callbacks), **QUIET, **options}
        module = StyleTransfer(evaluations, extractor=VGG19(str(tiny_weights)))
        trainer = Trainer(**settings)
        trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=32))
        return trainer

    return run


class Rows(Reader):
    def __init__(self, every):
        super().__init__(every)
        self.steps, self.losses = [], []

    def take(self, trainer, module, rows):
        self.steps.append([row.step for row in rows])
        self.losses += [row.losses["loss"] for row in rows]


def test_all_callbacks_together_read_far_less_often_than_there_are_evaluations(fit, reads, tmp_path):
    fit()
    alone = len(reads)
    reads.clear()
    logger = CSVLogger(tmp_path, name="", version="logs")
    callbacks = [Progress(), Metrics(), Faults(), Watch(), Logs(picture_every=0)]
    fit(*callbacks, logger=logger, log_every_n_steps=1, enable_progress_bar=True)
    print(f"{len(reads) - alone} reads by callbacks, {alone} by the rest")
    assert len(reads) - alone <= 20
    for path in (tmp_path / "metrics.csv", tmp_path / "logs" / "metrics.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 101))


def test_one_read_is_for_all_readers(fit, reads):
    fit()
    alone = len(reads)
    reads.clear()
    often, seldom = Rows(10), Rows(100)
    fit(often, seldom)
    assert len(reads) - alone == 10
    assert often.steps[:-1] == [list(range(n + 1, n + 11)) for n in range(0, 100, 10)]
    assert seldom.steps[0] == list(range(1, 101))
    assert often.losses == seldom.losses


def test_readers_know_the_evaluation_that_a_callback_before_them_saves(fit, tmp_path):
    """Wherever they come in the list."""
    late = Rows(100)
    fit(Snapshots(3, checkpoint=True), late, evaluations=7)
    assert late.steps == [[1, 2, 3], [4, 5, 6], [7]]


def test_what_nobody_waits_for_is_forgotten(fit):
    class Count(Callback):
        most = 0

        def on_train_batch_end(self, *_):
            gc.collect()
            self.most = max(self.most, sum(type(thing) is Row for thing in gc.get_objects()))

    class Blind(Reader):
        def take(self, *_):
            pass

    for readers in ([], [Blind(2)], [Blind(2), Rows(3)]):
        count = Count()
        trainer = fit(*readers, count, evaluations=8)
        assert count.most <= 3
        (ledger,) = (callback for callback in trainer.callbacks if isinstance(callback, Ledger))
        assert not ledger._unread
