"""What a checkpoint of a run holds, and how a run goes on from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nst_lightning.data.module import StyleTransferData
from nst_lightning.engine.compat import has_trainer
from nst_lightning.engine.optimizers import optimizer_in
from nst_lightning.engine.stages import StagedModule
from nst_lightning.hardware.numerics import random_states
from nst_lightning.objective.likeness import NEUTRAL
from nst_lightning.objective.objective import Evaluation
from nst_lightning.optim.modes import has_modes
from nst_lightning.runs.checkpoint import ENDED, FACTS, LOSSES, RANDOM, SETTINGS, add_new_settings
from nst_lightning.runs.counters import next_position, set_position, written_at
from nst_lightning.runs.facts import make_facts
from nst_lightning.runs.limits import Reached, limited, renew

AVERAGED = "current_model_state"  # where Lightning's averages keep the image in a checkpoint that holds the average
STARTED_FROM = "started_from"  # where a checkpoint keeps the image that its stage started from, if a term needs it
STEPPED_FROM = "stepped_from"  # where a checkpoint keeps the image that a schedule-free optimiser goes on from


class ResumableModule(StagedModule):
    """Stages that go on where a checkpoint was written.

    Attributes:
        configuration: The run's whole configuration in YAML, for its checkpoints; the command line sets it.
        ends_where_stopped: Whether a checkpoint at which a callback ended the run is its end, and not a place to go on
            from; the command line sets it where the picture is yet to be written.
        compares_anew: Whether networks, regions, masks or colours are not those of the checkpoint that is continued;
            the command line sets it, as the model does not know what they were.
        is_other_objective: Whether these, or terms or weights, are not those of the checkpoint that is continued, so
            that losses from before mean something else.
        evaluation: The latest one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration, self.ends_where_stopped, self.compares_anew = "", False, False
        self.is_other_objective = False
        self.evaluation: Evaluation | None = None
        self._facts: dict[str, Any] = {}
        self._random: dict[str, Tensor] = {}  # of a checkpoint that is to be continued
        self._losses: dict[str, Tensor] = {}  # likewise
        self._reached: Reached | None = None  # the trainer's limit that a checkpoint is at
        self.register_load_state_dict_post_hook(_miss_no_network)  # type: ignore[no-untyped-call]

    def facts(self, data: StyleTransferData) -> dict[str, Any]:
        """What a checkpoint of a run with these pictures says of their files, the weights and the stages."""
        origins = [extractor.origin for extractor in self._extractors()]
        return make_facts(data.request.files, origins, [stage.evaluations for stage in self.stages])

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Settings of the optimiser, as a new one has them."""
        optimizer = optimizer_in(self.configure_optimizers())
        return [] if optimizer is None else optimizer.param_groups

    def _forget_run(self) -> None:
        """Begin without anything of an earlier fit."""
        self._batch = self._left = self._reached = self._start = None
        self._random, self._losses = {}, {}
        self.evaluation = self.evaluator = None
        self._rescaled.clear()
        self._planned = 0
        self.is_other_objective = False

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs, such as an average's: nothing of the run, whose loss hangs on the graph."""
        of_run = dict.fromkeys(
            ("evaluation", "evaluator", "style_targets", "_planner", "_pictures", "_batch", "_start")
        )
        return {**super().__getstate__(), **of_run, "_rescaled": {}}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The image, and buffers of terms, without the frozen network."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        for key in [key for key in state if _is_of_network(key)]:
            del state[key]
        return state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run is checked against, and what auto chose."""
        plans = [] if self._planner is None else self._planner.saved()
        checkpoint[FACTS] = {**self._facts, "plans": plans, "precision": str(self.trainer.precision)}
        if self._stepping and has_modes(self.trainer.optimizers[0]) and AVERAGED not in checkpoint:
            checkpoint[STEPPED_FROM] = self.image.detach().clone()
            with self.showing_result():
                checkpoint["state_dict"]["image"] = self.image.detach().clone()
        if self._start is not None:
            checkpoint[STARTED_FROM] = self._start
        checkpoint[RANDOM] = random_states(self.device)
        if self.evaluation is not None:
            checkpoint[LOSSES] = self.objective.losses(self.evaluation)
        if self.configuration:
            checkpoint[SETTINGS] = self.configuration

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the image the size it has in the checkpoint, and the trainer the counts to go on from."""
        if self._planner is not None and self.tile == "auto" and self.memory is None:
            self._planner.adopt(checkpoint.get(FACTS, {}).get("plans", []))
        self._random, self._losses = checkpoint.get(RANDOM, {}), checkpoint.get(LOSSES, {})
        saved = checkpoint["state_dict"]["image"]
        if has_trainer(self) and STEPPED_FROM in checkpoint:
            saved = checkpoint["state_dict"]["image"] = checkpoint[STEPPED_FROM]
        if STARTED_FROM in checkpoint:
            self._start = checkpoint[STARTED_FROM].clone()
        changed = saved.shape != self.image.shape
        self.image = nn.Parameter(torch.empty_like(saved, device=self.image.device))
        self._has_picture = True
        if not has_trainer(self):  # loaded for its picture, not to go on
            return
        if changed:
            self._begin_averages()
        self._left = self._planned = min(written_at(checkpoint).stage, len(self.stages) - 1)
        add_new_settings(checkpoint, self.parameter_groups())
        planned = limited([stage.evaluations for stage in self.stages], self.trainer.limit_train_batches)
        stopped = self.ends_where_stopped and checkpoint.get(ENDED, False)
        self._reached = Reached.of(self.trainer, checkpoint, planned, stopped)
        if self._reached is not None:
            planned = self._reached.planned
        set_position(checkpoint, next_position(checkpoint, planned), planned)
        renew(checkpoint, self.trainer.callbacks)  # type: ignore[attr-defined]
        before = _objective(checkpoint.get("hyper_parameters"))
        self.is_other_objective = self.compares_anew or before != _objective(self.hparams)
        if self.is_other_objective:
            _forget_last_gradient(checkpoint)


def _objective(settings: Mapping[str, Any] | None) -> list[Any]:
    """What settings of the model say of the objective; nothing where a program built it."""
    before = {"terms": None, "strength": None, "likeness": NEUTRAL}  # settings that checkpoints of old do not have
    return [(settings or {}).get(name, without) for name, without in before.items()]


def _forget_last_gradient(checkpoint: dict[str, Any]) -> None:
    """Let an L-BFGS take no pair of two gradients of which one is of another objective; in place."""
    for optimizer in checkpoint["optimizer_states"]:
        for state in optimizer["state"].values():
            if isinstance(state, dict) and isinstance(state.get("have_last"), Tensor):
                state["have_last"] = torch.zeros_like(state["have_last"])


def _miss_no_network(_: nn.Module, keys: Any) -> None:
    """Let a state dict load that lacks the frozen network, as all of `ResumableModule.state_dict` do."""
    keys.missing_keys[:] = [key for key in keys.missing_keys if not _is_of_network(key)]


def _is_of_network(key: str) -> bool:
    """Whether an entry of a state dict belongs to a frozen network."""
    return key.startswith(("extractor.", "draft.")) or ".extractor." in key
