"""The private parts of Lightning: the version that is installed has each of them, and one file touches them."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.core import saving
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer import setup

import nst_lightning
from nst_lightning.console import quiet
from nst_lightning.engine import compat

PACKAGE = Path(nst_lightning.__file__).parent


@pytest.fixture
def trainer():
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


# What each of our functions touches, by the object that has it.
TOUCHED = {
    "has_trainer": lambda _: [(LightningModule(), "_trainer")],
    "set_root": lambda trainer: [(trainer, "_default_root_dir")],
    "renew_loops": lambda trainer: [
        (trainer.fit_loop, "_data_source"),
        (trainer.fit_loop.epoch_loop.val_loop, "_data_source"),
    ],
    "ends_early": lambda trainer: [(trainer.fit_loop, "_can_stop_early")],
    "tear_down": lambda trainer: [(trainer, "_teardown")],
    "cluster_environment": lambda trainer: [
        (trainer, "_accelerator_connector"),
        (trainer._accelerator_connector, "cluster_environment"),
    ],
    "look_at_each_evaluation": lambda _: [(EarlyStopping("loss"), "_check_on_train_epoch_end")],
    "seconds_of": lambda _: [(Timer("00:00:00:01"), "_duration")],
    "last_step_saved": lambda _: [(ModelCheckpoint(), "_last_global_step_saved")],
    "save_now": lambda _: [
        (ModelCheckpoint(), "_save_topk_checkpoint"),
        (ModelCheckpoint(), "_monitor_candidates"),
    ],
}


def private(tree):
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)}


def test_every_function_is_looked_at():
    tree = ast.parse(inspect.getsource(compat))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(functions) == set(TOUCHED)


@pytest.mark.parametrize("function", TOUCHED)
def test_lightning_has_what_we_touch(function, trainer):
    touched = TOUCHED[function](trainer)
    assert [name for owner, name in touched if not hasattr(owner, name)] == []
    names = private(ast.parse(inspect.getsource(getattr(compat, function))))
    assert names == {name for _, name in touched if name.startswith("_")}


@pytest.mark.parametrize("class_", compat.OF_A_RUN)
def test_callbacks_know_of_a_run_what_we_let_them_forget(class_):
    source = "".join(inspect.getsource(base) for base in class_.__mro__[:-1])
    assert [name for name in compat.OF_A_RUN[class_] if f"self.{name}" not in source] == []


def test_names_that_are_no_attributes():
    assert hasattr(setup, quiet._FAST_DEV_RUN)
    assert "_instantiator" in inspect.getsource(saving)  # by which a model is built from its checkpoint
    assert "_batches_that_stepped" in inspect.getsource(_TrainingEpochLoop.on_save_checkpoint)


def test_what_they_answer(trainer):
    assert not compat.has_trainer(LightningModule())
    compat.set_root(trainer, Path("elsewhere"))
    assert Path(trainer.default_root_dir).name == "elsewhere"
    compat.renew_loops(trainer, {"min_epochs": 1, "max_epochs": 7, "min_steps": 2, "max_steps": 9})
    assert (trainer.max_epochs, trainer.min_epochs, trainer.max_steps, trainer.min_steps) == (7, 1, 9, 2)
    assert not compat.ends_early(trainer)
    assert isinstance(compat.cluster_environment(trainer), LightningEnvironment)
    stopping = EarlyStopping("loss"), EarlyStopping("loss", check_on_train_epoch_end=True)
    for callback in stopping:
        compat.look_at_each_evaluation(callback)
    assert [callback._check_on_train_epoch_end for callback in stopping] == [False, True]
    assert compat.seconds_of(Timer("00:00:01:01")) == 61
    assert compat.seconds_of(Timer()) is None
    assert compat.last_step_saved(ModelCheckpoint()) == 0


def test_only_one_file_touches_them():
    names = private(ast.parse(inspect.getsource(compat)))
    touching = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if names & private(ast.parse(path.read_text(encoding="utf-8")))
    }
    foreign = re.compile(
        r"\b\w*(trainer|loop|strategy|connector|callback|environment)\._[a-z]|from lightning.* import _"
    )
    touching |= {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if foreign.search(path.read_text(encoding="utf-8"))
    }
    assert touching == {"engine/compat.py"}
