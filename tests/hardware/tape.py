"""A graph for the GPU that `pretending` plays: what it does is noted with the very tensors, and done again.

It has what makes CUDA graphs dangerous: the host's decisions, and numbers that it puts in, are those of the recording;
tensors are read and written where they lay then, whatever has become of them since. As there, what is recorded has not
been done when the recording is over, and a value that goes to or comes from the host ends it with an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map


class Tape:
    """What a device does, as it is noted."""

    def __init__(self) -> None:
        self._operations: list[tuple[Any, Any, Any, Any]] = []
        self._made: set[int] = set()  # addresses of memory that did not exist before
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Do something, and note it."""
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        if _changes(func):
            for tensor in given:
                self._keep(tensor)
        noted = tree_map(_alias, args), tree_map(_alias, kwargs)
        answer = func(*args, **kwargs)
        places = {_place(x) for x in given}
        new = [x for x in tree_flatten(answer)[0] if isinstance(x, torch.Tensor) and _place(x) not in places]
        self._made |= {_place(x) for x in new}
        if torch.Tag.inplace_view not in getattr(func, "tags", ()) and (_changes(func) or new):  # views are made once
            self._operations.append((func, *noted, tree_map(_alias, answer)))
        return answer

    def _keep(self, tensor: torch.Tensor) -> None:
        if _place(tensor) not in self._made and _place(tensor) not in self._before:
            storage = tensor.untyped_storage()
            self._before[_place(tensor)] = storage, storage.clone()

    def rewind(self) -> None:
        """Let nothing of it have been done."""
        for storage, values in self._before.values():
            storage.copy_(values, non_blocking=False)

    def replay(self) -> None:
        """Do it again, in the same memory."""
        with torch.no_grad():
            for func, args, kwargs, answer in self._operations:
                again = func(*args, **kwargs)
                if _changes(func):
                    continue
                for old, new in zip(tree_flatten(answer)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)


def recorder(set_tape: Callable[[Tape | None], None]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """What records on tapes; the device is given the one to note on."""

    def record(function: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        set_tape(tape)
        try:
            function()
        finally:
            set_tape(None)
            tape.rewind()
        return tape.replay

    return record


def _changes(func: Any) -> bool:
    """Whether an operator changes what it is given; a function in the place of one does not."""
    return isinstance(func, torch._ops.OpOverload) and bool(func._schema.is_mutable)


def _alias(value: Any) -> Any:
    """The same memory, seen as it is now: a tensor may be reshaped in place later."""
    return value.detach() if isinstance(value, torch.Tensor) else value


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
