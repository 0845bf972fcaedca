"""Style transfer with one encoder, without Lightning: for the score, and for images to train on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from nst_lightning.features import Extractor
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective, default_terms
from nst_lightning.optim import LBFGS


class ImageOptimization:
    """Optimisation of an image for the balanced objective with one encoder, in its compute type.

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
