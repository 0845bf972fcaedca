"""How long terms take that look at the picture itself, which no pass through the network shows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from nst_lightning.features import Extractor
from nst_lightning.losses.term import PIXEL_LAYERS, Term
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective
from nst_lightning.planning.duration import Speed

_SIDES = (96, 256)  # of the noise that they are shown: some compare so many samples, however large the picture is
_TRIES = 1  # after a first, which makes what later ones find


def picture_speed(objective: Objective, extractor: Extractor, device: torch.device) -> Speed:
    """Measure on noise what an evaluation with its gradient takes of terms that need no network.

    Args:
        objective: Whose terms, each as often as there are regions for it.
        extractor: Any network; it is not run.
        device: Where.

    Returns:
        Seconds a pixel, and those that any picture takes; none of terms that the network's layers are for.
    """
    per_pixel = per_pass = 0.0
    with torch.random.fork_rng(devices=[]):
        for term, count in _terms(objective):
            alone = Evaluator(Objective([term]), extractor)
            small, large = (_seconds(alone, side, device) for side in _SIDES)
            slope = max(0.0, large - small) / (_SIDES[1] ** 2 - _SIDES[0] ** 2)
            per_pixel += count * slope
            per_pass += count * max(0.0, small - slope * _SIDES[0] ** 2)
    return Speed(per_pixel, per_pass)


def _terms(objective: Objective) -> Iterator[tuple[Term, int]]:
    """Those that look at the picture alone, and how many parts of the objective each is."""
    terms = {id(part.term): part.term for part in objective.parts}
    for key, term in terms.items():
        if term.weight > 0 and all(layer in PIXEL_LAYERS for layer in term.layers) and (term.layers or term.sees_image):
            yield term, sum(id(part.term) == key for part in objective.parts)


def _seconds(evaluator: Evaluator, side: int, device: torch.device) -> float:
    """Of the fastest evaluation of a square of noise."""
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.rand(1, 3, side, side, generator=generator).to(device)

    evaluator.prepare(noise(), [(noise(), 1.0)])
    image, fastest = noise().requires_grad_(), float("inf")
    for _ in range(1 + _TRIES):
        image.grad, begin = None, time.perf_counter()
        with torch.enable_grad():
            # A leaf's evaluation would be recorded on a GPU, which takes longer than all that is measured.
            evaluator(image * 1.0).loss.backward()  # type: ignore[no-untyped-call]
        float(torch.as_tensor(image.grad).sum())  # waits for the device
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest
