"""A step of L-BFGS: a direction of the inverse Hessian, a length, and the way back from what is no number.

All of it happens on the device and depends on values by masks alone, so a device may replay it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nst_lightning.optim.hessian import InverseHessian
from nst_lightning.optim.metric import joined
from nst_lightning.optim.pairs import chunks


def take_step(
    state: dict[str, Any], group: Mapping[str, Any], hessian: InverseHessian, pixels: Tensor, rate: Tensor, loss: Any
) -> None:
    """Move a group's parameters.

    Args:
        state: The optimiser's; it is changed.
        group: Parameters and options.
        hessian: Of these parameters.
        pixels: Their gradient, (n,).
        rate: Factor on the step, a scalar.
        loss: What the closure returned, maybe no tensor.
    """
    g = hessian.coordinates.forward(pixels)
    finite = _is_finite(g, loss)
    direction = hessian.direction(state, g, finite)
    state["last_gradient"] = g  # if it is not finite, `have_last` prevents its use
    _move(state, group, hessian, direction, finite, rate)


def _move(
    state: dict[str, Any],
    group: Mapping[str, Any],
    hessian: InverseHessian,
    direction: Tensor,
    finite: Tensor,
    rate: Tensor,
) -> None:
    """Step against the direction, or undo the last step if what it led to was not finite."""
    torch.where(finite, direction, state["last_step"], out=direction)
    state["last_step"] = direction  # now, so that the old one's memory is free for what follows
    change = hessian.coordinates.backward(direction)
    # A step that led to no number is not tried again.
    known = (state["count"] > 0) | ((state["skipped"] == 0) & (group["prior"] is not None))
    length = -_step_length(group, direction, change, known, rate)
    parameters: list[Tensor] = group["params"]
    if not saves_memory(group):
        # `last_point` is the starting point until a finite evaluation has been seen.
        point = joined([p.reshape(-1) for p in parameters])
        torch.where(finite, point, state["last_point"], out=state["last_point"])
        torch.addcmul(state["last_point"], change, torch.where(finite, length, 0), out=change)
    for p, piece in zip(parameters, torch.split(change, [p.numel() for p in parameters]), strict=True):
        if saves_memory(group):
            p.addcmul_(piece.view_as(p), torch.where(finite, length, -1))
        else:
            p.copy_(piece.view_as(p))
    direction.mul_(torch.where(finite, length, 0))
    state["have_last"] = finite
    state["skipped"] = state["skipped"] + (~finite)


def saves_memory(group: Mapping[str, Any]) -> bool:
    """Whether memory counts more than a return to the last good point to the last bit."""
    return str(group["history_dtype"]) == "bfloat16"


def _is_finite(gradient: Tensor, loss: Any) -> Tensor:
    """Whether a gradient (n,) and the loss that a closure returned, if it is a number, are finite; a boolean scalar."""
    finite = torch.isfinite(torch.dot(gradient, gradient))
    if isinstance(loss, Tensor):
        return finite & torch.isfinite(loss).all()
    return torch.zeros_like(finite) if isinstance(loss, float) and not math.isfinite(loss) else finite


def _step_length(group: Mapping[str, Any], direction: Tensor, change: Tensor, known: Tensor, rate: Tensor) -> Tensor:
    """Factor on a direction, a positive scalar.

    The direction is (n,) in the coordinates of the metric, the change it makes in the parameters' own values. Without a
    known curvature (a boolean scalar) the step has the size of a first one. The rate is a scalar, too.
    """
    if group["rules"] == "torch":
        first = (1 / torch.linalg.vector_norm(direction, ord=1)).clamp(max=1.0) * rate
        return torch.where(known, rate, first)
    # Squares of a small gradient underflow, hence the peak; without the last clamp 0 * inf would be NaN.
    kind = torch.finfo(change.dtype)
    peak = torch.linalg.vector_norm(change, ord=math.inf).clamp(min=kind.tiny)
    norms = [torch.linalg.vector_norm(change[chunk] / peak) for chunk in chunks(len(change))]
    rms = torch.linalg.vector_norm(torch.stack(norms)) * (peak / float(change.numel()) ** 0.5)
    inverse = 1 / rms.clamp(min=kind.tiny)
    first = (min(group["first_step"], group["max_step"]) * inverse).clamp(max=kind.max)
    return torch.where(known, torch.minimum(group["max_step"] * inverse, rate), first)
