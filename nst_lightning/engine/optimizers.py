"""From what the user names to an optimiser of the image, and what changes its rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.optim import Optimizer

from nst_lightning.engine.refusals import check_monitor, check_optimizer, check_unbuilt_optimizer
from nst_lightning.errors import UserError
from nst_lightning.optim import LBFGS


class OptimizerSetup(NamedTuple):
    """What the user names."""

    optimizer: OptimizerCallable  # takes the parameters
    lr_scheduler: LRSchedulerCallable | None  # takes the optimiser

    def build(
        self, image: nn.Parameter, settings: Mapping[str, Any], losses: Sequence[str], evaluations: int | None = None
    ) -> Any:
        """Build what a LightningModule's ``configure_optimizers`` returns.

        Args:
            image: What is optimised.
            settings: They take the place of those that were asked for.
            losses: Names of those that a scheduler may look at.
            evaluations: How many there will be, if that is known.

        Raises:
            UserError: If an argument is wrong, or the optimiser cannot work here.
        """
        try:
            optimizer = self.optimizer([image])
        except (TypeError, ValueError, UserError) as error:
            check_unbuilt_optimizer(error)
            raise UserError(f"model.optimizer: {error}") from None
        check_optimizer(type(optimizer))
        optimizer.param_groups[0].update(settings)
        one_evaluation_per_step(optimizer)
        if isinstance(optimizer, LBFGS):
            optimizer.expect(evaluations)
        if self.lr_scheduler is None:
            return optimizer
        try:
            scheduler = self.lr_scheduler(optimizer)
        except (TypeError, ValueError) as error:
            raise UserError(f"model.lr_scheduler: {error}") from None
        monitor = getattr(scheduler, "monitor", "loss")
        check_monitor("model.lr_scheduler.monitor", monitor, losses)
        # Lightning would step one that waits for a plateau after checkpoints are written; the module steps it.
        step = {"scheduler": scheduler, "interval": "step", "monitor": monitor, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": step}


def optimizer_in(configured: Any) -> Optimizer | None:
    """The first optimiser in what a module's `configure_optimizers` returns."""
    if isinstance(configured, Mapping):
        return optimizer_in(configured.get("optimizer"))
    if isinstance(configured, Sequence):
        return optimizer_in(configured[0]) if configured else None
    return configured if isinstance(configured, Optimizer) else None


def one_evaluation_per_step(optimizer: Optimizer) -> Optimizer:
    """Make one step one evaluation, so that the trainer's steps, metrics and checkpoints mean evaluations.

    ``torch.optim.LBFGS`` runs up to 25 evaluations in a step by default; thirty steps of one are bitwise the same
    as one step of thirty. Its absolute tolerances, which would stop a loss of another scale, are switched off.

    Raises:
        UserError: For a line search, which cannot work with one evaluation.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        for group in optimizer.param_groups:
            if group["line_search_fn"] is not None:
                raise UserError(
                    f"model.optimizer.line_search_fn: must be null, got {group['line_search_fn']}; a step is one "
                    "evaluation, which leaves a line search none"
                )
            group.update(max_iter=1, max_eval=1, tolerance_grad=-1.0, tolerance_change=-1.0)
    return optimizer
