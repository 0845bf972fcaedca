"""A CPU that plays a GPU of Apple (MPS), Intel (XPU) or NVIDIA (CUDA): what it lacks, holds, and is waited for.

`pretended` lets PyTorch find a device ``mps``, ``xpu`` or ``cuda``. Tensors moved or made there are `OnDevice`:
they say that they are there, and hold a tensor of the CPU, on which the arithmetic is done. So tensors of the CPU
proper, which the program uses on purpose, are told apart from those of the device. On the device

- operators that have no kernel for it raise, as they do there;
- on MPS float64 and complex128 raise;
- tensors of both places do not meet, but for scalars;
- what makes the host wait for a value (`waiting`, and every copy from the device) is noted, with the place in the
  package that asked: `Visit.reads`;
- so is every copy to the device: `Visit.sends`. From memory that the system may page out, as all of the program's is,
  CUDA's copies make the host wait for what was asked of the device before. Numbers, and scalars of the CPU, which
  kernels take as arguments, are none;
- bytes of tensors are counted: `Visit.live`.

What is not played: the rounding of its kernels, their speed, restrictions of single kernels (to fewer dimensions or
types than others have), and operators that kernels written in C++ call within themselves.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import lightning
import lightning.fabric.accelerators.mps as fabrics
import lightning.pytorch.accelerators.mps as lightnings
import torch
import torchgen
import yaml
from living import LiveBytes
from tape import Tape, recorder
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_flatten, tree_map

import nst_lightning
from nst_lightning.hardware import accelerator, recording

MEMORY = 8 << 30
WORKSPACE = (2 * 4096 + 8 * 16) << 10  # of cuBLAS on a GPU before Hopper (CublasHandlePool.cpp)

# The file from which PyTorch's build makes the table of kernels, of the very version that is installed.
_NATIVE_FUNCTIONS = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
# Kernels for all kinds of devices, made of operators that are looked up in turn, says the README.md of ATen/native.
_FOR_ALL = {"CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"}
# The table's tags of operators whose answer, or its shape, the host must know, so that it waits for the device.
_WAITS = {"data_dependent_output", "dynamic_output_shape"}
# Without a tag, though it looks for errors that a decomposition has left on the device.
_LOOKS = {"_linalg_check_errors"}
# The table of 2.14 names kernels for these; but a matrix beyond the memory of a threadgroup is
# handed to the CPU within, which waits (pytorch pull request 185954), and versions before that one have none.
_PARTLY = dict.fromkeys(("_linalg_eigh", "_linalg_svd", "linalg_lstsq"), ("mps",))
# MPSDataType has no 64-bit floating point: "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't
# support float64" (pytorch issue 122602, closed as expected); complex128 is made of two of them.
_TYPES = {torch.float64, torch.complex128}
# Where tensors of both places may meet: moves, and indices, which the operator itself brings to the device
# (TensorAdvancedIndexing.cpp). The gradient of a trace is made in C++ of tensors like the given one, which is of the
# CPU to it.
_MEETING = {"_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_", "index_fill"}
# Operators that bring a scalar of the CPU to the device, where others hand it to the kernel (TensorCompare.cpp).
_BRINGS_SCALARS = {"where", "copy_", "_to_copy"}
# Those that want all tensors on the device, scalars, too.
_ALL_THERE = {"cat", "stack", "mm", "bmm", "index_select", "index_copy_", "gather"}
# CUDA's products of halves in float32, of which a CPU has no kernel.
_OF_A_TYPE: dict[str, Callable[..., Any]] = {
    "mm.dtype": lambda one, other, dtype: torch.mm(one.to(dtype), other.to(dtype)),
    "bmm.dtype": lambda one, other, dtype: torch.bmm(one.to(dtype), other.to(dtype)),
}


# What the modules torch.mps, torch.xpu and torch.cuda answer.
_ANSWERS: dict[str, Callable[..., Any]] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "set_device": lambda device: None,
    "current_device": lambda: 0,
    "get_device_name": lambda *_: "Played GPU",
    "get_device_capability": lambda *_: (8, 0),
    "is_bf16_supported": lambda including_emulation=True: True,
    "recommended_max_memory": lambda: MEMORY,
    "current_allocated_memory": lambda: 0,
    "driver_allocated_memory": lambda: 0,
    "memory_stats": lambda *_: {"allocated_bytes.all.current": 0},
    "synchronize": lambda *_: None,
    "empty_cache": lambda: None,
    "_lazy_init": lambda: None,
    "get_rng_state": lambda *_: torch.get_rng_state(),
    "set_rng_state": lambda *_: None,
}
_ROOTS = (Path(nst_lightning.__file__).parent, Path(lightning.__file__).parent)


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    """PyTorch's operators by name, such as ``add.out``."""
    fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load(_NATIVE_FUNCTIONS.read_text(encoding="utf-8"), Loader=fastest)
    return {entry["func"].split("(")[0]: entry for entry in entries}


@functools.cache
def kernels(kind: str) -> set[str]:
    """Names of the operators that a kind of device has."""
    found = set()
    for name, entry in _table().items():
        keys = _keys(entry)
        if "structured_delegate" in entry:  # the functional and the in-place form share the kernel of the out form
            keys |= _keys(_table()[entry["structured_delegate"]])
        if keys & {kind.upper(), *_FOR_ALL}:
            found.add(name)
            # Forms that are made of this one for all devices, by a copy.
            found.update(form.strip() for form in str(entry.get("autogen", "")).split(",") if form.strip())
    return found


@functools.cache
def waiting() -> set[str]:
    """Names of the operators for which the host waits; indexing waits for masks alone."""
    tags = {name: str(entry.get("tags", "")) for name, entry in _table().items()}
    return {name for name in tags if any(tag in tags[name] for tag in _WAITS)} - {"index.Tensor"} | _LOOKS


def _keys(entry: dict[str, Any]) -> set[str]:
    if "dispatch" not in entry:
        return set() if "structured_delegate" in entry else {"CompositeImplicitAutograd"}
    keys = {key.strip() for keys in entry["dispatch"] for key in keys.split(",")}
    return keys | ({"CPU", "CUDA"} if "ufunc_inner_loop" in entry else set())  # whose kernels the build writes itself


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device. Beneath Python it is one of the CPU; `held` has the values."""

    held: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: torch.Tensor, place: torch.device) -> OnDevice:
        """Put a tensor of the CPU on the device, without a copy."""
        if place.type == "mps" and held.dtype in _TYPES:
            raise TypeError(
                f"Cannot convert a MPS Tensor to {held.dtype} dtype as the MPS framework doesn't support it."
            )
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype
        )
        made.held, made.place = held, place
        if _visit is not None:
            _visit.live.hold(held)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """See Tensor."""
        return self.place

    is_cpu = False

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Files hold what a machine without the device reads, too."""
        return _noted("save", self).detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDevice:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)  # type: ignore[assignment]
        return copied

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What C++ would answer for the CPU tensor that it takes this one for."""
        kwargs, first = kwargs or {}, args[0] if args else None
        if isinstance(first, OnDevice) and func in _SPECIAL:
            return _SPECIAL[func](*args, **kwargs)
        if func is torch.Tensor.to:  # of the CPU, like one of the device
            return _to(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Operators, on whatever thread."""
        return _operate(func, args, kwargs or {})


def _noted(name: str, tensor: OnDevice) -> torch.Tensor:
    """The values, which the host waits for."""
    _refuse_in_recording()
    if _visit is not None:
        _visit.note(name)
    return tensor.held.detach()


def _brought(name: str, values: torch.Tensor, place: torch.device) -> OnDevice:
    """Values of the host, on the device."""
    _refuse_in_recording()
    if _visit is not None:
        _visit.note(name, _visit.sends)
    return OnDevice(values, place)


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: OnDevice, dtype: torch.dtype) -> torch.Tensor:
        ctx.dtype, ctx.place = tensor.dtype, tensor.place
        return _noted("copy to the host", tensor).to(dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        return _brought("move", slope.to(ctx.dtype, copy=True), ctx.place), None


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, dtype: torch.dtype, place: torch.device) -> torch.Tensor:
        ctx.dtype = tensor.dtype
        return _brought("move", tensor.to(dtype, copy=True), place)

    @staticmethod
    def backward(ctx: Any, slope: Any) -> Any:
        return _noted("copy to the host", slope).to(ctx.dtype, copy=True), None, None


def _to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`Tensor.to` in all its forms; to C++ both places are the CPU, so that it would leave a tensor where it is."""
    like = kwargs.get("other", args[0] if args and isinstance(args[0], torch.Tensor) else None)
    if like is not None:
        device, dtype, memory_format = like.device, like.dtype, None
    else:
        known = {key: value for key, value in kwargs.items() if key != "copy"}
        device, dtype, _, memory_format = torch._C._nn._parse_to(*(x for x in args if not isinstance(x, bool)), **known)
    dtype, device = dtype or tensor.dtype, device or tensor.device
    if isinstance(tensor, OnDevice) == (device.type != "cpu"):
        with torch._C.DisableTorchFunctionSubclass():
            copy = bool(kwargs.get("copy"))
            return torch.Tensor.to(tensor, dtype, copy=copy, memory_format=memory_format or torch.preserve_format)
    if isinstance(tensor, OnDevice):
        if tensor.place.type == "mps" and dtype in _TYPES and dtype != tensor.dtype:  # pytorch issue 197715
            raise TypeError(f"Cannot convert a MPS Tensor to {dtype} dtype as the MPS framework doesn't support it.")
        return _ToHost.apply(tensor, dtype)  # type: ignore[no-any-return]
    return _ToDevice.apply(tensor, dtype, device)  # type: ignore[no-any-return]


def _new_tensor(like: OnDevice, data: Any, dtype: Any = None, **_: Any) -> OnDevice:
    return _brought("new_tensor", like.held.new_tensor(data, dtype=dtype), like.place)


def _list(tensor: OnDevice) -> Any:
    return _noted("tolist", tensor).tolist()


def _array(tensor: OnDevice, *_: Any) -> Any:
    raise TypeError(f"can't convert {tensor.place} device type tensor to numpy. Use Tensor.cpu() first.")


def _pointer(tensor: OnDevice) -> int:
    raise RuntimeError("memory of the device has no address on the host")


_SPECIAL: dict[Any, Callable[..., Any]] = {
    torch.Tensor.to: _to,
    torch.Tensor.cpu: lambda tensor, *_, **__: _to(tensor, "cpu"),
    torch.Tensor.new_tensor: _new_tensor,
    torch.Tensor.tolist: _list,
    torch.Tensor.numpy: _array,
    torch.Tensor.__array__: _array,
    torch.Tensor.data_ptr: _pointer,
    torch.Tensor.__reduce_ex__: OnDevice.__reduce_ex__,
    torch.Tensor.__deepcopy__: OnDevice.__deepcopy__,
    torch.Tensor.__repr__: OnDevice.__repr__,
}


def _operate(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator of which an argument, or the answer, is on the device."""
    schema = func._schema
    name = schema.name.removeprefix("aten::") + (f".{schema.overload_name}" if schema.overload_name else "")
    bare = name.split(".")[0]
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    place = next((x.place for x in given if isinstance(x, OnDevice)), None) or torch.device(kwargs["device"])
    if not schema.name.startswith("aten::") or name not in kernels(place.type) or place.type in _PARTLY.get(bare, ()):
        raise NotImplementedError(
            f"The operator '{schema.name}' is not currently implemented for the {place.type.upper()} device."
        )
    strangers = [x for x in given if not isinstance(x, OnDevice) and x.dim()]
    there = [x for x in given if isinstance(x, OnDevice)]
    if bare in _ALL_THERE:
        strangers = [x for x in given if not isinstance(x, OnDevice)]
    if strangers and there and bare not in _MEETING:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {place} and cpu! ({name})")
    reads = name in waiting() or (bare == "index" and _has_mask(args[1]))
    copied = bare == "copy_" and not isinstance(args[0], OnDevice)
    if _visit is not None:
        _visit.operators[name] += 1
        if reads or copied:
            _visit.note(name)
        elif strangers or (bare in _BRINGS_SCALARS and _are_brought(given)):
            _visit.note(name, _visit.sends)
    options = tree_map(_inner, kwargs)
    target = options.pop("device", None)
    if target is not None:
        options["device"] = torch.device("cpu")
    if reads or copied:
        _refuse_in_recording()
    inner = tree_map(_inner, args)
    if place.type == "cuda" and name == "max_pool2d_with_indices_backward.grad_input":
        # The kernel writes through the address alone (DilatedMaxPool2d.cu), whatever strides there are.
        assert kwargs["grad_input"].is_contiguous(), "a gradient of pooling is written into a part of a tensor"
    if place.type == "cuda" and name in _OF_A_TYPE:
        func = _OF_A_TYPE[name]
    answer = func(*inner, **options) if _tape is None else _tape.operate(func, inner, options)
    if schema.is_mutable:  # in place or into `out`: the tensor that was given is the answer
        named = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        written = [named[a.name] for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        return written[0] if isinstance(answer, torch.Tensor) or len(written) == 1 else tuple(written)
    return tree_map(lambda x: OnDevice(x, place) if isinstance(x, torch.Tensor) else x, answer)


def _refuse_in_recording() -> None:
    if _tape is not None:
        raise RuntimeError("operation not permitted when stream is capturing")


def _are_brought(given: list[Any]) -> bool:
    """Whether there is a scalar of the CPU, other than a number that PyTorch would have made on the device."""
    return any(not isinstance(x, OnDevice) and not hasattr(x, "is_number") for x in given)


def _has_mask(indices: Any) -> bool:
    return any(x is not None and x.dtype in {torch.bool, torch.uint8} for x in indices)


def _inner(value: Any) -> Any:
    return value.held if isinstance(value, OnDevice) else value


class _Index(TorchFunctionMode):
    """Give the device its index: without one PyTorch would ask the library which device is current."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = [self._indexed(x) for x in args], {key: self._indexed(x) for key, x in (kwargs or {}).items()}
        if func is torch.Tensor.to:
            return _to(*args, **kwargs)
        if func in {torch.tensor, torch.as_tensor} and kwargs.get("device") == self.device:  # below a mode's reach
            return func(*args, **(kwargs | {"device": None})).to(self.device)
        return func(*args, **kwargs)

    def _indexed(self, value: Any) -> Any:
        bare = value if isinstance(value, str) else value.type if isinstance(value, torch.device) else ""
        return self.device if bare == self.device.type else value


class Visit(TorchDispatchMode):
    """What happened on the device since it was `pretended`.

    Attributes:
        device: The device.
        operators: How often each was called there.
        reads: How often the host waited, by operator and place: ``item at losses/tv.py: loss``.
        sends: How often something was brought to the device, likewise.
        live: Bytes that tensors hold there.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.operators: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.sends: Counter[str] = Counter()
        self.live = LiveBytes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Also what is made on the device from nothing, or moved there, of which no tensor is there yet."""
        kwargs = kwargs or {}
        device = kwargs.get("device")
        there = (device is not None and torch.device(device) == self.device) or tree_any(
            lambda x: isinstance(x, OnDevice), (args, kwargs)
        )
        answer = _operate(func, args, kwargs) if there else func(*args, **kwargs)
        if func is torch.ops.aten.scalar_tensor.default:
            answer.is_number = True
        return answer

    def note(self, operator: str, among: Counter[str] | None = None) -> None:
        """Note a read, or what else, with the innermost place in the package, or in Lightning, that it comes from."""
        among = self.reads if among is None else among
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            for root in _ROOTS:
                if frame.f_code.co_filename.startswith(f"{root}/"):
                    where = Path(frame.f_code.co_filename).relative_to(root if root == _ROOTS[0] else root.parent)
                    among[f"{operator} at {where}: {frame.f_code.co_name}"] += 1
                    return
            frame = frame.f_back
        among[f"{operator} at elsewhere"] += 1

    def forget(self) -> None:
        """Begin to count."""
        self.operators.clear()
        self.reads.clear()
        self.sends.clear()


_visit: Visit | None = None
_tape: Tape | None = None  # on which what the device does is noted


def _set_tape(tape: Tape | None) -> None:
    global _tape  # noqa: PLW0603 - PyTorch records one stream, too
    _tape = tape


def _no_allocator() -> None:
    """`torch.accelerator.empty_cache` on MPS before PyTorch 2.13, and where there is no accelerator."""
    raise RuntimeError("Allocator for mps is not a DeviceAllocator.")


@contextlib.contextmanager
def pretended(monkeypatch: Any, kind: str = "mps", *, has_float64: bool = True) -> Iterator[Visit]:
    """Let PyTorch and Lightning find a device of a kind, as long as the context lasts."""
    global _visit  # noqa: PLW0603 - PyTorch has one set of devices, too
    device = torch.device(kind, 0)
    accelerators = {"current_accelerator": lambda check_available=False: device, "is_available": lambda: True,
                    "device_count": lambda: 1, "empty_cache": _no_allocator, "synchronize": lambda *_: None,
                    "get_memory_info": lambda *_: (MEMORY - visit.live.now, MEMORY)}  # fmt: skip
    visit = Visit(device)
    accelerators |= dict.fromkeys(("memory_reserved", "memory_allocated"), lambda *_: visit.live.now)
    with monkeypatch.context() as patch:
        for name, answer in accelerators.items():
            patch.setattr(torch.accelerator, name, answer)
        for name, answer in _ANSWERS.items():
            patch.setattr(torch.get_device_module(device), name, answer, raising=False)
        if kind == "xpu":
            has = SimpleNamespace(has_fp64=has_float64)
            patch.setattr(torch.xpu, "get_device_properties", lambda *_: has)
        patch.setattr(torch.backends.cuda, "cublas_workspace_size", lambda *_: WORKSPACE, raising=False)
        if kind == "mps":
            patch.setattr(torch.backends.mps, "is_available", lambda: True)
            for place in (lightnings, fabrics):
                patch.setattr(place.MPSAccelerator, "is_available", staticmethod(lambda: True))
        patch.setitem(recording.RECORDERS, kind, lambda _: None)  # unless it is `recorded`
        patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
        before, _visit = _visit, visit
        _forget_answers()
        try:
            with _Index(device), _visit:
                yield _visit
        finally:
            _visit = before
            _forget_answers()


def _forget_answers() -> None:
    """What the program has found out about a device by trying."""
    for known in (
        *(accelerator.sums_halves_exactly, accelerator.multiplies_halves, accelerator.fuses_activations),
        accelerator.has_float64,
    ):
        known.cache_clear()


@contextlib.contextmanager
def recorded(monkeypatch: Any, device: torch.device) -> Iterator[None]:
    """Let a pretended device record and replay, as CUDA does, as long as the context lasts."""
    with monkeypatch.context() as patch:
        patch.setitem(recording.RECORDERS, device.type, lambda _: recorder(_set_tape))
        patch.setitem(_SPECIAL, torch.Tensor.data_ptr, lambda tensor: tensor.held.data_ptr())
        yield
