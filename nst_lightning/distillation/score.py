"""``nst score``: how near pictures made with a narrow encoder come to those made with VGG-19, as VGG-19 sees it."""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_lightning.distillation.data import read_scaled, split_folder
from nst_lightning.distillation.network import CompactNetwork
from nst_lightning.distillation.storage import save_student
from nst_lightning.errors import UserError
from nst_lightning.features import VGG19, CompactVGG19, Extractor
from nst_lightning.files.atomic import replacing
from nst_lightning.files.paths import expand
from nst_lightning.hardware.accelerator import choose_precision, compute_dtype, describe
from nst_lightning.hardware.memory import freed_memory_kept
from nst_lightning.images.io import write_image
from nst_lightning.judging.style import LAYERS as UNSEEN_LAYERS
from nst_lightning.judging.style import gram_closed
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"


class ImageOptimization:
    """Style transfer without Lightning: the balanced objective with one encoder, in its compute type.

    Content (1, 3, H, W) and style (1, 3, h, w) are RGB in [0, 1].
    """

    def __init__(self, extractor: Extractor, content: Tensor, style: Tensor) -> None:
        self.objective = Evaluator(Objective(default_terms()), extractor)
        self.objective.prepare(content, [(style, 1.0)])
        self.content = content

    def gradient(self, image: Tensor) -> Tensor:
        """Gradient of the loss at an image."""
        x = image.detach().clone().requires_grad_()
        self.objective(x).loss.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        return x.grad

    def run(self, evaluations: int, steps: Sequence[int] = ()) -> tuple[Tensor, float, list[Tensor]]:
        """Optimise from the content on.

        Returns:
            The picture, seconds of an evaluation, and copies of the image before the evaluations in ``steps``.
        """
        image = self.content.clone().requires_grad_()
        optimiser = LBFGS([image])

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss: Tensor = self.objective(image).loss
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        copies = []
        begin = time.perf_counter()
        for evaluation in range(evaluations):
            if evaluation in steps:
                copies.append(image.detach().clone())
            optimiser.step(closure)
        return image.detach(), (time.perf_counter() - begin) / evaluations, copies


@dataclass(frozen=True)
class Result:
    """What VGG-19 says of a picture."""

    closed: dict[str, float]  # layer -> fraction of the style gap closed, 1 - ‖G - A‖ / ‖G_content - A‖
    content: float  # ‖F - P‖ / ‖P‖ at relu4_2

    def mean(self, layers: Sequence[str]) -> float:
        """Mean fraction closed over some layers."""
        return statistics.fmean(self.closed[layer] for layer in layers)

    def over(self, teachers: Result) -> dict[str, float]:
        """Shares of the teacher's closed gap on the style layers, others and relu5_1, and of its content distance."""
        return {
            "share": self.mean(STYLE_LAYERS) / teachers.mean(STYLE_LAYERS),
            "share_unseen": self.mean(UNSEEN_LAYERS) / teachers.mean(UNSEEN_LAYERS),
            "share_relu5_1": self.closed["relu5_1"] / teachers.closed["relu5_1"],
            "content": self.content / teachers.content,
        }


@torch.no_grad()
def judge(judge_network: Extractor, picture: Tensor, content: Tensor, style: Tensor) -> Result:
    """Score a picture (1, 3, H, W), clamped to [0, 1] here, with VGG-19 in float32; the style is (1, 3, h, w)."""
    layers = [*STYLE_LAYERS, *UNSEEN_LAYERS, CONTENT_LAYER]
    found, before, goal = (judge_network(image, layers) for image in (picture.clamp(0, 1), content, style))
    closed = {}
    for layer in (*STYLE_LAYERS, *UNSEEN_LAYERS):
        closed[layer] = gram_closed(found[layer], before[layer], goal[layer])
    wanted = before[CONTENT_LAYER]
    return Result(closed, float((found[CONTENT_LAYER] - wanted).norm() / wanted.norm()))


def shipped_form(student: CompactNetwork, dtype: torch.dtype, device: torch.device) -> CompactVGG19:
    """The student in training as it would ship, to compute in a dtype: half precision, fast algorithms, frozen."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.safetensors"
        save_student(path, student, {})
        extractor = CompactVGG19(str(path), units="stored")
    extractor.set_compute_dtype(dtype)
    return extractor.to(device)


class HeldOutScore:
    """Fraction of the teacher's closed style gap that the student closes on held-out pairs; see ``nst score``.

    The teacher's own run on a pair is made once and cached. It is VGG-19 in float32 now and may compute in another type
    later; what judges is a copy.
    """

    def __init__(self, teacher: Extractor, evaluations: int) -> None:
        self.teacher = teacher
        self.evaluations = evaluations
        self._judge = copy.deepcopy(teacher)  # copied before the teacher is rounded to the dtype of training
        self._of_teacher: dict[int, Result] = {}

    def __call__(self, student: Extractor, index: int, content: Tensor, style: Tensor) -> dict[str, float]:
        """Score the student, as it ships, on the pair of an index, (1, 3, H, W) in [0, 1]; see `Result.over`."""
        if index not in self._of_teacher:
            self._of_teacher[index] = self._result(self.teacher, content, style)
        return self._result(student, content, style).over(self._of_teacher[index])

    def _result(self, extractor: Extractor, content: Tensor, style: Tensor) -> Result:
        picture, _, _ = ImageOptimization(extractor, content, style).run(self.evaluations)
        return judge(self._judge.to(content.device), picture, content, style)


def _pairs(arguments: argparse.Namespace) -> list[tuple[str, Path, Path]]:
    if arguments.photos:
        photos = split_folder(expand(arguments.photos, "photos"), argument="photos")[1]
        art = split_folder(expand(arguments.art, "art"), argument="art")[1]
        chosen = [(photos[i % len(photos)], art[i % len(art)]) for i in range(arguments.count)]
    else:
        given = zip(arguments.content, arguments.style, strict=True)
        chosen = [(expand(content, "content"), expand(style, "style")) for content, style in given]
    return [(f"{content.stem}_{style.stem}", content, style) for content, style in chosen]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see nst score --help")


def parse(args: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a UserError if it does not make sense."""
    parser = _Parser("nst score", description=__doc__, allow_abbrev=False)
    parser.add_argument("--student", help="weights of the student (.safetensors); by default those in the package")
    parser.add_argument("--content", nargs="+", default=[], help="content pictures")
    parser.add_argument("--style", nargs="+", default=[], help="style pictures, one for each content")
    parser.add_argument("--photos", help="folder of photographs of which the held-out ones are contents")
    parser.add_argument("--art", help="folder of paintings of which the held-out ones are styles")
    parser.add_argument("--count", type=int, default=12, help="number of pairs from the folders")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="short side in pixels")
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--output", default="runs/score", help="folder for sheets and figures")
    parsed = parser.parse_args(args)
    if len(parsed.content) != len(parsed.style):
        raise UserError(f"style: must be as many as content ({len(parsed.content)}), got {len(parsed.style)}")
    if bool(parsed.content) == bool(parsed.photos and parsed.art):
        raise UserError("content: give pairs by --content and --style, or folders by --photos and --art")
    return parsed


def main(args: Sequence[str]) -> int:
    """Run ``nst score`` with the command line after the subcommand; returns the exit code."""
    return _judge_all(parse(args))


@freed_memory_kept()
def _judge_all(arguments: argparse.Namespace) -> int:
    dtype = compute_dtype(choose_precision("auto", describe("cpu")).value)
    folder = expand(arguments.output, "output")
    folder.mkdir(parents=True, exist_ok=True)
    judge_network, teacher = VGG19(units="normalised"), VGG19(units="normalised")
    student = CompactVGG19(arguments.student)
    teacher.set_compute_dtype(dtype)
    student.set_compute_dtype(dtype)
    rows = []
    networks = judge_network, teacher, student
    for size in arguments.size:
        for name, *paths in _pairs(arguments):
            content, style = (read_scaled(path, size) for path in paths)
            row = _row(f"{name}_{size}", networks, (content, style), arguments.evaluations, folder)
            rows.append({"size": size, **row})
            print(_line(rows[-1]), flush=True)  # noqa: T201
            with replacing(folder / "score.json") as file:
                file.write(json.dumps(rows, indent=1).encode())
    for size in arguments.size:
        print(_summary([row for row in rows if row["size"] == size], size))  # noqa: T201
    return 0


def _row(
    name: str,
    networks: tuple[Extractor, Extractor, Extractor],
    pictures: tuple[Tensor, Tensor],
    evaluations: int,
    folder: Path,
) -> dict[str, Any]:
    """Run teacher and student on one pair, and let VGG-19 compare."""
    (judge_network, teacher, student), (content, style) = networks, pictures
    by_teacher, by_student = ImageOptimization(teacher, content, style), ImageOptimization(student, content, style)
    steps = [0, evaluations // 10, evaluations // 2]
    reference, slow, way = by_teacher.run(evaluations, steps=steps)
    picture, fast, _ = by_student.run(evaluations)
    gradients = ((by_teacher.gradient(image), by_student.gradient(image)) for image in way)
    cosines = [float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0)) for one, other in gradients]
    theirs = judge(judge_network, reference, content, style)
    ours = judge(judge_network, picture, content, style)
    write_image(folder / f"{name}.png", torch.cat([reference, picture], dim=3).clamp(0, 1))
    return {
        "pair": name,
        "teacher": asdict(theirs),
        "student": asdict(ours),
        **ours.over(theirs),
        "seconds": {"student": fast, "teacher": slow},
        "cosines": dict(zip(map(str, steps), cosines, strict=True)),
    }


def _line(row: dict[str, Any]) -> str:
    ours, theirs, cosines, seconds = (row[key] for key in ("student", "teacher", "cosines", "seconds"))
    layers = " ".join(f"{ours['closed'][layer]:.2f}/{theirs['closed'][layer]:.2f}" for layer in STYLE_LAYERS)
    along = " ".join(f"{value:.2f}" for value in cosines.values())
    return (
        f"{row['pair']} px: share {row['share']:.3f}, layers {layers}, unseen {row['share_unseen']:.3f}, "
        f"content {row['content']:.2f}, cosines {along}, seconds {seconds['student']:.3f}/{seconds['teacher']:.3f}"
    )


def _summary(rows: list[dict[str, Any]], size: int) -> str:
    def over(key: str, worst: str) -> str:
        values = [row[key] for row in rows]
        extreme = min(values) if worst == "least" else max(values)
        return f"{statistics.median(values):.3f} ({worst} {extreme:.3f})"

    return (
        f"{len(rows)} pairs, {size} px: median share of VGG-19's closed gap {over('share', 'least')}, relu5_1 "
        f"{over('share_relu5_1', 'least')}, unseen layers {over('share_unseen', 'least')}, content distance over "
        f"VGG-19's {over('content', 'most')}"
    )
