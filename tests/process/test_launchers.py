"""Variables of launchers: who is first, and what is refused."""

from __future__ import annotations

import pytest

from nst_lightning.cli import main
from nst_lightning.errors import UserError
from nst_lightning.process.world import check_launcher, is_first

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("processes", "environment", "expected"),
    [
        (1, {}, True),
        (1, {"RANK": "3"}, True),
        (1, {"NODE_RANK": "1", "LOCAL_RANK": "2"}, True),
        (1, {"SLURM_PROCID": "2"}, True),  # srun may start any number of runs that know nothing of each other
        (2, {}, True),
        (2, {"RANK": "3"}, True),  # Lightning heeds it under torchrun alone
        (2, {"LOCAL_RANK": "1", "MASTER_PORT": "1"}, False),
        (2, {"NODE_RANK": "1"}, False),
        (2, TORCHRUN | {"RANK": "1", "LOCAL_RANK": "1"}, False),
        (2, TORCHRUN | {"RANK": "1", "LOCAL_RANK": "0"}, False),  # the first of the second machine
        (2, TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0"}, True),
        (2, {"SLURM_PROCID": "1"}, False),
    ],
)
def test_who_is_first(processes, environment, expected):
    assert is_first(processes, environment) is expected


@pytest.mark.parametrize(
    ("processes", "nodes", "environment", "expected"),
    [
        (1, 1, {}, None),
        (1, 1, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, None),
        (1, 1, {"RANK": "3", "NODE_RANK": "1"}, "RANK=3, NODE_RANK=1"),
        (2, 1, {"RANK": "3"}, "RANK=3"),
        (2, 1, TORCHRUN | {"RANK": "1", "LOCAL_RANK": "1"}, None),
        (4, 2, {"NODE_RANK": "1", "MASTER_PORT": "1"}, None),
    ],
)
def test_what_is_left_is_named(processes, nodes, environment, expected):
    assert check_launcher(processes, nodes, environment) == expected


@pytest.mark.parametrize(
    ("processes", "nodes", "environment", "words"),
    [
        (
            1,
            1,
            TORCHRUN | {"RANK": "1", "LOCAL_RANK": "1"},
            "must be as many as a launcher has started",
        ),
        (4, 2, TORCHRUN | {"RANK": "1", "LOCAL_RANK": "1"}, "WORLD_SIZE=2"),
        (2, 1, {"LOCAL_RANK": "0"}, "trainer.devices: must be 1 where LOCAL_RANK=0 is all that a launcher has set"),
        (2, 1, {"NODE_RANK": "1"}, "trainer.num_nodes: must be above NODE_RANK=1, got 1"),
    ],
)
def test_half_a_launcher_is_refused(processes, nodes, environment, words):
    with pytest.raises(UserError, match=words):
        check_launcher(processes, nodes, environment)


@pytest.mark.parametrize("name", ["RANK", "NODE_RANK", "LOCAL_RANK"])
def test_a_rank_that_something_else_left_costs_nothing(tmp_path, monkeypatch, pair, use_tiny_weights, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "3")
    pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size=48", "--model.evaluations=2"]
    logger = "--trainer.logger=[{class_path: CSVLogger, init_args: {save_dir: logs}}]"
    assert main(["fit", *pictures, "--trainer.accelerator=cpu", logger]) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["content_style_001"]
    made = {path.name for path in (tmp_path / "runs" / "content_style_001").iterdir()}
    assert made >= {"result.png", "config.yaml", "metrics.csv", "figure.png", "checkpoints"}
    assert list((tmp_path / "logs").rglob("hparams.yaml"))  # Lightning's, too
    assert f"nst: warning: {name}=3 in the environment means another program's processes" in capsys.readouterr().err
