"""Steps of an optimiser that a device replays: inputs are brought to one place, and all of the state stays at its."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nst_lightning.hardware.recording import Repeated, recorder_for
from nst_lightning.hardware.rehearsal import address

State: TypeAlias = dict[str, Any]
_REWRITTEN = "history"  # a step that is made once more writes the same rows again
_INPUTS = ("params", "lr")  # the rest of a group are numbers that a recording holds


class RecordedSteps:
    """Takes the steps of one optimiser, by recordings where the device of the parameters has them."""

    def __init__(self) -> None:
        self._asked: torch.device | None = None
        self._repeated: Repeated | None = None
        self._inputs: list[Tensor] = []

    @property
    def is_recorded(self) -> bool:
        """Whether the next one is replayed, if nothing changes."""
        return self._repeated is not None and self._repeated.is_recorded

    def forget(self) -> None:
        """Give up what was recorded, and its memory."""
        self._asked, self._repeated, self._inputs = None, None, []

    def __call__(
        self, step: Callable[..., None], state: State, group: Mapping[str, Any], tables: Any, inputs: Sequence[Any]
    ) -> None:
        """Take a step.

        Args:
            step: Takes the state, the group, the tables and the inputs; it may put other tensors into the state.
            state: The optimiser's, with tensors by name.
            group: Its parameters and options.
            tables: Anything else that the step computes with; another object makes another computation.
            inputs: What else it takes. Only steps whose inputs are all tensors on the device are recorded.
        """
        parameters: list[Tensor] = group["params"]
        device = parameters[0].device
        if device != self._asked:
            record, self._asked = recorder_for(device, sum(p.numel() for p in parameters)), device
            self._repeated = None if record is None else Repeated(record, "steps of L-BFGS")
        given = [x for x in inputs if isinstance(x, Tensor) and x.device == device]
        if self._repeated is None or len(given) < len(inputs):
            step(state, group, tables, *inputs)
            return
        if [(x.shape, x.dtype) for x in given] != [(x.shape, x.dtype) for x in self._inputs]:
            self._inputs = [x.clone() for x in given]
        for place, value in zip(self._inputs, given, strict=True):
            place.copy_(value)
        held = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        places = tuple((address(x), x.shape) for x in (*parameters, *held.values(), *self._inputs))
        fixed: dict[str, Hashable] = {"the state's place": places, "the size": tables}
        fixed |= {name: value for name, value in group.items() if name not in _INPUTS}
        written = [*parameters, *(value for name, value in held.items() if name != _REWRITTEN)]
        self._repeated(fixed, lambda: _in_place(step, state, group, tables, self._inputs), written)


def _in_place(
    step: Callable[..., None], state: State, group: Mapping[str, Any], tables: Any, inputs: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Take a step, and bring the values of what is new in the state to where the old ones were."""
    before = dict(state)
    try:
        step(state, group, tables, *inputs)
    except BaseException:
        state.update(before)
        raise
    changed = [name for name, value in before.items() if isinstance(value, Tensor) and state[name] is not value]
    # A step hands its tensors on: what is new under one name may lie where the old value of another did.
    made = {
        name: state[name].clone() if any(state[name] is old for old in before.values()) else state[name]
        for name in changed
    }
    for name, value in made.items():
        state[name] = before[name].copy_(value)
    return ()
