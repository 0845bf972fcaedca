"""Evaluations that a device replays: one strategy of an evaluator, of which whoever asks for losses sees nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_lightning.features import Extractor
from nst_lightning.hardware.recording import Recorder, Repeated
from nst_lightning.hardware.rehearsal import address
from nst_lightning.objective.comparison import Comparison
from nst_lightning.objective.objective import Evaluation

_NUMBERS = (bool, int, float, str)


class RecordedEvaluation:
    """Evaluates an image that stays where it is, with its gradient.

    Args:
        evaluate: Evaluates an image, (1, 3, H, W), by its operations one after the other.
        comparison: What the image is compared with.
        extractor: The network that it is seen through.
        record: What records.
    """

    def __init__(
        self,
        evaluate: Callable[[Comparison, Tensor], Evaluation],
        comparison: Comparison,
        extractor: Extractor,
        record: Recorder,
    ) -> None:
        self._evaluate, self._comparison = evaluate, comparison
        # Listed once, as to go through them all takes longer than to ask where their tensors lie.
        self._modules = [module for root in (extractor, comparison.objective) for module in root.modules()]
        self._repeated = Repeated(record, "evaluations")

    @property
    def is_recorded(self) -> bool:
        """Whether the next one is replayed, if nothing changes."""
        return self._repeated.is_recorded

    def forget(self) -> None:
        """Give up what was recorded, and its memory."""
        self._repeated.forget()

    def __call__(self, image: Tensor) -> Evaluation:
        """Evaluate a leaf that needs a gradient, (1, 3, H, W)."""
        return Evaluation(*_Replayed.apply(image, self))

    def values(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, parts and gradient; the next call may overwrite them."""

        def compute() -> tuple[Tensor, Tensor, Tensor]:
            with torch.enable_grad():
                leaf = image.detach().requires_grad_()
                loss, parts = self._evaluate(self._comparison, leaf)
                (gradient,) = torch.autograd.grad(loss, leaf)
            return loss.detach(), parts, gradient

        loss, parts, gradient = self._repeated(self._fixed(image), compute)
        return loss, parts, gradient

    def _fixed(self, image: Tensor) -> dict[str, Hashable]:
        """What a recording holds of all that callbacks, and terms themselves, may change between evaluations."""
        objective, targets = self._comparison.objective, self._comparison.targets
        held = (values for module in self._modules for values in (module._parameters, module._buffers))
        tensors = [tensor for values in held for tensor in values.values() if tensor is not None]
        fixed: dict[str, Hashable] = {
            "the image's place": (address(image), image.shape, image.dtype),
            "a network's place": tuple((address(tensor), tensor.dtype) for tensor in tensors),
            "a weight": tuple(objective.factor(key, targets.weights.factors[key[0]]) for key in objective.part_keys),
        }
        for part in objective.parts:
            of_term = {name: value for name, value in vars(part.term).items() if isinstance(value, _NUMBERS)}
            fixed |= {f"{part.name}.{name}": value for name, value in of_term.items()}
        return fixed


class _Replayed(torch.autograd.Function):
    """Loss and gradient at once, so that the gradient is there when it is asked for."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, recorded: RecordedEvaluation) -> tuple[Tensor, Tensor]:
        # The next replay overwrites what this one made.
        loss, parts, ctx.gradient = (values.clone() for values in recorded.values(image))
        ctx.mark_non_differentiable(parts)
        return loss, parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(upstream), None
