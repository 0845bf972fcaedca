"""The score during training: short runs with the student as it is on held-out pairs, judged by VGG-19."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from nst_lightning.distillation.network import CompactNetwork
from nst_lightning.distillation.optimization import ImageOptimization
from nst_lightning.distillation.score import Result, judge
from nst_lightning.distillation.storage import save_student
from nst_lightning.features import CompactVGG19, Extractor


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
