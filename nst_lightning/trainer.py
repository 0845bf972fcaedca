"""Lightning's Trainer with two more meanings of ``auto``."""

from __future__ import annotations

from typing import Any, Literal, cast

from lightning.pytorch import Trainer

from nst_lightning.errors import UserError
from nst_lightning.hardware import allow_tf32, choose_accelerator, choose_precision, describe


class StyleTrainer(Trainer):
    """A Trainer that takes one device, and the precision that suits it.

    Args:
        accelerator: cpu, cuda, mps, or auto for the fastest that is there.
        devices: Number of devices, or which; one by default, since one process optimises one picture.
        precision: 32-true, bf16-mixed (extractor in bfloat16, everything else in float32), 64-true, or auto: bf16-mixed
            where the hardware has bfloat16.
        tf32: Let CUDA round the factors of float32 products to 10 bits (TF32). PyTorch does so in convolutions unless
            told otherwise; here float32 means float32.
        kwargs: Everything else that Lightning's Trainer takes.

    Attributes:
        precision_reason: Why this precision was taken, for the start-up line.

    Raises:
        UserError: If the accelerator is not there or the precision cannot work.
    """

    def __init__(
        self,
        *args: Any,
        accelerator: str = "auto",
        devices: list[int] | str | int = 1,
        precision: Literal[
            "auto", "16-mixed", "16-true", "bf16-mixed", "bf16-true", "32-true", "64-true", "32", "16", "bf16", "64"
        ]
        | int
        | None = "auto",
        tf32: bool = False,
        **kwargs: Any,
    ) -> None:
        chosen = choose_accelerator(accelerator).value
        precision_choice = choose_precision(precision, describe(chosen if chosen in {"cuda", "mps"} else "cpu"))
        self.precision_reason = precision_choice.reason
        allow_tf32(tf32)
        value = cast("Any", precision_choice.value)
        super().__init__(*args, accelerator=chosen, devices=devices, precision=value, **kwargs)
        if self.world_size != 1:
            raise UserError(f"trainer.devices: must be 1, got {self.world_size}; one process optimises one picture")
