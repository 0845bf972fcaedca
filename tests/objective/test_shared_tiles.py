"""Tiles that processes share: each term has the loss and the gradient that one process has."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import rand_image

from nst_lightning import losses
from nst_lightning.features import VGG19
from nst_lightning.losses import NNFM, Content, Term
from nst_lightning.objective.evaluator import Evaluator
from nst_lightning.objective.objective import Objective


class Threads:
    """Threads of one process that play several, as one of them sees it."""

    def __init__(self, rank: int, shared: list, barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, barrier.parties
        self._shared, self._barrier = shared, barrier

    def add(self, tensors) -> None:
        """Add up, in the order of the ranks."""
        self._shared[self.rank] = [tensor.clone() for tensor in tensors]
        self._barrier.wait(60)
        sums = [torch.stack(same).sum(0) for same in zip(*self._shared, strict=True)]
        self._barrier.wait(60)
        for tensor, summed in zip(tensors, sums, strict=True):
            tensor.copy_(summed)


def evaluated(term: Term, weights, processes=None):
    """Loss and gradient of a picture of six tiles, in double precision."""
    network = VGG19(str(weights))
    network.set_compute_dtype(torch.float64)
    content, style = rand_image(128, 192, dtype=torch.float64), rand_image(96, 96, seed=1, dtype=torch.float64)
    evaluate = Evaluator(Objective([term, Content(weight=0.1)]), network, 64, processes=processes)
    evaluate.prepare(content, [(style, 1.0)], start=rand_image(128, 192, seed=3, dtype=torch.float64))
    image = rand_image(128, 192, seed=2, dtype=torch.float64).requires_grad_()
    loss = evaluate(image).loss
    loss.backward()
    return loss.detach(), image.grad


def terms() -> list[Term]:
    """One of each kind that works in tiles."""
    made = [NNFM(patches=1)]
    for name in losses.__all__:
        kind = getattr(losses, name)
        if not (isinstance(kind, type) and issubclass(kind, Term)) or kind in {NNFM, Term, losses.StyleTerm}:
            continue
        term = kind()
        if not (term.layers and term.needs_whole):
            made.append(term)
    return made


@pytest.fixture
def unwritten():
    """Let memory that nobody has written to hold no numbers, so that it shows."""
    torch.use_deterministic_algorithms(True)  # which fills it
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.name)
@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_have_the_loss_and_gradient_of_one(term, count, tiny_weights, unwritten):
    alone = evaluated(term, tiny_weights)
    shared, barrier = [None] * count, threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        each = list(pool.map(lambda rank: evaluated(term, tiny_weights, Threads(rank, shared, barrier)), range(count)))
    for loss, gradient in each:
        torch.testing.assert_close(loss, alone[0], rtol=1e-10, atol=0)
        torch.testing.assert_close(gradient, alone[1], rtol=0, atol=1e-10 * float(alone[1].abs().max()))
