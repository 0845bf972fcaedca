"""The average of the last images instead of the last one."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from nst_lightning.engine.module import StyleTransfer
from nst_lightning.errors import UserError


class Averaging(Callback):
    """End each stage with an exponential average of its images, for optimisers that jitter about the optimum.

    After t evaluations the average is Σ (1 - d) dᵗ⁻ⁱ xᵢ / (1 - dᵗ) (Kingma and Ba 2015, section 3): bias-corrected, so
    that it does not hold the start. Optimisers of the first order (Adam) gain from it; L-BFGS, which ends at rest,
    does not, and gets another picture than it would give. The images that are optimised are never touched.

    Args:
        decay: d; the average is over about 1 / (1 - d) images.
    """

    def __init__(self, decay: float = 0.95) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"averaging.decay: must be at least 0 and below 1, got {decay}; 0.95 is the default")
        self.decay = decay
        self._sum: Tensor | None = None
        self._images = 0  # in the sum

    def average(self) -> Tensor | None:
        """The average so far, of the image's shape; None before the first evaluation of a stage."""
        return None if self._sum is None else self._sum / (1 - self.decay**self._images)

    def setup(self, trainer: Trainer, pl_module: StyleTransfer, stage: str) -> None:  # type: ignore[override]
        """Forget an earlier run, which may have been cut short."""
        self._sum, self._images = None, 0

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: StyleTransfer, *_: Any) -> None:  # type: ignore[override]
        """Add the image."""
        image = pl_module.image.detach()
        if self._sum is None or self._sum.shape != image.shape:
            self._sum, self._images = torch.zeros_like(image), 0
        self._sum.lerp_(image, 1 - self.decay)
        self._images += 1

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Put the average in the image's place, before it is enlarged or written.

        Images of a stage that went astray are not worth averaging: there the best one stays.
        """
        average = self.average()
        if average is not None and not pl_module.went_back:
            pl_module.image.copy_(average)
        self._sum = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to average as the uninterrupted one."""
        return {"sum": self._sum, "count": self._images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on averaging."""
        self._sum, self._images = state_dict["sum"], state_dict["count"]

    def on_train_start(self, trainer: Trainer, pl_module: StyleTransfer) -> None:  # type: ignore[override]
        """Bring what a checkpoint held to the device."""
        if self._sum is not None:
            self._sum = self._sum.to(pl_module.image)
