"""Adam in coordinates in which the inputs of every layer are white.

What a layer sees is far from white: features after ReLU have large means, and neighbouring pixels are alike. A step of
one size for all weights then changes the layer's results much along a few directions of its inputs, which limits its
size, and hardly along the others. With S the second moments of the inputs a weight W is W' S^-½, and Adam steps in W'
change the results alike in all directions. It is the input's half of Kronecker-factored natural gradients (Martens and
Grosse, *Optimizing Neural Networks with Kronecker-factored Approximate Curvature*, 2015), with moments computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_lightning.distillation.compression import roots
from nst_lightning.distillation.network import NAMES, CompactNetwork

_RIDGE = 1e-3  # relative to the mean second moment of an input
_POSITIONS = 400  # positions sampled from a feature map


class WhitenedAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, 2015) on the whitened weights, which have a layer's outputs first.

    Moments are the second ones (D, D) of the D inputs of a weight, for those that have such; see `input_moments`. The
    rate is the size of a step relative to the root mean square of a whitened weight, about the relative change that it
    makes to what the layer returns; betas are the decay of the averages of gradients and of their squares.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        moments: Mapping[nn.Parameter, Tensor],
        rate: float,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        whitened = {parameter: _roots(moment) for parameter, moment in moments.items()}
        groups = []
        for parameter in parameters:
            size = parameter.detach()
            if parameter in whitened:
                size = size.flatten(1) @ whitened[parameter][1]
            groups.append({"params": [parameter], "lr": rate * max(float(size.square().mean().sqrt()), 1e-6)})
        super().__init__(groups, {"betas": betas})
        for parameter, (inverse, _) in whitened.items():
            self.state[parameter]["root"] = inverse  # S^-½, stored with the averages, which are in its coordinates

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; the closure, if any, computes gradients and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            one, other = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                root = state.get("root")
                gradient = parameter.grad if root is None else parameter.grad.flatten(1) @ root
                if "mean" not in state:
                    state |= {"steps": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
                state["steps"] += 1
                state["mean"].lerp_(gradient, 1 - one)
                state["square"].lerp_(gradient.square(), 1 - other)
                size = (state["square"] / (1 - other ** state["steps"])).sqrt().clamp(min=1e-20)
                step = state["mean"] / (1 - one ** state["steps"]) / size
                parameter.sub_((step if root is None else step @ root).view_as(parameter), alpha=group["lr"])
        return loss


def _roots(moments: Tensor) -> tuple[Tensor, Tensor]:
    """S^-½ and S^½ of second moments (D, D), float32."""
    damped = moments.double()
    damped = damped + _RIDGE * damped.diagonal().mean() * torch.eye(len(damped)).to(damped)
    root, inverse = roots(damped)
    return inverse.float(), root.float()


@torch.no_grad()
def input_moments(student: CompactNetwork, images: Iterable[Tensor]) -> dict[nn.Parameter, Tensor]:
    """Second moments of what each weight of a student is multiplied with, over images (1, 3, h, w) in [0, 1].

    Returns:
        (D, D) for every weight and map; for a convolution D counts channels and taps.
    """
    sums: dict[nn.Parameter, Tensor] = {}

    def add(weight: nn.Parameter, inputs: Tensor) -> None:  # (D, n)
        some = inputs[:, torch.randperm(inputs.shape[1])[:_POSITIONS]].float()
        sums[weight] = sums.get(weight, torch.zeros(())) + (some @ some.T).cpu() / some.shape[1]

    def look(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(layer, nn.Conv2d)
        kernel, padding = layer.kernel_size, layer.padding
        assert isinstance(padding, tuple)
        add(cast("nn.Parameter", layer.weight), F.unfold(inputs[0], kernel, padding=padding)[0])

    layers = [layer for index in range(len(NAMES)) for layer in student.factors(index)]
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    for count, image in enumerate(images, start=1):  # noqa: B007 - used below
        for tap, features in student(image).items():
            if tap in student.maps:
                add(student.maps[tap], features.flatten(2)[0])
    for handle in handles:
        handle.remove()
    return {weight: total / count for weight, total in sums.items()}
