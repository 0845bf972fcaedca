"""Arrays from a pickle, of which nothing is executed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


class _Type:
    """Stands for ``numpy.dtype``: the type of numbers, and the order of their bytes."""

    def __init__(self, code: str, *_: object) -> None:
        self.numpy: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = str(state[1])
        self.numpy = self.numpy.newbyteorder("=" if order == "|" else order)  # type: ignore[arg-type]


class _Array:
    """Stands for ``numpy.ndarray``: its shape, and its bytes as numbers."""

    def __init__(self, *_: object) -> None:
        self.values: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, data = state
        if not isinstance(kind, _Type) or kind.numpy.kind != "f" or not isinstance(data, bytes):
            raise pickle.UnpicklingError("must hold arrays of floating-point numbers alone")
        self.values = np.frombuffer(data, kind.numpy).reshape(shape, order="F" if columns_first else "C")


# What a pickle of arrays names, in NumPy 1 and 2, and what is made in its place.
_STANDS_FOR: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _ArraysAlone(pickle.Unpickler):
    """Knows no class and no function but those above, so that a file can call nothing."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STANDS_FOR[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"must hold arrays alone, names {module}.{name}") from None


def read_pickled_arrays(source: Path | BinaryIO) -> dict[str, NDArray[Any]]:
    """Read the arrays of nested mappings.

    Args:
        source: A pickle, in protocol 3 or 4, of mappings of arrays of floating-point numbers.

    Returns:
        Arrays by name, read-only, with the names of all levels and dots between them.

    Raises:
        pickle.UnpicklingError: It holds something else; nothing of that has been made or called.

    Example:
        >>> import io, pickle
        >>> data = io.BytesIO(pickle.dumps({"layer": {"bias": np.zeros(3)}}, protocol=3))
        >>> read_pickled_arrays(data)
        {'layer.bias': array([0., 0., 0.])}
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_pickled_arrays(file)
    content = _ArraysAlone(source).load()
    if not isinstance(content, Mapping):
        raise pickle.UnpicklingError(f"must hold a mapping, holds {type(content).__name__}")
    return dict(_flat(content, ""))


def _flat(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, NDArray[Any]]]:
    for key, value in tree.items():
        if isinstance(value, _Array):
            yield f"{prefix}{key}", value.values
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            raise pickle.UnpicklingError(f"must hold arrays alone, '{prefix}{key}' is {type(value).__name__}")
