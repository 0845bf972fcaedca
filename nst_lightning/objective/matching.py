"""What goes to what at the least cost: optimal transport between a few clusters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROUNDS = 2000
_ENOUGH = 1e-12


def transport(cost: Tensor, supply: Tensor, demand: Tensor, sharpness: float, freedom: float = 0.0) -> Tensor:
    """The entropic transport plan, by Sinkhorn's iterations on logarithms.

    Args:
        cost: (n, m).
        supply: (n,), above 0; all of it is carried.
        demand: (m,), above 0, of the same sum.
        sharpness: One over the weight of the plan's entropy: the plan is the cheapest one as it goes to infinity.
        freedom: 0: each demand is met exactly. 1: nobody asks for it, and all goes where it costs least. Between, the
            cost of going past a demand is a Kullback-Leibler divergence (unbalanced transport, Chizat et al. 2018).

    Returns:
        (n, m), rows sum to `supply`.
    """
    to, at = torch.zeros_like(demand), torch.zeros_like(supply)
    # From a blurred plan to the sharp one: from nothing a sharp one takes very many rounds.
    for level in range(max(0, math.ceil(math.log2(sharpness))), -1, -1):
        kernel = -sharpness * 0.5**level * cost
        to, at = 2 * to, 2 * at
        for _ in range(_ROUNDS):
            before = at
            at = supply.log() - torch.logsumexp(kernel + to, dim=1)
            if float((at - before).abs().max()) < _ENOUGH:
                break
            to = (1 - freedom) * (demand.log() - torch.logsumexp(kernel + at[:, None], dim=0))
    return torch.exp(at[:, None] + kernel + to)
