"""A run that goes wrong is told of, and the best image it had is kept."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from nst_lightning.callbacks import Watch
from nst_lightning.engine.ledger import Ledger
from nst_lightning.errors import UserError, UserNotice
from nst_lightning.objective.objective import Evaluation


class Trainer:
    global_step = 0

    def __init__(self, *callbacks):
        self.callbacks = callbacks


class Module:
    """As much of the module as is looked at."""

    is_short_of_memory = False
    current_stage = 0
    objective = SimpleNamespace(part_groups=["style"], group_names=["style"], loss_names=["loss", "style_loss", "gram"])

    def __init__(self):
        self.image = torch.nn.Parameter(torch.zeros(1, 3, 2, 2))
        self.evaluation = None

    def settle(self):
        pass


def watch(losses, **options):
    """One stage with these losses; the image before step n is n everywhere."""
    ledger, watcher = Ledger(), Watch(every=5, **options)
    trainer, module = Trainer(watcher), Module()
    watcher.on_train_start(trainer, module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, loss in enumerate(losses):
            module.image.data.fill_(step)
            module.evaluation = Evaluation(torch.tensor(loss), torch.tensor([loss]))
            watcher.on_before_optimizer_step(trainer, module, None)
            module.image.data.fill_(step + 1)
            trainer.global_step += 1
            ledger.on_train_batch_end(trainer, module)
            watcher.on_train_batch_end(trainer, module)
        watcher.on_train_epoch_end(trainer, module)
    assert all(issubclass(w.category, UserNotice) for w in caught)
    return float(module.image.detach().flatten()[0]), [str(w.message) for w in caught]


def test_a_run_that_converges_keeps_its_last_image_and_says_nothing():
    assert watch([5 / n for n in range(1, 40)], patience=10) == (39, [])


@pytest.mark.parametrize("end", [[9.0] * 3, [math.nan] * 3, [math.inf]])
def test_a_run_that_ends_badly_goes_back_to_its_best_image(end):
    image, said = watch([5.0, 4.0, 1.0, 2.0, *end])
    assert image == 2  # whose loss was 1
    assert len(said) == 1
    assert "had 1; the image that had it is kept" in said[0]


def test_no_image_is_kept_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(Module, "is_short_of_memory", True)
    assert watch([5.0, 1.0, 9.0]) == (3, [])


def test_divergence_and_a_stall_are_told_once():
    _, said = watch([5.0, *[6.0] * 40], patience=10)
    assert [("above its start (5)" in text, "the stage ends" in text) for text in said] == [
        (True, False),
        (False, True),
    ]
    _, said = watch([5.0, *[4.0] * 60], patience=10)
    assert len(said) == 1
    assert "the loss has not fallen below 4 for 2" in said[0]


def test_losses_may_be_below_zero():
    """A term of one's own may reward something; the fractions are those of the loss' size."""
    assert watch([-1.0, -2.0, -3.0]) == (3, [])
    assert watch([-1.0, -3.0, -2.9]) == (3, [])
    image, said = watch([-1.0, -3.0, -2.0])
    assert image == 1
    assert "had -3; the image that had it is kept" in said[0]
    _, said = watch([-3.0] * 30, patience=10)
    assert ["has not fallen below -3" in line for line in said] == [True]
    assert watch([-3.0 - n / 1000 for n in range(30)], patience=10) == (30, [])


def test_a_rise_of_a_few_percent_is_no_reason_to_go_back():
    assert watch([5.0, 1.0, 1.05]) == (3, [])


def test_without_a_finite_loss_nothing_is_put_back():
    image, _ = watch([math.nan, math.nan])
    assert image == 2


def test_after_a_restart_too_the_best_image_is_that_of_the_whole_stage():
    """The losses of three and of two evaluations, in one process and in two."""
    ledger, first, second = Ledger(), Watch(), Watch()
    trainer, module, losses = Trainer(first), Module(), [5.0, 1.0, 4.0, 9.0, 9.0]
    for step, loss in enumerate(losses):
        if step == 3:
            second.load_state_dict(first.state_dict())
            trainer.callbacks = (second,)
            second.on_train_start(trainer, module)
        module.image.data.fill_(step)
        module.evaluation = Evaluation(torch.tensor(loss), torch.tensor([loss]))
        (first if step < 3 else second).on_before_optimizer_step(trainer, module, None)
        ledger.on_train_batch_end(trainer, module)
    with pytest.warns(UserNotice, match="the stage ends with loss 9 and had 1; the image that had it is kept"):
        second.on_train_epoch_end(trainer, module)
    assert torch.equal(module.image.detach(), torch.ones(1, 3, 2, 2))  # the image at step 1


def test_a_checkpoint_of_version_0_1_holds_losses_that_are_still_to_be_counted():
    watcher, trainer, module = Watch(), Trainer(), Module()
    waiting = [torch.tensor(1.0), torch.tensor(9.0)]
    kept = {"image": torch.ones(1, 3, 2, 2), "best_loss": waiting[0], "counts": [5.0, 5.0, 5.0, 0, 0]}
    watcher.load_state_dict(kept | {"losses": waiting})
    watcher.on_train_start(trainer, module)
    with pytest.warns(UserNotice, match="the stage ends with loss 9 and had 1; the image that had it is kept"):
        watcher.on_train_epoch_end(trainer, module)
    assert torch.equal(module.image.detach(), torch.ones(1, 3, 2, 2))


def test_settings_that_make_no_sense():
    with pytest.raises(UserError, match=r"watch.patience: must be at least 1, got 0"):
        Watch(patience=0)
