"""What the operations of a computation tell, as they are made: whether the host would wait, and what they read."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class WaitError(RuntimeError):
    """The host would wait for the device."""


class Rehearsal(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what makes the host wait for the device, in this thread and in that of the pass back."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if _waits(func, name, args):
            raise WaitError(f"waits for the device ({name})")
        made = func(*args, **kwargs)
        if name in {"_to_copy", "copy_", "lift_fresh"} and _is_moved(name, args, made):
            raise WaitError(f"moves values between the host and the device ({name})")
        return made


def _waits(func: Any, name: str, args: Any) -> bool:
    """Whether an operator's answer, or the shape of it, has to be known to the host, and is not already there."""
    if not args or not isinstance(args[0], Tensor) or args[0].device.type == "cpu":
        return False
    if name in _INDEXING:  # by numbers that are on the device it waits for nothing
        indices = [x for x in args[1] if isinstance(x, Tensor)]
        return any(x.dtype in {torch.bool, torch.uint8} or x.device != args[0].device for x in indices)
    tags = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
    return name in _WAITING or any(tag in func.tags for tag in tags)


_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# They say so by no tag.
_WAITING = {"_linalg_check_errors", "_linalg_eigh", "linalg_eig", "_linalg_svd", "linalg_lstsq", "multinomial"}


def _is_moved(name: str, args: Any, made: Any) -> bool:
    """Whether a copy came from or went to the host; ``torch.tensor`` of numbers is seen by its end alone."""
    if name == "lift_fresh":
        return bool(made.device.type != "cpu")
    source = args[1] if name == "copy_" else args[0]
    return bool(made.device != source.device)


def place_of(trace: TracebackType | None) -> str:
    """The innermost place of an error, PyTorch and recordings aside: ``MyTerm.loss (my_terms.py, line 12)``."""
    found = "something"
    while trace is not None:
        code, owner = trace.tb_frame.f_code, trace.tb_frame.f_locals.get("self")
        if not code.co_filename.startswith(_LIBRARIES):
            name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
            found = f"{name} ({Path(code.co_filename).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


# And the file that makes computations again and again, through which all of them go.
_LIBRARIES = (str(Path(torch.__file__).parent), __file__, str(Path(__file__).with_name("recording.py")))


class Keeping(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps all tensors that operations read and did not make, such as tables in a cache that may forget them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: list[Tensor] = []
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            if address(tensor) not in self._known:
                self._known.add(address(tensor))
                self.kept.append(tensor.detach())
        made = func(*args, **(kwargs or {}))
        self._known.update(map(address, _tensors(made)))
        return made


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def address(tensor: Tensor) -> int:
    """Where a tensor lies."""
    return tensor.data_ptr()
