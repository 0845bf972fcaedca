"""Lightning's Trainer with two more meanings of ``auto``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy

from nst_lightning.errors import UserError
from nst_lightning.hardware.accelerator import choose_accelerator, choose_precision, count_devices, describe
from nst_lightning.hardware.xpu import trainer_parts
from nst_lightning.process.interruption import signals_as_before


class SharedTiles(DDPStrategy):
    """Processes that share the tiles of one picture: the group of DDP without its wrapper.

    The tiled objective adds statistics and gradients up itself; each process then makes the same step.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is, whose parameter changes its size from stage to stage; see DDPStrategy."""


class StyleTrainer(Trainer):
    """A Trainer that takes one device unless told otherwise, and the precision that suits it.

    Args:
        accelerator: cpu, cuda, mps, xpu, or auto for the fastest that is there.
        devices: Number of devices, or which; one by default. Several share the tiles of one picture, each with a
            process of its own.
        num_nodes: Number of machines that do so.
        strategy: auto: with several processes `SharedTiles`; others are Lightning's.
        precision: 32-true, bf16-mixed (extractor in bfloat16, everything else in float32), 64-true, or auto: bf16-mixed
            where the hardware has bfloat16.
        tf32: Let CUDA round the factors of float32 products to 10 bits (TF32). PyTorch does so in convolutions unless
            told otherwise; here float32 means float32.
        kwargs: Everything else that Lightning's Trainer takes.

    Attributes:
        precision_reason: Why this precision was taken, for the start-up line.
        tf32: As it was given.
        after_fit: What is left to do when everything of a fit is over, such as to hand a signal on to the program.

    Raises:
        UserError: If the accelerator is not there or the precision cannot work.
    """

    def __init__(
        self,
        *args: Any,
        accelerator: str = "auto",
        devices: list[int] | str | int = 1,
        num_nodes: int = 1,
        strategy: str | Strategy = "auto",
        precision: Literal[
            "auto", "16-mixed", "16-true", "bf16-mixed", "bf16-true", "32-true", "64-true", "32", "16", "bf16", "64"
        ]
        | int
        | None = "auto",
        tf32: bool = False,
        **kwargs: Any,
    ) -> None:
        chosen = choose_accelerator(accelerator).value
        precision_choice = choose_precision(precision, describe(chosen))
        self.precision_reason = precision_choice.reason
        self.tf32 = tf32
        self.after_fit: Callable[[], None] | None = None
        several = count_devices(chosen, devices) * num_nodes > 1
        kwargs["strategy"] = SharedTiles() if several and strategy == "auto" else strategy
        kwargs["precision"] = precision_choice.value
        kwargs = trainer_parts(chosen, devices, kwargs)
        super().__init__(*args, accelerator=chosen, devices=devices, num_nodes=num_nodes, **kwargs)
        check_processes(self)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Make a picture; see Trainer.

        Raises:
            KeyboardInterrupt: If Ctrl-C ended it, after everything is written.
            SystemExit: With 143 if SIGTERM did.
        """
        self.after_fit = None
        with signals_as_before(), warnings.catch_warnings():
            # The summary takes 32 bits for each number of the image, and so it is: only features have 16.
            warnings.filterwarnings("ignore", "Precision bf16-mixed is not supported by the model summary")
            super().fit(*args, **kwargs)
        if self.after_fit is not None:
            self.after_fit()


def check_processes(trainer: Trainer) -> None:
    """Refuse what Lightning would do with several processes, which is to train one model on several batches.

    Raises:
        UserError: If there are several, and they do not share the tiles.
    """
    if trainer.world_size != 1 and not isinstance(trainer.strategy, SharedTiles):
        raise UserError(
            f"trainer.strategy: must be auto with {trainer.world_size} processes, got "
            f"{type(trainer.strategy).__name__}; they share the tiles of one picture"
        )
