"""The progress bar: a widget in a notebook that shows them, text elsewhere."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("ipywidgets") is None:  # without it, tqdm.auto warns in every notebook
    from tqdm import tqdm
else:
    from tqdm.auto import tqdm

__all__ = ["Bar", "is_widget"]

if TYPE_CHECKING:
    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm


class Bar(_Tqdm):
    """A bar without the thread that tqdm's first one starts, which stays until the program ends."""

    monitor_interval = 0  # seconds; the thread wakes bars that nobody has moved for a while, and ours are moved


def is_widget() -> bool:
    """Whether a bar is a widget."""
    return any(class_.__module__ == "tqdm.notebook" for class_ in tqdm.__mro__)
