"""A parser that has done its work reads the next command line as a new one would."""

from __future__ import annotations

import pytest

from nst_lightning.config import options
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


def read(line):
    cli = FitCLI([*line, "--data.content", "a.jpg", "--data.style", "b.jpg"])
    text = cli.parser.dump(cli.config)
    cli.give_back_parser()
    return text


@pytest.fixture(autouse=True)
def no_spare_parser():
    """Each test begins with a new parser, and leaves none."""
    options._spare.clear()
    yield
    options._spare.clear()


def test_one_after_the_other():
    fresh = []
    for line in LINES:
        options._spare.clear()
        fresh.append(read(line))
    assert len(set(fresh)) == len(LINES)
    options._spare.clear()
    for line, text in [*zip(LINES, fresh, strict=True), *zip(LINES[::-1], fresh[::-1], strict=True)]:
        assert read(line) == text


def test_it_is_the_same_one_unless_its_defaults_have_changed():
    read(LINES[0])
    (kept,) = options._spare
    read(LINES[2])
    assert options._spare == [kept]
    read(LINES[1])  # another optimiser's arguments are defaults now
    assert options._spare == []


def test_one_that_found_a_mistake_is_not_used_again():
    read(LINES[0])
    with pytest.raises(UserError):
        FitCLI(["--data.sise", "7"])
    assert options._spare == []
