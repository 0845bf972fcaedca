"""Every callback, logger, profiler, optimiser, scheduler and trainer flag there is: it has its effect, or is refused.

`pytest -s tests/engine/test_stock_parts.py` ends with the table of all of them. A name that a package exports
and no table here holds fails, so that a new one is noticed.
"""

from __future__ import annotations

import csv
import importlib.util
import inspect
import re
import warnings
from datetime import timedelta

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import lightning.pytorch.profilers
import pytest
import torch
from helpers import QUIET
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from torch.optim import lr_scheduler

from nst_lightning import StyleTransfer, StyleTransferData
from nst_lightning.callbacks import Checkpoints
from nst_lightning.cli import main
from nst_lightning.data.schedule import Stage
from nst_lightning.engine.loggers import Logs, one_evaluation, show
from nst_lightning.engine.refusals import CALLBACKS, FLAGS, OPTIMIZERS, check_callbacks, check_flags, check_plugins
from nst_lightning.engine.trainer import StyleTrainer
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*flops_per_batch"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:The PyTorch Profiler default schedule"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]

LOSSES = ["loss", "content_loss", "style_loss", "tv_loss"]


@pytest.fixture(scope="module")
def table():
    """Rows of what was found, printed at the end (`pytest -s`)."""
    rows = []
    yield rows
    print("\n\n| kind | name | | effect or message |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


class Images(Callback):
    """Keeps every image that was evaluated, and every one that a step gave."""

    def __init__(self):
        self.before, self.after, self.rates, self.losses = [], [], [], []

    def on_train_batch_start(self, trainer, module, *_):
        self.before.append(module.image.detach().clone())
        self.rates.append(trainer.optimizers[0].param_groups[0].get("lr"))

    def on_train_batch_end(self, trainer, module, *_):
        self.after.append(module.image.detach().clone())
        self.losses.append(float(module.evaluation.loss.detach()))


class Kept(Logger):
    """A logger that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.rows, self.pictures, self.hyperparameters = [], [], None

    name, version = "kept", 0

    @property
    def experiment(self):
        return self

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params, *_):
        self.hyperparameters = params

    def add_image(self, tag, picture, step):
        self.pictures.append((step, picture))

    def names(self):
        return {name for _, metrics in self.rows for name in metrics}


@pytest.fixture
def fit(tiny_weights, pair, tmp_path):
    """Run in Python; gives the trainer, the module and what the optimiser saw."""

    def run(*callbacks, model=None, evaluations=3, stages=None, ckpt_path=None, size=48, **flags):
        images = Images()
        settings = {**QUIET, "precision": "32-true", "log_every_n_steps": 1}
        settings |= {"default_root_dir": str(tmp_path / "run"), **flags}
        length = {"stages": stages} if stages else {"evaluations": evaluations}
        module = StyleTransfer(extractor=VGG19(str(tiny_weights)), **length, **(model or {}))
        trainer = StyleTrainer(callbacks=[images, *callbacks], **settings)
        trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=size), ckpt_path=ckpt_path)
        return trainer, module, images

    return run


@pytest.fixture
def command(tmp_path, monkeypatch, use_tiny_weights, pair, capsys):
    """Run `nst fit`; gives the exit code and what was said."""
    monkeypatch.chdir(tmp_path)

    def run(*options, evaluations=2):
        pictures = ["--data.content", str(pair[0]), "--data.style", str(pair[1]), "--data.size=48"]
        code = main(["fit", *pictures, f"--model.evaluations={evaluations}", "--trainer.accelerator=cpu", *options])
        said = capsys.readouterr()
        return code, said.err + said.out

    return run


def error_of(said):
    """The one line of a refusal."""
    lines = [line for line in said.splitlines() if line.strip()]
    assert "Traceback" not in said
    assert len(lines) == 1, said
    assert lines[0].startswith("nst: error: ")
    return lines[0].removeprefix("nst: error: ")


def exported(package):
    return {name for name in package.__all__ if inspect.isclass(getattr(package, name))}


# ------------------------------------------------------------------------------------------------- callbacks

STAGES = [Stage(2, 0.5), Stage(4)]


def _early_stopping(fit, _):
    stop = lightning.pytorch.callbacks.EarlyStopping("style_loss", patience=2, min_delta=1e6)
    trainer, _, _ = fit(stop, evaluations=9)
    assert trainer.global_step == 3
    stop = lightning.pytorch.callbacks.EarlyStopping("loss", patience=0, min_delta=1e6, check_on_train_epoch_end=True)
    trainer, _, _ = fit(stop, stages=[Stage(2, 0.5), Stage(2, 0.75), Stage(2)])
    assert trainer.global_step == 4
    return "stops after three evaluations of nine, or at a stage's end"


def _ema(fit, _):
    decay = 0.5
    _, module, images = fit(lightning.pytorch.callbacks.EMAWeightAveraging(decay=decay), stages=STAGES)
    average = images.after[2]
    for image in images.after[3:]:
        average = decay * average + (1 - decay) * image
    torch.testing.assert_close(module.image.detach(), average)
    assert not torch.equal(module.image, images.after[-1])
    return "the last stage's exponential average, against a plain loop"


def _mean(fit, _):
    _, module, images = fit(lightning.pytorch.callbacks.WeightAveraging(), stages=STAGES)
    torch.testing.assert_close(module.image.detach(), torch.stack(images.after[2:]).mean(0))
    return "the last stage's mean, against the images' own"


def _lambda(fit, _):
    seen = []
    fit(lightning.pytorch.callbacks.LambdaCallback(on_train_batch_end=lambda *_: seen.append(1)))
    assert len(seen) == 3
    return "called at every evaluation"


def _rates(fit, _):
    logger = Kept()
    model = {"optimizer": lambda p: torch.optim.Adam(p, lr=0.5), "lr_scheduler": lambda o: lr_scheduler.StepLR(o, 1)}
    fit(lightning.pytorch.callbacks.LearningRateMonitor(), logger=logger, model=model)
    rates = [metrics["lr-Adam"] for _, metrics in logger.rows if "lr-Adam" in metrics]
    assert rates == pytest.approx([0.5, 0.05, 0.005])
    return f"rates logged: {rates}"


def _best(fit, folder):
    best = lightning.pytorch.callbacks.ModelCheckpoint(folder, monitor="gram.relu1_1", every_n_train_steps=1)
    fit(best, enable_checkpointing=True)
    saved = torch.load(best.best_model_path, weights_only=True)
    assert saved["state_dict"]["image"].shape == (1, 3, 36, 48)
    assert best.best_model_score == pytest.approx(min(float(v) for v in best.best_k_models.values()))
    return "the checkpoint with the lowest gram.relu1_1"


def _throughput(fit, _):
    logger = Kept()
    monitor = lightning.pytorch.callbacks.ThroughputMonitor(batch_size_fn=one_evaluation, window_size=2)
    fit(monitor, logger=logger)
    assert "train/device/batches_per_sec" in logger.names()
    assert max(metrics.get("train/samples", 0) for _, metrics in logger.rows) == 3
    return "train/device/batches_per_sec and others logged"


def _timer(fit, _):
    class Slow(Callback):
        def on_train_batch_end(self, *_):
            timer._offset += 60  # a minute an evaluation

    timer = lightning.pytorch.callbacks.Timer("00:00:01:30")
    trainer, _, _ = fit(Slow(), timer, evaluations=9)
    assert trainer.global_step == 2
    return "90 seconds of 60 an evaluation: stops after two"


def _device(fit, _):
    pytest.importorskip("psutil")
    logger = Kept()
    fit(lightning.pytorch.callbacks.DeviceStatsMonitor(cpu_stats=True), logger=logger)
    (name,) = [name for name in logger.names() if name.endswith("on_train_batch_start/cpu_percent")]
    return f"{name} and others logged"


WORKS = {
    "DeviceStatsMonitor": _device,
    "EarlyStopping": _early_stopping,
    "EMAWeightAveraging": _ema,
    "LambdaCallback": _lambda,
    "LearningRateMonitor": _rates,
    "ModelCheckpoint": _best,
    "ThroughputMonitor": _throughput,
    "Timer": _timer,
    "WeightAveraging": _mean,
}

# Bars and summaries, by the command: name -> options and a pattern of what is to be seen.
SPEAK = {
    "ModelSummary": (["--trainer.callbacks", "ModelSummary"], r"objective +\| Objective"),
    "RichModelSummary": (["--trainer.callbacks", "RichModelSummary"], r"objective.*Objective"),
    "RichProgressBar": (["--trainer.callbacks", "RichProgressBar"], r"2/2.*loss"),
    "TQDMProgressBar": (["--trainer.callbacks", "TQDMProgressBar"], r"2/2.*loss=\d"),
}

_DUMMIES = {
    "GradientAccumulationScheduler": lambda class_: class_({0: 2}),
    "StochasticWeightAveraging": lambda class_: class_(0.1),
    "OnExceptionCheckpoint": lambda class_: class_("here"),
    "ModelPruning": lambda class_: class_("l1_unstructured"),
    "SpikeDetection": lambda class_: class_(),
    "LearningRateFinder": lambda class_: class_(),
    "BatchSizeFinder": lambda class_: class_(),
}
_BASES = {"Callback", "Checkpoint", "ProgressBar"}


def test_every_callback_is_known():
    refused = {class_.__name__ for class_ in CALLBACKS}
    assert exported(lightning.pytorch.callbacks) == {*WORKS, *SPEAK, *refused, *_BASES}


@pytest.mark.parametrize("name", WORKS)
def test_a_callback_has_its_effect(name, fit, tmp_path, table):
    table.append(("callback", name, "works", WORKS[name](fit, tmp_path)))


@pytest.mark.parametrize("name", SPEAK)
def test_a_callback_is_seen(name, command, table):
    if name.startswith("Rich"):
        pytest.importorskip("rich")
    options, pattern = SPEAK[name]
    code, said = command(*options)
    assert code == 0, said
    assert re.search(pattern, said, re.DOTALL), said
    assert not re.search(r"%\|.*eval/s", said)  # of two bars one too many
    table.append(("callback", name, "works", "seen on the terminal"))


@pytest.mark.parametrize(
    "class_", [*CALLBACKS, *(getattr(lightning.pytorch.callbacks, name) for name in sorted(_BASES))]
)
def test_a_callback_is_refused(class_, fit, table):
    callback = _DUMMIES.get(class_.__name__, object.__new__)(class_)
    with pytest.raises(UserError, match=r"^trainer\.callbacks: must .*" + class_.__name__) as error:
        check_callbacks([callback])
    table.append(("callback", class_.__name__, "refused", str(error.value)))


def test_the_command_and_the_module_refuse_before_they_begin(command, fit, tmp_path):
    code, said = command(
        "--trainer.callbacks", "GradientAccumulationScheduler", "--trainer.callbacks.scheduling={0: 2}"
    )
    assert code == 2
    assert "GradientAccumulationScheduler" in error_of(said)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="GradientAccumulationScheduler"):
        fit(lightning.pytorch.callbacks.GradientAccumulationScheduler({0: 2}))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["EarlyStopping", "--trainer.callbacks.monitor=los"], ["monitor of EarlyStopping", "got los", "mean loss"]),
        (["ModelCheckpoint", "--trainer.callbacks.monitor=gram.relu11"], ["ModelCheckpoint", "gram.relu1_1"]),
        (["EarlyStopping"], ["trainer.callbacks: monitor: must be given"]),
        (["Timer", "--trainer.callbacks.duration=soon"], ["trainer.callbacks: Timer", "soon", "DD:HH:MM:SS"]),
        (["Timer", "--trainer.callbacks.duration=00:00:00:00"], ["duration of Timer: must be above 0, got 0 seconds"]),
        (["LearningRateMonitor"], ["trainer.logger: must be given for LearningRateMonitor", "CSVLogger"]),
        (["DeviceStatsMonitor"], ["trainer.logger: must be given for DeviceStatsMonitor"]),
    ],
)
def test_arguments_that_cannot_be(options, parts, command):
    code, said = command("--trainer.callbacks", *options)
    line = error_of(said)
    assert code == 2
    assert all(part in line for part in parts), line


def test_a_callback_of_ones_own_may_log_what_others_watch(fit):
    class Mine(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            module.log("mine", float(trainer.global_step))

    stop = lightning.pytorch.callbacks.EarlyStopping("mine", stopping_threshold=2.0, mode="max")
    trainer, _, _ = fit(Mine(), stop, evaluations=9)
    assert trainer.global_step == 3


def test_averages_end_in_the_picture_and_go_on_from_a_checkpoint(fit, command, tmp_path):
    """What the command writes is the average, and a run from a checkpoint averages on."""
    average = lightning.pytorch.callbacks.EMAWeightAveraging
    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "kept", monitor="step", mode="max", every_n_train_steps=1, save_top_k=-1, filename="{step}"
    )
    _, whole, _ = fit(average(decay=0.5), keep, stages=STAGES, enable_checkpointing=True)
    for step in (1, 4):
        path = tmp_path / "kept" / f"step={step}.ckpt"
        _, again, _ = fit(average(decay=0.5), stages=STAGES, ckpt_path=str(path))
        assert torch.equal(again.image, whole.image), step
    for decay in (0.0, 0.999):  # the last image, and all but the first
        code, _ = command(
            "--trainer.callbacks",
            "EMAWeightAveraging",
            f"--trainer.callbacks.decay={decay}",
            f"--output={decay}.png",
            evaluations=9,
        )
        assert code == 0
    assert (tmp_path / "0.0.png").read_bytes() != (tmp_path / "0.999.png").read_bytes()


# --------------------------------------------------------------------------------------------------- loggers


def test_every_logger_is_known():
    known = {"CSVLogger", "TensorBoardLogger", "Logger", "LitLogger", "CometLogger", "MLFlowLogger", "WandbLogger"}
    assert exported(lightning.pytorch.loggers) == known


def test_csv_logger(command, tmp_path, table):
    code, said = command("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", evaluations=4)
    assert code == 0, said
    (path,) = tmp_path.glob("logs/lightning_logs/version_0/metrics.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    (ours,) = tmp_path.glob("runs/*/metrics.csv")
    with ours.open(newline="") as file:
        for row, our in zip(rows, csv.DictReader(file), strict=True):
            for name in [*LOSSES, "gram.relu3_1"]:
                assert float(row[name]) == pytest.approx(float(our[name]))
    table.append(("logger", "CSVLogger", "works", "all losses of every evaluation, as in metrics.csv"))


def test_tensorboard(command, tmp_path, table, pair):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = "{class_path: nst_lightning.callbacks.Logs, init_args: {picture_every: 2}}"
    code, said = command(
        "--trainer.logger=TensorBoardLogger",
        "--trainer.logger.save_dir=tb",
        f"--trainer.callbacks=[{logs}]",
        evaluations=5,
    )
    assert code == 0, said
    events = EventAccumulator(str(next(tmp_path.glob("tb/*/version_0"))), size_guidance={"images": 0})
    events.Reload()
    assert {*LOSSES, "gram.relu5_1", "content.relu4_2"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    pictures = events.Images("picture")
    assert [picture.step for picture in pictures] == [2, 4, 5]
    assert (pictures[-1].width, pictures[-1].height) == (48, 36)
    assert len({picture.encoded_image_string for picture in pictures}) == 3
    table.append(("logger", "TensorBoardLogger", "works", "all losses, and the picture at 2, 4 and 5 of 5"))


@pytest.mark.parametrize(
    ("name", "package"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow"), ("CometLogger", "comet")]
)
def test_a_logger_whose_package_is_missing(name, package, command, table):
    if any(importlib.util.find_spec(module) for module in (package, f"{package}_ml")):
        pytest.skip(f"{package} is installed")
    code, said = command(f"--trainer.logger={name}")
    line = error_of(said)
    assert code == 2
    assert line.startswith(f"trainer.logger: {name}: ")
    assert package in line
    table.append(("logger", name, "needs its package", line))


def test_lightnings_own_server_has_a_logger_of_another_kind(command, table):
    """It is none of `lightning.pytorch`'s Logger classes, so the trainer's type excludes it."""
    assert not issubclass(lightning.pytorch.loggers.LitLogger, Logger)
    code, said = command("--trainer.logger=lightning.pytorch.loggers.LitLogger")
    assert code == 2
    line = error_of(said)
    assert line.startswith("trainer.logger: must name a class of the kind Logger")
    table.append(("logger", "LitLogger", "refused", line))


def test_pictures_go_where_a_logger_takes_them():
    """Names and argument orders are those of the three packages' own references."""
    picture, calls = torch.zeros(3, 4, 5), []

    class Experiment:
        def log_image(self, *args, **kwargs):
            calls.append((args, kwargs))

    class Weights(WandbLogger):
        def log_image(self, key, images, step=None, **_):
            calls.append(((key, images), {"step": step}))

    class Flow(MLFlowLogger):
        experiment, run_id = Experiment(), "run"

    class Comet(CometLogger):
        experiment = Experiment()

    for class_ in (Weights, Flow, Comet):
        show(object.__new__(class_), picture, 7)
    (wandb, mlflow, comet) = calls
    assert (wandb[0][0], wandb[0][1][0].shape, wandb[1]) == ("picture", (4, 5, 3), {"step": 7})
    assert (mlflow[0][0], mlflow[0][1].shape, mlflow[1]) == ("run", (4, 5, 3), {"key": "picture", "step": 7})
    assert (comet[0][0].shape, comet[1]) == ((4, 5, 3), {"name": "picture", "step": 7})


def test_the_module_brings_the_logging_of_losses_along(fit):
    logger = Kept()
    _, module, images = fit(logger=logger, evaluations=3)
    losses = [metrics["loss"] for _, metrics in logger.rows if "loss" in metrics]
    assert losses == pytest.approx(images.losses)
    assert {*LOSSES, *module.objective.part_names} <= logger.names()
    assert [step for step, _ in logger.pictures] == [3]
    torch.testing.assert_close(logger.pictures[0][1], module.picture()[0])
    logger = Kept()
    fit(Logs(picture_every=1), logger=logger, evaluations=3, log_every_n_steps=2)
    assert [step for step, metrics in logger.rows if "loss" in metrics] == [2]
    assert [step for step, _ in logger.pictures] == [1, 2, 3]


def test_loggers_have_what_comes_before_a_checkpoint(fit):
    """A run that goes on from there does not come by it again."""

    class Asked(Kept):
        def after_save_checkpoint(self, _):
            self.steps = [step for step, metrics in self.rows if "loss" in metrics]

    logger = Asked()
    fit(Checkpoints(every=2), logger=logger, evaluations=3, enable_checkpointing=True)
    assert logger.steps == [1, 2, 3]


def test_a_picture_that_a_logger_does_not_take_costs_only_itself(fit):
    class Full(Kept):
        def add_image(self, *_):
            raise OSError("no space left")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer, _, _ = fit(logger=Full())
    assert "Full did not take the picture: no space left" in " ".join(str(warning.message) for warning in caught)
    assert trainer.global_step == 3


# ------------------------------------------------------------------------------------------------- profilers


def test_every_profiler_is_known():
    known = {"Profiler", "SimpleProfiler", "AdvancedProfiler", "PyTorchProfiler", "PassThroughProfiler", "XLAProfiler"}
    assert exported(lightning.pytorch.profilers) == known


@pytest.mark.parametrize(
    ("name", "short", "pattern"),
    [
        ("SimpleProfiler", "simple", r"FIT Profiler Report.*run_training_batch"),
        ("AdvancedProfiler", "advanced", r"FIT Profiler Report.*run_training_batch.*function calls"),
    ],
)
def test_a_profiler_is_seen(name, short, pattern, command, tmp_path, table):
    code, said = command(f"--trainer.profiler={short}")
    assert code == 0
    assert re.search(pattern, said, re.DOTALL), said
    code, said = command(f"--trainer.profiler={name}", "--trainer.profiler.filename=times")
    assert code == 0
    assert "Profiler Report" not in said
    (path,) = tmp_path.glob("runs/*/fit-times*.txt")
    assert re.search(pattern, path.read_text(), re.DOTALL)
    table.append(("profiler", name, "works", "said at the end, or in the run folder with a filename"))


@pytest.mark.parametrize("kind", ["bar", "lines", "json", "none"])
def test_a_report_is_said_however_a_run_speaks(kind, command):
    code, said = command("--trainer.profiler=simple", f"--log={kind}")
    assert code == 0
    assert "run_training_batch" in said
    if kind == "none":  # and nothing besides
        assert not re.search(r"wrote|eval/s|weights:", said)


def test_a_report_from_python(fit, caplog):
    fit(profiler="simple")
    (report,) = [record.getMessage() for record in caplog.records if "Profiler Report" in record.getMessage()]
    assert "run_training_batch" in report


def test_what_a_chosen_logger_cannot_do_is_said(command):
    code, said = command(
        "--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=x", "--trainer.logger.log_graph=true"
    )
    assert code == 0
    assert "nst: warning: Could not log computational graph" in said


def test_pytorchs_profiler(fit, tmp_path, table):
    fit(profiler="pytorch", evaluations=6)
    assert list((tmp_path / "run").glob("*.pt.trace.json"))
    table.append(("profiler", "PyTorchProfiler", "works", "a trace in the run folder"))


@pytest.mark.parametrize("name", ["xla", "XLAProfiler", "Profiler"])
def test_a_profiler_is_refused(name, command, table):
    code, said = command(f"--trainer.profiler={name}")
    assert code == 2
    line = error_of(said)
    assert line.startswith("trainer")
    table.append(("profiler", name, "refused", line))


# ------------------------------------------------------------------------------------------------ optimisers

LINES = {"SparseAdam": "sparse gradients", "Muon": "matrices", "Optimizer": "model.optimizer"}


def test_every_optimiser_is_known():
    works = {"Adafactor", "Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "LBFGS", "NAdam", "RAdam"}
    assert exported(torch.optim) == {*works, "RMSprop", "Rprop", "SGD", *LINES}


def plain_loop(module, build, steps):
    """What an optimiser makes of the same start by PyTorch alone."""
    image = torch.nn.Parameter(module.trainer.datamodule.start_image(1.0))
    optimizer = build([image])
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            loss = module(image).loss
            loss.backward()
            return loss

        optimizer.step(closure)
    return image.detach()


@pytest.mark.parametrize("name", sorted(exported(torch.optim) - set(LINES)))
def test_an_optimiser_moves_the_image_as_by_itself(name, fit, table):
    class_ = getattr(torch.optim, name)
    more = {"max_iter": 1, "tolerance_grad": -1, "tolerance_change": -1} if name == "LBFGS" else {}
    _, module, images = fit(model={"optimizer": class_}, evaluations=3)
    assert torch.equal(module.image.detach(), plain_loop(module, lambda p: class_(p, **more), 3))
    assert not torch.equal(images.after[-1], images.before[0])
    table.append(("optimiser", name, "works", "after three steps bitwise as in a loop of PyTorch's"))


@pytest.mark.parametrize("name", LINES)
def test_an_optimiser_is_refused(name, command, tmp_path, table):
    code, said = command(f"--model.optimizer=torch.optim.{name}")
    assert code == 2
    line = error_of(said)
    assert line.startswith("model.optimizer")
    assert LINES[name] in line
    assert not (tmp_path / "runs").exists()
    table.append(("optimiser", name, "refused", line))


def test_all_refused_optimisers_are_tried():
    assert {class_.__name__ for class_ in OPTIMIZERS} <= set(LINES)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}])
def test_ways_to_step_many_parameters_at_once(options, fit):
    _, module, _ = fit(model={"optimizer": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, **options)})
    torch.testing.assert_close(
        module.image.detach(), plain_loop(module, lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9), 3)
    )


class Modal(torch.optim.SGD):
    """The least that is schedule-free: it steps from z, and means the mean of all z to be seen."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.param_groups[0]["train_mode"] = False

    def train(self):
        self._swap(True)

    def eval(self):
        self._swap(False)

    @torch.no_grad()
    def _swap(self, mode):
        group = self.param_groups[0]
        if group["train_mode"] != mode:
            group["train_mode"] = mode
            for p in group["params"]:
                if "other" in self.state[p]:
                    other = self.state[p]["other"].clone()
                    self.state[p]["other"].copy_(p)
                    p.copy_(other)

    @torch.no_grad()
    def step(self, closure=None):
        assert self.param_groups[0]["train_mode"], "stepped in the wrong mode"
        with torch.enable_grad():
            loss = closure()
        for p in self.param_groups[0]["params"]:
            p.sub_(self.param_groups[0]["lr"] * p.grad)
            state = self.state[p]
            state["count"] = state.get("count", 0) + 1
            state["other"] = state.get("other", torch.zeros_like(p)).lerp(p, 1 / state["count"])
        return loss


def test_a_schedule_free_optimiser_shows_its_mean_and_steps_on(fit, tmp_path):
    class Seen(Callback):
        def __init__(self):
            self.pictures = []

        def on_train_batch_end(self, trainer, module, *_):
            stepped = module.image.detach().clone()
            self.pictures.append(module.picture())
            assert torch.equal(module.image, stepped)

    seen = Seen()
    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "kept", monitor="step", mode="max", every_n_train_steps=1, save_top_k=-1, filename="{step}"
    )
    _, whole, images = fit(seen, keep, model={"optimizer": Modal}, evaluations=5, enable_checkpointing=True)
    for count, picture in enumerate(seen.pictures, start=1):
        torch.testing.assert_close(picture, torch.stack(images.after[:count]).mean(0).clamp(0, 1))
    torch.testing.assert_close(whole.image.detach(), torch.stack(images.after).mean(0))
    saved = torch.load(tmp_path / "kept" / "step=2.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["image"].clamp(0, 1), seen.pictures[1])
    _, again, _ = fit(model={"optimizer": Modal}, evaluations=5, ckpt_path=str(tmp_path / "kept" / "step=2.ckpt"))
    assert torch.equal(again.image, whole.image)
    fit(model={"optimizer": Modal}, stages=STAGES)


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_the_schedule_free_package(name, fit, table):
    class_ = getattr(pytest.importorskip("schedulefree"), name)
    _, module, images = fit(model={"optimizer": lambda p: class_(p, lr=0.05)}, evaluations=4)
    image = torch.nn.Parameter(module.trainer.datamodule.start_image(1.0))
    optimizer = class_([image], lr=0.05)
    optimizer.train()
    for _ in range(4):
        optimizer.zero_grad()
        module(image).loss.backward()
        optimizer.step()
    assert torch.equal(images.after[-1], image)
    optimizer.eval()
    assert torch.equal(module.image, image)
    fit(model={"optimizer": lambda p: class_(p, lr=0.05)}, stages=STAGES)
    table.append(("optimiser", f"schedulefree.{name}", "works", "bitwise as in a loop with train() and eval()"))


# ------------------------------------------------------------------------------------------------ schedulers

SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda n: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=2),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, total_iters=3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.5),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.5)], [2]
    ),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(o, 0.5)]),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2, cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 4),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1e6, threshold_mode="abs"),
}


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def test_every_scheduler_is_known():
    assert exported(lr_scheduler) == {*SCHEDULERS, "LRScheduler"}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_changes_the_rate_as_by_itself(name, fit, table, tmp_path):
    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "kept", every_n_train_steps=3, save_top_k=-1, filename="{step}"
    )
    model = {"optimizer": adam, "lr_scheduler": SCHEDULERS[name]}
    _, whole, images = fit(keep, model=model, evaluations=5, enable_checkpointing=True)
    optimizer = adam([torch.nn.Parameter(torch.zeros(1))])
    scheduler, rates = SCHEDULERS[name](optimizer), []
    for loss in images.losses:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(loss) if name == "ReduceLROnPlateau" else scheduler.step()
    assert images.rates == pytest.approx(rates)
    assert len(set(rates)) > 1
    _, again, _ = fit(model=model, evaluations=5, ckpt_path=str(tmp_path / "kept" / "step=3.ckpt"))
    assert torch.equal(again.image, whole.image)
    table.append(("scheduler", name, "works", f"rates {', '.join(f'{rate:.2g}' for rate in rates)}"))


def test_a_schedule_begins_anew_with_a_stage(fit):
    model = {"optimizer": adam, "lr_scheduler": SCHEDULERS["ExponentialLR"]}
    _, _, images = fit(model=model, stages=[Stage(3, 0.5), Stage(2)])
    assert images.rates == pytest.approx([0.01, 0.005, 0.0025, 0.01, 0.005])


def test_a_schedule_from_the_command(command, tmp_path):
    adam_ = ["--model.optimizer=torch.optim.Adam", "--model.optimizer.lr=0.01"]
    rates = ["--trainer.logger=true", "--trainer.callbacks=LearningRateMonitor"]
    code, said = command(
        *adam_, "--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=2", *rates, evaluations=4
    )
    assert code == 0, said
    (config,) = tmp_path.glob("runs/*/config.yaml")
    assert main(["fit", "--config", str(config)]) == 0  # the configuration repeats it
    command("--trainer.max_steps=0")  # what was said is read
    code, said = command(
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--model.lr_scheduler.monitor=los"
    )
    assert code == 2
    assert error_of(said).startswith("model.lr_scheduler.monitor: must be one of loss")
    code, said = command(
        *adam_, "--model.lr_scheduler=CyclicLR", "--model.lr_scheduler.base_lr=-1", "--model.lr_scheduler.max_lr=x"
    )
    assert code == 2
    error_of(said)


class Own(StyleTransfer):
    """A subclass with an optimiser of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rate = 0.02  # known only after the module was built

    def configure_optimizers(self):
        optimizer = torch.optim.Adam([self.image], lr=self.rate)
        return [optimizer], [{"scheduler": lr_scheduler.ExponentialLR(optimizer, 0.5), "interval": "step"}]


@pytest.mark.parametrize("stages", [[Stage(3)], STAGES])
def test_a_subclass_may_have_an_optimiser_of_its_own(stages, tiny_weights, pair, tmp_path):
    module, images = Own(stages=stages, extractor=VGG19(str(tiny_weights))), Images()
    trainer = StyleTrainer(callbacks=[images], default_root_dir=str(tmp_path), **QUIET)
    trainer.fit(module, datamodule=StyleTransferData(str(pair[0]), str(pair[1]), size=48))
    assert images.rates[:2] == pytest.approx([0.02, 0.01])
    assert module.parameter_groups()[0]["lr"] == 0.02
    assert not torch.equal(images.after[-1], images.before[-1])


# ----------------------------------------------------------------------------------------------- trainer flags


def _steps(expected):
    def check(trainer, *_):
        assert trainer.global_step == expected
        return f"{expected} evaluations"

    return check


def _is(get, expected):
    def check(trainer, *_):
        assert get(trainer) == expected
        return str(expected)

    return check


def _hyperparameters(logged):
    def check(trainer, *_):
        assert (trainer.logger.hyperparameters is not None) == logged
        return f"hyperparameters {'' if logged else 'not '}logged"

    return check


def _anomaly(trainer, module, images):
    return "names the operation whose gradient is not finite (below)"


# Flag -> a value (or several) and what shows its effect in a run of four evaluations in two stages.
EFFECTS = {
    "accelerator": [("cpu", _is(lambda t: type(t.accelerator).__name__, "CPUAccelerator"))],
    "strategy": [("single_device", _is(lambda t: type(t.strategy).__name__, "SingleDeviceStrategy"))],
    "devices": [(1, _is(lambda t: t.num_devices, 1)), ("auto", _is(lambda t: t.num_devices, 1))],
    "num_nodes": [(1, _is(lambda t: t.num_nodes, 1))],
    "precision": [("64-true", _is(lambda t: t.lightning_module.image.dtype, torch.float64))],
    "fast_dev_run": [(True, _steps(1)), (2, _steps(2))],
    "max_epochs": [(1, _steps(2)), (7, _steps(4))],
    "max_steps": [(3, _steps(3))],
    "limit_train_batches": [(1, _steps(2)), (0.5, _steps(2)), (9, _steps(4))],
    "deterministic": [
        (True, _is(lambda t: torch.are_deterministic_algorithms_enabled(), True)),
        ("warn", _is(lambda t: torch.is_deterministic_algorithms_warn_only_enabled(), True)),
    ],
    "benchmark": [(True, _is(lambda t: torch.backends.cudnn.benchmark, True))],
    "use_distributed_sampler": [(False, _steps(4)), (True, _steps(4))],  # evaluations are never divided
    "enable_autolog_hparams": [(True, _hyperparameters(True)), (False, _hyperparameters(False))],
}

# Flags with a test of their own, here or elsewhere.
ELSEWHERE = {
    "logger": "loggers, above",
    "callbacks": "callbacks, above",
    "profiler": "profilers, above",
    "min_epochs": "EarlyStopping waits for it",
    "min_steps": "EarlyStopping waits for it",
    "max_time": "a Timer",
    "log_every_n_steps": "which evaluations loggers get",
    "enable_checkpointing": "false writes none",
    "enable_progress_bar": "false shows none",
    "enable_model_summary": "true shows it",
    "detect_anomaly": "names the operation whose gradient is not finite",
    "barebones": "nothing but the picture",
    "plugins": "CheckpointIO and ClusterEnvironment",
    "default_root_dir": "where run folders are",
}


@pytest.fixture
def restored():
    """Put back what PyTorch keeps for the whole process."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


def test_every_flag_is_known():
    flags = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert flags == {*EFFECTS, *ELSEWHERE, *FLAGS}
    assert set(FLAGS) & set(ELSEWHERE) == {"profiler", "max_time"}


@pytest.mark.parametrize(
    ("flag", "case"), [(flag, case) for flag, cases in EFFECTS.items() for case in range(len(cases))]
)
def test_a_flag_has_its_effect(flag, case, fit, table, restored):
    value, check = EFFECTS[flag][case]
    more = {"logger": Kept()} if flag == "enable_autolog_hparams" else {}
    trainer, module, images = fit(stages=[Stage(2, 0.75), Stage(2)], **more, **{flag: value})
    table.append(("flag", f"{flag} {value}", "works", check(trainer, module, images)))


REFUSED_VALUES = {
    "gradient_clip_val": 1.0,
    "gradient_clip_algorithm": "norm",
    "accumulate_grad_batches": 2,
    "overfit_batches": 1,
    "limit_train_batches": 0,
    "limit_val_batches": 2,
    "limit_test_batches": 2,
    "limit_predict_batches": 2,
    "num_sanity_val_steps": 2,
    "val_check_interval": 0.5,
    "check_val_every_n_epoch": 2,
    "inference_mode": False,
    "sync_batchnorm": True,
    "reload_dataloaders_every_n_epochs": 2,
    "model_registry": "here",
    "profiler": "xla",
    "devices": [],
    "num_nodes": 2,
    "max_steps": 0,
    "max_epochs": 0,
    "max_time": "00:00:00:00",
    "strategy": "fsdp",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_is_refused(flag, table, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    value = REFUSED_VALUES[flag]
    with pytest.raises(UserError, match=rf"^trainer\.{flag}: must be .*, got ") as error:
        check_flags({flag: value})
    default = inspect.signature(Trainer.__init__).parameters[flag].default
    check_flags({flag: default})
    table.append(("flag", f"{flag} {value}", "refused", str(error.value)))


@pytest.mark.parametrize("value", ["soon", "00:10:00", {"minutes": 0}, {"seconds": -1}, {"hour": 1}, timedelta(0)])
def test_a_time_in_which_nothing_could_be_done(value):
    with pytest.raises(UserError, match=r"^trainer\.max_time: must be a time above 0 as DD:HH:MM:SS, got "):
        check_flags({"max_time": value})
    check_flags({"max_time": {"microseconds": 1}})


def test_the_command_refuses_flags_before_anything_is_read(command):
    for option in ("--trainer.overfit_batches=1", "--trainer.strategy=deepspeed", "--trainer.accelerator=tpu"):
        code, said = command(option, "--data.init=gone.png")
        assert code == 2
        assert error_of(said).startswith(option.split("=")[0].removeprefix("--"))


@pytest.mark.parametrize("value", ["0", "-2", "abc", "[]", "[0]"])
def test_numbers_of_devices_that_cannot_be(value, command, tmp_path):
    code, said = command(f"--trainer.devices={value}")
    assert code == 2
    assert "devices" in error_of(said)
    assert not (tmp_path / "runs").exists()


def test_a_slurm_job_of_several_tasks_without_srun(command, monkeypatch, tmp_path, table):
    for name, value in (("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "2"), ("SLURM_JOB_NAME", "x")):
        monkeypatch.setenv(name, value)
    code, said = command()
    assert code == 2
    line = error_of(said)
    assert "--ntasks-per-node=2" in line
    assert not (tmp_path / "runs").exists()
    table.append(("environment", "SLURM_NTASKS without srun", "refused", line))


def files_of(tmp_path):
    return {
        path.relative_to(folder).as_posix()
        for folder in tmp_path.glob("runs/*")
        for path in folder.rglob("*")
        if path.is_file()
    }


SHOWING = {"figure.png", "preview.jpg", "report.html"}


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (["--trainer.barebones=true"], set()),
        (["--trainer.enable_checkpointing=false"], {"metrics.csv", *SHOWING}),
        (["--trainer.fast_dev_run=true"], {"metrics.csv", *SHOWING}),
    ],
)
def test_flags_that_leave_files_out(options, files, command, tmp_path, table):
    code, said = command(*options)
    assert code == 0, said
    assert files_of(tmp_path) - {".lock"} == {"config.yaml", "run.json", "result.png", *files}
    table.append(
        (
            "flag",
            options[0].removeprefix("--trainer."),
            "works",
            f"files: {', '.join(sorted(files)) or 'none but the picture'}",
        )
    )


def test_the_summary_and_no_bar(command, table):
    code, said = command("--trainer.enable_model_summary=true", "--trainer.enable_progress_bar=false", "--log=bar")
    assert code == 0
    assert re.search("objective.*Objective", said)
    assert "%|" not in said
    table.append(("flag", "enable_model_summary true", "works", "seen"))
    table.append(("flag", "enable_progress_bar false", "works", "none seen"))


def test_hints_for_other_programs_stay_away(command):
    code, said = command("--trainer.logger=true")
    assert code == 0
    for hint in (
        "GPU available",
        "TPU available",
        "Tip",
        "Seed set",
        "`Trainer.fit` stopped",
        "num_workers",
        "litmodels",
    ):
        assert hint not in said


def test_what_verbose_callbacks_say_is_passed_on(command):
    stop = "{class_path: EarlyStopping, init_args: {monitor: loss, verbose: true, stopping_threshold: 100}}"
    best = "{class_path: ModelCheckpoint, init_args: {monitor: loss, verbose: true, every_n_train_steps: 1}}"
    code, said = command(f"--trainer.callbacks=[{stop}, {best}]", evaluations=5)
    assert code == 0
    assert "Stopping threshold reached" in said
    assert "'loss' reached" in said


def test_early_stopping_waits_for_the_least(fit):
    def stop():
        return lightning.pytorch.callbacks.EarlyStopping("loss", patience=0, min_delta=1e6)

    assert fit(stop(), evaluations=5)[0].global_step == 2
    assert fit(stop(), stages=[Stage(3, 0.5), Stage(3)], min_steps=4)[0].global_step == 4
    assert fit(stop(), stages=[Stage(3, 0.5), Stage(3)], min_epochs=1)[0].global_step == 3


def test_an_anomaly_is_named(tiny_weights, fit):
    class Spoil(Callback):
        def on_train_batch_start(self, trainer, module, *_):
            with torch.no_grad():
                module.image.fill_(torch.nan)

    with pytest.raises(RuntimeError, match="returned nan values"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(Spoil(), model={"optimizer": adam}, detect_anomaly=True)


def test_plugins():
    from lightning.pytorch.plugins import DoublePrecision, TorchCheckpointIO
    from lightning.pytorch.plugins.environments import LightningEnvironment

    check_plugins([TorchCheckpointIO(), LightningEnvironment()])
    with pytest.raises(UserError, match=r"^trainer\.plugins: .* got DoublePrecision; trainer\.precision"):
        check_plugins([DoublePrecision()])


# ------------------------------------------------------------------------------------- whose error it is


def test_errors_in_ones_own_callback_keep_their_traceback(command, tmp_path, monkeypatch):
    (tmp_path / "own_part.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Broken(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        raise ValueError('mine')\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="mine"):
        command("--trainer.callbacks=own_part.Broken")
