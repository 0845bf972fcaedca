"""The progress bar: a widget in a notebook that shows them, text elsewhere."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("ipywidgets") is None:  # without it, tqdm.auto warns in every notebook
    from tqdm import tqdm
else:
    from tqdm.auto import tqdm

__all__ = ["is_widget", "tqdm"]


def is_widget() -> bool:
    """Whether a bar is a widget."""
    return any(class_.__module__ == "tqdm.notebook" for class_ in tqdm.__mro__)
