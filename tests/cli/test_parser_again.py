"""A parser that has done its work reads the next command line as a new one would."""

from __future__ import annotations

import pytest

from nst_lightning.config.options import FitCLI
from nst_lightning.errors import UserError

LINES = [
    ["--config", "fast", "--data.size", "64"],
    ["--config", "gatys", "--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.02"],
    ["--config", "painterly", "--model.extractor.pooling", "average"],
    ["--model.stages", "[{evaluations: 3, scale: 0.5}, {evaluations: 2}]", "--seed_everything", "7"],
    ["--trainer.callbacks", "[Averaging]", "--output", "x.png"],
    ["--model.optimizer", "nst_lightning.optim.LBFGS", "--model.optimizer.history_size", "5"],
    [],
]


def read(line, spare=None):
    cli = FitCLI([*line, "--data.content", "a.jpg", "--data.style", "b.jpg"], spare)
    text = cli.parser.dump(cli.config)
    cli.give_back_parser()
    return text


def test_one_after_the_other():
    fresh, spare = [read(line) for line in LINES], []
    assert len(set(fresh)) == len(LINES)
    for line, text in [*zip(LINES, fresh, strict=True), *zip(LINES[::-1], fresh[::-1], strict=True)]:
        assert read(line, spare) == text


def test_it_is_the_same_one():
    spare = []
    read(LINES[0], spare)
    (kept,) = spare
    for line in LINES:
        read(line, spare)
        assert spare == [kept]


def test_one_that_found_a_mistake_is_not_used_again():
    spare = []
    read(LINES[0], spare)
    with pytest.raises(UserError):
        FitCLI(["--data.sise", "7"], spare)
    assert spare == []
