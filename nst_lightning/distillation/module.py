"""Training of the student as a LightningModule; what is compared with the teacher is in `loss`."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from nst_lightning import __version__
from nst_lightning.distillation.compression import compress
from nst_lightning.distillation.data import DistillationData, Pair
from nst_lightning.distillation.growth import check_growth, grow
from nst_lightning.distillation.loss import STYLE_TAPS, Grams, compare, style_distances, teacher_grams
from nst_lightning.distillation.network import CompactNetwork, check_sizes, teacher_network, teacher_widths
from nst_lightning.distillation.score import HeldOutScore, ImageOptimization, shipped_form
from nst_lightning.distillation.storage import earlier_runs, load_student, save_student
from nst_lightning.distillation.whitening import WhitenedAdam, input_moments
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19
from nst_lightning.features.compact import TAPS
from nst_lightning.files.paths import expand
from nst_lightning.hardware.accelerator import compute_dtype
from nst_lightning.runs.provenance import source_commit

WIDTHS = (16, 24, 48, 64, 112, 96, 64, 64, 192, 208, 224, 240, 384)
_MOMENT_PAIRS = 40  # number of pairs from which the inputs' second moments are estimated


class Waypoint(NamedTuple):
    """An intermediate image of a style transfer with the student."""

    image: Tensor  # (1, 3, H, W), RGB
    style: Tensor  # (1, 3, h, w), what the run was after
    start: Grams  # the teacher's style distance of each layer where the run began; `style_distances`


class Distillation(LightningModule):
    """Train a narrow network whose gradients move an image as VGG-19's do.

    A step compares student and teacher on a picture and a style: features and Gram matrices, projected to the teacher's
    channels; the difference of the two Gram matrices, which is what moves the image; and the gradient of a style loss
    with random weights of the layers. A part of the pictures are intermediate images of style transfers with the
    student itself, where its own errors have grown: it sees the style reached where the teacher sees a gap. There the
    gap's error is relative to the gap at the start, as in the score.

    Args:
        teacher: VGG-19's weights; see `VGG19`.
        student: Weights to start from (.safetensors); by default the teacher compressed in closed form.
        widths: Channels of conv1_1 ... conv5_1, if the student is made by compression.
        ranks: Ranks of what these convolutions return, 0 for those that are not factored, the default for all. Where
            they are higher than those of the weights to start from, the student grows: what it gets wrong is fitted.
        input_ranks: Ranks of what they see, 0 for all channels, which is the default; only beside a rank.
        compression_pairs: Pairs of pictures that the compression looks at; they want 8 MB of memory each.
        learning_rate: Of Adam on whitened weights, about the relative change of a layer's results in a step; it rises
            over the first steps and falls to zero along a cosine.
        steps: Length of the training; the trainer's max_steps is set to it.
        feature_weight: Weight of the features' relative error.
        gram_weight: Weight of the Gram matrices' relative error.
        gap_weight: Weight of the relative error of differences between Gram matrices.
        gradient_weight: Weight of one minus the cosine of image gradients; 0 saves more than half the time, and the
            next, too.
        inner_gradient_weight: Weight of one minus the cosine of gradients with respect to features.
        run_share: Fraction of pictures that come from the student's own runs.
        runs_every: Steps between two such runs.
        run_evaluations: Length of such a run.
        score_evaluations: Length of the runs on held-out pairs that validation scores.
        output: Where the weights are written as training goes on.
        save_every: Steps between two of these files.
    """

    def __init__(
        self,
        teacher: str | None = None,
        student: str | None = None,
        widths: list[int] = list(WIDTHS),  # noqa: B006 - a list shows as default in --help
        ranks: list[int] | None = None,
        input_ranks: list[int] | None = None,
        compression_pairs: int = 200,
        learning_rate: float = 0.001,
        steps: int = 4000,
        feature_weight: float = 1.0,
        gram_weight: float = 1.0,
        gap_weight: float = 0.05,
        gradient_weight: float = 0.5,
        inner_gradient_weight: float = 0.0,
        run_share: float = 0.35,
        runs_every: int = 60,
        run_evaluations: int = 100,
        score_evaluations: int = 60,
        output: str = "compact_vgg19.safetensors",
        save_every: int = 250,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.teacher = VGG19(teacher)
        self.teacher.use_layers(TAPS)
        full = teacher_widths(self.teacher)
        check_sizes(widths, full, ranks, input_ranks)
        self.student = CompactNetwork(widths, full, ranks or (), input_ranks or ())
        self.made = False
        if student:
            start = load_student(expand(student, "model.student"))
            self.made = not ranks or start.ranks == self.student.ranks
            if self.made:
                self.student = start
            else:
                check_growth(start, self.student)
        self._trained_on = ""
        self._history = earlier_runs(expand(student)) if student else []
        self._pool: deque[Waypoint] = deque(maxlen=96)
        self._score = HeldOutScore(self.teacher, score_evaluations)
        self._computes_in = torch.float32  # dtype of the teacher, and of the student in its style transfers

    def setup(self, stage: str) -> None:
        """Compress the teacher if there is no student yet, or let a smaller one grow."""
        self.trainer.fit_loop.epoch_loop.max_steps = self.hparams["steps"]
        self._trained_on = self._data.description
        if self.made or self.trainer.ckpt_path:
            return
        self.made = True
        pairs = (self._data.pair(index) for index in range(self.hparams["compression_pairs"]))
        images = [image[None] for pair in pairs for image in pair]
        full = teacher_network(self.teacher)
        if self.hparams["student"]:
            start = load_student(expand(self.hparams["student"]))
            self.student = grow(start, full, images, self.student.ranks, self.student.input_ranks)
            return
        self.student, reports = compress(
            full, self.student.widths, images, ranks=self.student.ranks, input_ranks=self.student.input_ranks
        )
        for report in reports:
            print(f"{report.name}: chosen channels leave {report.selection:.3f}, the student {report.student:.3f}")  # noqa: T201

    @property
    def _data(self) -> DistillationData:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, DistillationData):
            raise UserError(
                f"datamodule: must be a DistillationData, got {type(data).__name__}; pass it to trainer.fit"
            )
        return data

    def on_train_start(self) -> None:
        """Let the teacher compute in the trainer's precision: autocast does not reach it."""
        self._computes_in = compute_dtype(str(self.trainer.precision))
        self.teacher.set_compute_dtype(self._computes_in)

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        """Compare student and teacher on one pair, batch by batch element."""
        if self.hparams["run_share"] and self.global_step % self.hparams["runs_every"] == 0:
            self._pool.extend(self.run(batch.image[:1], batch.style[:1], self.hparams["run_evaluations"]))
        losses = []
        for index in range(len(batch.image)):
            chosen = torch.rand(2)
            if self._pool and float(chosen[0]) < self.hparams["run_share"]:
                losses.append(self.compare(*self._pool[int(chosen[1] * len(self._pool))]))
            else:
                losses.append(self.compare(batch.image[index : index + 1], batch.style[index : index + 1]))
        parts = {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}
        self.log_dict({name: value.detach() for name, value in parts.items()}, batch_size=1)
        weights = {name: self.hparams[f"{name.removesuffix('s')}_weight"] for name in parts}
        return torch.stack([weights[name] * value for name, value in parts.items()]).sum()

    def validation_step(self, batch: Pair, batch_idx: int) -> None:
        """Score the student on a held-out pair."""
        with torch.inference_mode(False), torch.enable_grad():
            student = shipped_form(self.student, self._computes_in, self.device)
            scores = self._score(student, batch_idx, batch.image.clone(), batch.style.clone())
        self.log_dict({f"held_out_{name}": value for name, value in scores.items()}, batch_size=1)

    def compare(self, image: Tensor, style: Tensor, start: Grams | None = None) -> dict[str, Tensor]:
        """The parts of the loss on one pair, each a scalar; see `nst_lightning.distillation.loss.compare`."""
        gradients = self.hparams["gradient_weight"] > 0
        return compare(self.teacher, self.student, image, style, start, gradients=gradients)

    def run(self, content: Tensor, style: Tensor, evaluations: int = 100) -> list[Waypoint]:
        """Transfer a style to a content, (1, 3, H, W) in [0, 1], with the student; returns images on the way."""
        steps = [round(evaluations ** (i / 3)) - 1 for i in range(1, 4)]
        student = shipped_form(self.student, self._computes_in, self.device)
        with torch.enable_grad():
            _, _, images = ImageOptimization(student, content, style).run(evaluations, steps)
        with torch.no_grad():
            before, goal = (teacher_grams(self.teacher(picture, STYLE_TAPS)) for picture in (content, style))
        start = style_distances(before, goal)
        return [Waypoint(image, style, start) for image in images if bool(image.isfinite().all())]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Whitened Adam with warm-up and a cosine."""
        steps, warm = self.hparams["steps"], 100

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

        data, count = self._data, min(_MOMENT_PAIRS, self.hparams["compression_pairs"])
        images = (image[None].to(self.device) for index in range(count) for image in data.pair(index))
        moments = {p: moment.to(self.device) for p, moment in input_moments(self.student, images).items()}
        optimizer = WhitenedAdam(self.student.parameters(), moments, self.hparams["learning_rate"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_end(self, *_: Any) -> None:
        """Write the weights now and then."""
        if self.global_step % self.hparams["save_every"] == 0:
            self.save()

    def on_train_end(self) -> None:
        """Write the weights."""
        self.save()

    def save(self) -> None:
        """Write the student to the output."""
        # Paths are left out, which are nobody else's business.
        training = {name: value for name, value in self.hparams.items() if name not in {"teacher", "student", "output"}}
        training |= {name: getattr(self.student, name) for name in ("widths", "ranks", "input_ranks")}
        facts = {
            "network": "compact VGG-19 of nst_lightning",
            "version": __version__,
            "training": json.dumps(training),
            "commit": source_commit() or "",
            "teacher": f"VGG-19, {self.teacher.family} set; Visual Geometry Group, University of Oxford, CC BY 4.0",
            "steps": str(self.global_step),
            "data": self._trained_on,
            "history": json.dumps(self._history),
        }
        save_student(expand(self.hparams["output"], "model.output"), self.student, facts)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The student alone."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return {key: value for key, value in state.items() if not key.startswith("teacher.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the student; the teacher is not missed."""
        student = {key.removeprefix("student."): value for key, value in state_dict.items()}
        return self.student.load_state_dict(student, strict=strict, assign=assign)
