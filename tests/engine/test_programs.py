"""Use from programs and notebooks: what a signal does there, and what one Trainer does with several pictures."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import weakref

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from processstate import resident, state

from nst_lightning import StyleTrainer, StyleTransfer, StyleTransferData
from nst_lightning.callbacks import (
    Averaging,
    Checkpoints,
    Export,
    Faults,
    Figure,
    Metrics,
    Progress,
    Signals,
    Snapshots,
    Watch,
)
from nst_lightning.cli import main
from nst_lightning.data.schedule import Stage
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19
from nst_lightning.images import read_image
from nst_lightning.losses import Content, Gram, Histogram, SlicedWasserstein
from nst_lightning.runs.checkpoint import WholeFiles, read_checkpoint

QUIET = {
    "accelerator": "cpu",
    "precision": "32-true",
    "max_epochs": -1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Raise(Callback):
    """Send signals to this process, or raise, at an evaluation."""

    def __init__(self, *numbers, at=3, error=None):
        self.numbers, self.at, self.error, self.seen = numbers, at, error, 0

    def on_train_batch_start(self, trainer, *_):
        self.seen = trainer.global_step + 1
        if self.seen == self.at:
            for number in self.numbers:
                signal.raise_signal(number)
            if self.error is not None:
                raise self.error


@pytest.fixture
def handlers(monkeypatch):
    """Handlers as a program has them, put back afterwards; nothing ends the process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def ended(code):
        raise AssertionError(f"the process was ended with {code}")

    monkeypatch.setattr(os, "_exit", ended)
    yield lambda: {number: signal.getsignal(number) for number in signal.valid_signals()}
    for number, handler in before.items():
        signal.signal(number, handler)


def make(pair, evaluations=8, size=32, **more):
    data = StyleTransferData(str(pair[0]), str(pair[1]), size=size, **more)
    return StyleTransfer(evaluations=evaluations, extractor=VGG19()), data


def fit_once(kind, pair, place, *callbacks, **more):
    """A run of eight evaluations with a Trainer and Signals."""
    model, data = make(pair)
    own = [Signals(), Export(), Metrics(), Checkpoints(every=100), *callbacks]
    trainer = kind(callbacks=own, plugins=[WholeFiles()], default_root_dir=place, **{**QUIET, **more})
    trainer.fit(model, datamodule=data)
    return trainer


def rows(folder):
    return len((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()) - 1


# Signals


@pytest.mark.parametrize("kind", [Trainer, StyleTrainer])
def test_one_interrupt_ends_a_loop_when_everything_is_written(kind, pair, place, handlers):
    before, runs = handlers(), []
    with pytest.raises(KeyboardInterrupt):
        for name in ("a", "b"):
            runs.append(name)
            fit_once(kind, pair, place / name, Raise(signal.SIGINT))
    assert runs == ["a"]
    assert handlers() == before
    assert read_image(place / "a" / "result.png").pixels.shape[0] == 1
    assert rows(place / "a") == 3
    assert read_checkpoint(place / "a" / "checkpoints" / "000003.ckpt")["global_step"] == 3
    assert len(fit_once(kind, pair, place / "b").callbacks) >= 4  # the next run is whole again
    assert rows(place / "b") == 8


@pytest.mark.parametrize("kind", [Trainer, StyleTrainer])
def test_the_second_interrupt_stops_at_once_and_ends_no_process(kind, pair, place, handlers):
    before = handlers()
    look = Raise(signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit_once(kind, pair, place, look)
    assert look.seen == 3
    assert handlers() == before
    assert rows(place) == 2  # of the evaluations before
    assert (place / "result.png").is_file()


@pytest.mark.parametrize("kind", [Trainer, StyleTrainer])
def test_sigterm_ends_a_program_in_good_order(kind, pair, place, handlers):
    before = handlers()
    with pytest.raises(SystemExit) as ended:
        fit_once(kind, pair, place, Raise(signal.SIGTERM))
    assert ended.value.code == 143
    assert handlers() == before
    assert rows(place) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", [Trainer, StyleTrainer])
def test_a_handler_of_the_program_is_called_after_the_run(kind, number, pair, place, handlers):
    told = []

    def mine(got, _):
        told.append((got, (place / "result.png").is_file()))

    signal.signal(number, mine)
    trainer = fit_once(kind, pair, place, Raise(number))
    assert told[-1] == (number, True)
    assert trainer.global_step == 3
    assert signal.getsignal(number) is mine


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_program_ignores_does_not_end_a_run(number, pair, place, handlers):
    signal.signal(number, signal.SIG_IGN)
    trainer = fit_once(StyleTrainer, pair, place, Raise(number, number))
    assert trainer.global_step == 8
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_least_number_of_steps_does_not_hold_against_a_signal(pair, place, handlers):
    with pytest.raises(KeyboardInterrupt):
        fit_once(StyleTrainer, pair, place, Raise(signal.SIGINT), min_steps=7)
    assert rows(place) == 3


@pytest.mark.parametrize("kind", [Trainer, StyleTrainer])
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_handlers_after_an_error_in_a_callback(kind, error, pair, place, handlers):
    before = handlers()
    # Lightning's own Trainer makes exit code 1 of what is no signal.
    expected = SystemExit if kind is Trainer and isinstance(error, KeyboardInterrupt) else type(error)
    with pytest.raises(expected):
        fit_once(kind, pair, place, Raise(error=error))
    assert handlers() == before
    assert rows(place) == 2


def test_handlers_after_an_error_while_an_error_is_dealt_with(pair, place, handlers):
    class Fails(Callback):
        def on_exception(self, *_):
            raise RuntimeError("once more")

    before = handlers()
    with pytest.raises(RuntimeError, match="once more"):
        fit_once(StyleTrainer, pair, place, Fails(), Raise(error=ValueError("first")))
    assert handlers() == before


def test_an_interrupt_before_the_first_evaluation(pair, place, handlers, monkeypatch):
    before = handlers()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(StyleTransferData, "start_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_once(StyleTrainer, pair, place)
    assert handlers() == before
    with pytest.raises(KeyboardInterrupt):
        main([*arguments(pair), "--model.evaluations", "3"])
    assert handlers() == before
    assert not (place / "runs").exists()


def test_a_run_in_another_thread_leaves_signals_alone(pair, place, handlers):
    before, made = handlers(), []
    thread = threading.Thread(target=lambda: made.append(fit_once(StyleTrainer, pair, place).global_step))
    thread.start()
    thread.join()
    assert made == [8]
    assert handlers() == before


def arguments(pair):
    command = ["fit", "--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size", "32"]
    return [*command, "--trainer.accelerator", "cpu"]


class InterruptMe(Raise):
    """For a command line."""

    def __init__(self):
        super().__init__(signal.SIGINT, at=2)


class TerminateMe(Raise):
    """For a command line."""

    def __init__(self):
        super().__init__(signal.SIGTERM, at=2)


class InterruptMeTwice(Raise):
    """For a command line."""

    def __init__(self):
        super().__init__(signal.SIGINT, signal.SIGINT, at=2)


@pytest.mark.parametrize(
    ("callback", "error"),
    [(InterruptMe, KeyboardInterrupt), (InterruptMeTwice, KeyboardInterrupt), (TerminateMe, SystemExit)],
)
def test_the_command_within_a_program(callback, error, pair, place, handlers):
    before, runs = handlers(), 0
    listed = f"[{{class_path: {callback.__module__}.{callback.__name__}}}]"
    with pytest.raises(error) as ended:
        for _ in range(2):
            runs += 1
            main([*arguments(pair), "--model.evaluations", "5", f"--trainer.callbacks={listed}"])
    assert runs == 1
    assert error is not SystemExit or ended.value.code == 143
    assert handlers() == before
    (result,) = place.glob("runs/*/result.png")
    assert rows(result.parent) == (1 if callback is InterruptMeTwice else 2)


# One Trainer for several pictures


def new_trainer(place, *callbacks, kind=StyleTrainer, **more):
    return kind(callbacks=list(callbacks), default_root_dir=place, **{**QUIET, "enable_checkpointing": False, **more})


@pytest.fixture
def pairs(pair):
    return pair, pair[::-1]


STAGES = [Stage(3, 0.7), Stage(4)]


def model_of(case):
    return {
        "plain": lambda: StyleTransfer(evaluations=5, extractor=VGG19()),
        "stages": lambda: StyleTransfer(stages=STAGES, extractor=VGG19()),
        "default stages": lambda: StyleTransfer(extractor=VGG19(), optimizer=adam),
        "adam": lambda: StyleTransfer(evaluations=5, extractor=VGG19(), optimizer=adam),
        "other terms": lambda: StyleTransfer(
            evaluations=4,
            extractor=VGG19(unit_activations=True),
            terms=[Content(["relu4_2"]), Gram(["relu1_1"]), SlicedWasserstein(["relu2_1"]), Histogram(["relu3_1"])],
        ),
        "unit activations, narrow": lambda: StyleTransfer(
            evaluations=4, extractor=CompactVGG19("narrow", unit_activations=True)
        ),
        "tiles": lambda: StyleTransfer(evaluations=3, extractor=VGG19(), tile=64),
    }[case]()


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


def data_of(pair, **more):
    return StyleTransferData(str(pair[0]), str(pair[1]), **{"size": 48, "color": "luminance", **more})


@pytest.mark.parametrize("kind", [Trainer, StyleTrainer])
@pytest.mark.parametrize("case", ["plain", "stages", "adam", "other terms"])
def test_each_fit_of_one_trainer_is_bitwise_that_of_a_new_one(kind, case, pairs, place):
    expected = []
    for number, pair in enumerate(pairs):
        model = model_of(case)
        new_trainer(place / str(number), kind=kind).fit(model, datamodule=data_of(pair))
        expected.append(model.picture())
    assert not torch.equal(expected[0], expected[1])
    trainer = new_trainer(place / "one", kind=kind)
    models = [model_of(case) for _ in pairs]
    for model, pair in zip(models, pairs, strict=True):
        trainer.fit(model, datamodule=data_of(pair))
        assert trainer.global_step == model.total_evaluations
    # Looked at when all is over: each model keeps the colours of its own content.
    for model, picture in zip(models, expected, strict=True):
        assert torch.equal(model.picture(), picture)
        assert torch.equal(model.final_picture(), picture)


@pytest.mark.parametrize("case", ["plain", "stages", "other terms", "unit activations, narrow", "tiles"])
def test_one_model_for_several_pictures(case, pairs, place):
    size = 128 if case == "tiles" else 48
    datas = [data_of(pair, size=size) for pair in (*pairs, pairs[0])]
    expected = []
    for data in datas[:2]:
        model = model_of(case)
        new_trainer(place).fit(model, datamodule=data)
        expected.append(model.picture())
    model, trainer = model_of(case), new_trainer(place)
    for data, picture in zip(datas, [*expected, expected[0]], strict=True):
        trainer.fit(model, datamodule=data)
        assert torch.equal(model.picture(), picture)


def test_one_extractor_for_several_models_and_precisions(pairs, place):
    shared = VGG19()
    pictures = []
    for precision in ("32-true", "bf16-mixed", "32-true"):
        model = StyleTransfer(evaluations=4, extractor=shared)
        new_trainer(place, precision=precision).fit(model, datamodule=data_of(pairs[0]))
        pictures.append(model.picture())
    assert torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pictures[0], pictures[1])


def test_stages_differ_from_fit_to_fit(pairs, place):
    """The first fit's number of stages is not the second one's limit."""
    trainer, done = new_trainer(place), []
    for stages in ([Stage(2)], [Stage(2, 0.6), Stage(1, 0.75), Stage(3)], [Stage(1)]):
        model = StyleTransfer(stages=stages, extractor=VGG19())
        trainer.fit(model, datamodule=data_of(pairs[0]))
        done.append((trainer.global_step, trainer.current_epoch))
    assert done == [(2, 1), (6, 3), (1, 1)]


@pytest.mark.parametrize(("limit", "expected"), [({"max_steps": 4}, 4), ({"max_epochs": 1}, 3)])
def test_limits_of_a_trainer_hold_for_each_fit(limit, expected, pairs, place):
    trainer, done = new_trainer(place, **limit), []
    for pair in pairs:
        trainer.fit(StyleTransfer(stages=STAGES, extractor=VGG19()), datamodule=data_of(pair))
        done.append(trainer.global_step)
    assert done == [expected, expected]
    trainer.fit_loop.max_epochs = -1  # as programs do between two fits
    trainer.fit_loop.epoch_loop.max_steps = 5
    trainer.fit(StyleTransfer(stages=STAGES, extractor=VGG19()), datamodule=data_of(pairs[0]))
    assert trainer.global_step == 5


def test_a_fit_after_one_that_was_cut_short(pairs, place, handlers):
    """By an error in the middle of a stage, and by a signal."""
    expected = model_of("plain")
    new_trainer(place).fit(expected, datamodule=data_of(pairs[1]))
    watch, averaging = Watch(), Averaging()
    new_trainer(place, Averaging()).fit(averaged := model_of("plain"), datamodule=data_of(pairs[1]))
    for trouble, error in ((Raise(error=ValueError("x")), ValueError), (Raise(signal.SIGINT), KeyboardInterrupt)):
        for callback, right in ((watch, expected), (averaging, averaged)):
            trouble.at, trainer = 3, new_trainer(place, Signals(), callback, trouble)
            with pytest.raises(error):
                trainer.fit(model_of("plain"), datamodule=data_of(pairs[0]))
            trouble.at, model = 0, model_of("plain")
            trainer.fit(model, datamodule=data_of(pairs[1]))
            assert torch.equal(model.picture(), right.picture())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_going_on_after_a_fit_takes_the_counts_of_the_checkpoint(pairs, place):
    whole = model_of("stages")
    new_trainer(place / "whole", Checkpoints(every=2), enable_checkpointing=True).fit(
        whole, datamodule=data_of(pairs[0])
    )
    trainer = new_trainer(place / "one")
    trainer.fit(model_of("plain"), datamodule=data_of(pairs[1]))
    for step in (6, 2):
        checkpoint = place / "whole" / "checkpoints" / f"{step:06d}.ckpt"
        if not checkpoint.is_file():
            continue
        model, counted = model_of("stages"), Raise(at=0)
        trainer.callbacks.append(counted)
        trainer.fit(model, datamodule=data_of(pairs[0]), ckpt_path=checkpoint)
        assert trainer.global_step == 7
        assert torch.equal(model.picture(), whole.picture())
    trainer.fit(again := model_of("plain"), datamodule=data_of(pairs[1]))  # and anew after that
    assert trainer.global_step == 5
    new_trainer(place / "two").fit(expected := model_of("plain"), datamodule=data_of(pairs[1]))
    assert torch.equal(again.picture(), expected.picture())


def test_callbacks_do_not_mix_pictures(pairs, place, monkeypatch):
    ticks = itertools.count()  # a clock that goes on with every look at it
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))

    def all_of_them():
        return [
            *(Progress(1), Metrics(1), Faults(1), Watch(1), Snapshots(2), Export(), Figure()),
            *(Averaging(), Checkpoints(every=2, keep=2), Signals()),
        ]

    options = {"enable_checkpointing": True, "enable_progress_bar": True, "plugins": [WholeFiles()]}
    cases = ["stages", "other terms"]
    for number, (pair, case) in enumerate(zip(pairs, cases, strict=True)):
        new_trainer(place / f"new{number}", *all_of_them(), **options).fit(model_of(case), datamodule=data_of(pair))
    trainer = new_trainer(place / "one", *all_of_them(), **options)
    for pair, case in zip(pairs, cases, strict=True):
        trainer.fit(model_of(case), datamodule=data_of(pair))
    for new, one in ((place / "new0", place / "one"), (place / "new1", place / "one" / "fit_002")):
        files = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
        found = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
        assert files == {path for path in found if path.parts[0] != "fit_002"}
        for name in files:
            if name.suffix == ".png":
                assert torch.equal(read_image(new / name).pixels, read_image(one / name).pixels), name
        assert (new / "metrics.csv").read_bytes() == (one / "metrics.csv").read_bytes()


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_lightning_s_callbacks_begin_anew_too(pairs, place):
    def observed(trainer):
        (stopping,) = trainer.early_stopping_callbacks
        (saving,) = trainer.checkpoint_callbacks
        (timer,) = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
        assert 0 <= timer.time_elapsed() < 60
        return float(stopping.best_score), stopping.wait_count, float(saving.best_model_score)

    def callbacks(folder):
        saving = ModelCheckpoint(folder, monitor="loss", save_on_train_epoch_end=True)
        return EarlyStopping("loss", patience=1, check_on_train_epoch_end=True), saving, Timer("00:01:00:00")

    options = {"enable_checkpointing": True, "plugins": [WholeFiles()]}
    expected = []
    for number, pair in enumerate(pairs):
        trainer = new_trainer(place, *callbacks(place / f"new{number}"), **options)
        trainer.fit(model_of("stages"), datamodule=data_of(pair))
        expected.append(observed(trainer))
    trainer = new_trainer(place, *callbacks(place / "one"), **options)
    for pair, right in zip(pairs, expected, strict=True):
        trainer.fit(model_of("stages"), datamodule=data_of(pair))
        assert observed(trainer) == right
        assert trainer.global_step == 7


def test_there_is_no_picture_before_a_fit(pair, place):
    model, data = make(pair)
    for look in (model.picture, model.final_picture):
        with pytest.raises(UserError, match=r"^picture: needs a fit, got none yet; call trainer\.fit"):
            look()
    new_trainer(place).fit(model, datamodule=data)
    assert model.picture().shape == (1, 3, 24, 32)


# What runs leave behind


@pytest.mark.parametrize("way", ["command", Trainer, StyleTrainer])
@pytest.mark.parametrize("runs", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_runs_leave_the_process_as_it_was(way, runs, pair, place):
    gc.unfreeze()  # what was there when tests were collected, or the heap's end would not be handed back
    models, sizes, before = [], [], None
    for number in range(runs + 1):
        if way == "command":
            assert main([*arguments(pair), "--model.evaluations", "3", "--trainer.deterministic", "true"]) == 0
        else:
            model, data = make(pair, evaluations=3)
            callbacks = [Signals(), Export(), Metrics(), Snapshots(1), Figure(), Watch(), Checkpoints(every=2)]
            trainer = new_trainer(place / str(number), *callbacks, kind=way, enable_checkpointing=True)
            trainer.fit(model, datamodule=data)
            models += [weakref.ref(thing) for thing in (model, model.image, trainer, data, *callbacks)]
            del model, data, trainer, callbacks
        before = before or state()  # the first run imports what it needs
        sizes.append(resident())
    assert state() == before
    assert [ref() for ref in models if ref() is not None] == []
    if runs >= 10:
        assert sizes[-1] - sizes[0] < (runs * 2**20 if sizes[0] else 1)


def test_a_first_run_leaves_the_process_as_it_was(pair, place):
    before = state()
    assert main([*arguments(pair), "--model.evaluations", "1", "--seed_everything", "5"]) == 0
    assert state() == before
