"""The inverse Hessian of L-BFGS as an operator: what the pairs in an optimiser's state, and a prior, say of a gradient.

The equation stands at the top of `nst_lightning.optim.lbfgs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nst_lightning.optim.curvature import Curvature, ring_scales
from nst_lightning.optim.metric import Coordinates
from nst_lightning.optim.pairs import InnerProducts, PairHistory, open_slots
from nst_lightning.optim.rings import Rings

_PRIOR_PAIRS = 5  # weight of a prior, in pairs measured here


class InverseHessian:
    """H of some parameters, as far as the pairs in an optimiser's state tell it.

    The sizes of the parameters are read now, the optimiser's options (`group`) at every step; the exponent is the
    metric's, None without one. Gradients, steps and directions are vectors in its `coordinates`.
    """

    def __init__(self, parameters: Sequence[Tensor], exponent: float | None, group: Mapping[str, Any]) -> None:
        self.coordinates = Coordinates(parameters, exponent, group["rings"], group["opponent_colors"])
        self._group = group
        self._rings = [len(sizes) for sizes in self.coordinates.ring_sizes]
        sizes = [size for sizes in self.coordinates.ring_sizes for size in sizes]
        self._layout = Rings(sizes, parameters[0].device)
        self._metric = self.coordinates.metrics[0] if self.coordinates.metrics and len(parameters) == 1 else None
        self._prior: Tensor | None = None  # tensor on the device, made at its first use

    def direction(self, state: dict[str, Any], g: Tensor, finite: Tensor) -> Tensor:
        """Store the newest pair if it is good, then compute ``H g``, or g without pairs, of a gradient (n,).

        The gradient before this one, in the state, is overwritten. If this one or the loss is not finite the history
        restarts.
        """
        group, history, step = self._group, PairHistory(state, self._layout), state["last_step"]
        # In place, since nobody needs it any more: images may be large.
        change: Tensor = state["last_gradient"].neg_().add_(g)
        ss, sy, yy = history.products_of_pair(step, change)
        least = 1e-10 if group["rules"] == "torch" else group["curvature"] * (ss * yy).sqrt()
        products = history.store(step, change, g, finite & state["have_last"] & (sy > least), finite)
        relaxation = 1.0 if self.coordinates.metrics is None else group["relaxation"]
        scales, gamma = initial_hessian(products, self._rings, relaxation, self._prior_factors(like=products.sy))
        of_s, of_y = (x.to(g.dtype) for x in _coefficients(products, scales, gamma))
        # Into the memory of the change, which is stored. Without pairs g itself: coefficients are 0, factors 1.
        return history.combine(of_s, of_y, (gamma * scales).to(g.dtype), g, out=change)

    def _prior_factors(self, like: Tensor) -> Tensor | None:
        """γC of a run at another size, as a factor for each ring of this image."""
        prior = self._group["prior"]
        if prior is None or self._metric is None:
            return None
        if self._prior is None:
            # With one ring for all frequencies all colours share it, too.
            axes = len(self._rings)
            factors = Curvature(*prior).at(self._metric.centres, self._metric.shape[-2:].numel(), axes)
            self._prior = like.new_tensor(factors)
        return self._prior

    def measured(self, state: dict[str, Any]) -> Curvature | None:
        """γC as the pairs in an optimiser's state tell it, for an image of any size.

        Returns:
            None without a metric, without pairs, for several parameters, or if the pairs tell no finite number.
        """
        metric = self._metric
        if metric is None or not int(state["count"]):
            return None
        newest, k = state["newest"], open_slots(state)
        # A history that began anew, after a gradient that was not finite, has older pairs in other slots.
        used = (newest - torch.arange(k, device=newest.device)) % k < state["count"]
        squares = torch.where(used, state["yy"][:, :k, :k].diagonal(dim1=1, dim2=2), 0)
        scales = ring_scales(torch.where(used, state["ss"][:, :k], 0).sum(1), squares.sum(1), self._rings)
        gamma = state["sy"][newest, newest] / (scales @ squares[:, newest])
        factors = (gamma * scales / metric.shape[-2:].numel()).log()
        return Curvature(metric.centres, factors.tolist()) if bool(factors.isfinite().all()) else None


def initial_hessian(
    products: InnerProducts, rings: list[int], relaxation: float, prior: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Choose the initial inverse Hessian γC, maybe with a prior of (rings,) factors known from another size.

    Returns:
        C as (rings,) factors, and γ, on which the relaxation is a factor; 1 without pairs and prior.
    """
    ss, yy, sy, count = products.ss, products.yy, products.sy[-1, -1], products.number
    scales = ring_scales(ss.sum(1), yy.diagonal(dim1=1, dim2=2).sum(1), rings)
    if prior is None:
        return scales, torch.where(count > 0, relaxation * sy / (scales @ yy[:, -1, -1]), 1)
    weight = count / (count + _PRIOR_PAIRS)  # weight of the measurement in the geometric means below
    size = prior.log().mean().exp()
    scales = scales**weight * (prior / size) ** (1 - weight)
    # With few pairs all of the relaxation overshoots where the prior is too large, as it is if the loss is another one
    # at this size (of a photograph that is enlarged, say). A pair tells that at once.
    measured = torch.where(count > 0, relaxation**weight * sy / (scales @ yy[:, -1, -1]), size)
    return scales, torch.minimum(measured**weight * size ** (1 - weight), measured)


def _coefficients(products: InnerProducts, scales: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of the columns of S and of Y in H g, (m,) each by slot, with C as (rings,) scales.

    Slots not in use become identity rows of R with no weight.
    """
    sy, diagonal = products.sy, products.sy.diagonal()
    ycy, ycg = torch.tensordot(scales, products.yy, 1), scales @ products.yg
    r = sy.triu(1) + torch.diag(torch.where(products.used, diagonal, 1))
    w = torch.linalg.solve_triangular(r, products.sg[:, None], upper=True)
    u = torch.linalg.solve_triangular(r.T, diagonal[:, None] * w + gamma * (ycy @ w - ycg[:, None]), upper=False)
    of_s, of_y = (sy.new_zeros(len(sy)).index_copy_(0, products.order, x.view(-1)) for x in (u, w))
    return of_s, of_y
