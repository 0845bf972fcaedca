"""Updates of an optimiser that a device replays: inputs are brought to one place, and all of the state stays at its."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from nst_lightning.hardware.recording import Recorder, Repeated, address

State: TypeAlias = dict[str, Any]
_REWRITTEN = "history"  # a step that is made once more writes the same rows again
_INPUTS = ("params", "lr")  # the rest of a group are numbers that a recording holds


class RecordedUpdate:
    """An update of parameters and state.

    Args:
        record: What records.
    """

    def __init__(self, record: Recorder) -> None:
        self._repeated = Repeated(record, "steps of L-BFGS")
        self._inputs: list[Tensor] = []

    @property
    def is_recorded(self) -> bool:
        """Whether the next one is replayed, if nothing changes."""
        return self._repeated.is_recorded

    def __call__(
        self,
        update: Callable[..., None],
        state: State,
        group: Mapping[str, Any],
        tables: Any,
        inputs: Sequence[Tensor],
    ) -> None:
        """Update.

        Args:
            update: Takes the state and the inputs; it may put other tensors into the state.
            state: The optimiser's, with tensors by name.
            group: Its parameters and options.
            tables: Anything else that the update computes with; another object is another computation.
            inputs: Tensors that the update takes besides the state, anywhere on the device.
        """
        if [(x.shape, x.dtype) for x in inputs] != [(x.shape, x.dtype) for x in self._inputs]:
            self._inputs = [x.clone() for x in inputs]
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        parameters: list[Tensor] = group["params"]
        held = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        places = tuple((address(x), x.shape) for x in (*parameters, *held.values(), *self._inputs))
        fixed: dict[str, Hashable] = {"the state's place": places, "the size": id(tables)}
        fixed |= {name: value for name, value in group.items() if name not in _INPUTS}
        written = [*parameters, *(value for name, value in held.items() if name != _REWRITTEN)]
        self._repeated(fixed, lambda: self._in_place(update, state), written)

    def _in_place(self, update: Callable[..., None], state: State) -> Sequence[Tensor]:
        """Update, and bring the values of what is new in the state to where the old ones were."""
        before = dict(state)
        try:
            update(state, *self._inputs)
        except BaseException:
            state.update(before)
            raise
        changed = [name for name, value in before.items() if isinstance(value, Tensor) and state[name] is not value]
        # An update hands its tensors on: what is new under one name may lie where the old value of another did.
        made = {
            name: state[name].clone() if any(state[name] is old for old in before.values()) else state[name]
            for name in changed
        }
        for name, value in made.items():
            state[name] = before[name].copy_(value)
        return ()
