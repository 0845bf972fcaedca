"""A bar for those who call from Python: a widget in a notebook that shows them, text elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from nst_lightning.callbacks import Update
from nst_lightning.console.bar import Bar

Progress = Callable[[Update], "bool | None"]


@contextlib.contextmanager
def progress_shown(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """What is to be called with each update: the function given, or a bar if one is asked for.

    Args:
        progress: A function, True for a bar, False for nothing, None for a bar in notebooks.
    """
    if callable(progress):
        yield progress
    elif progress or (progress is None and in_notebook()):
        bar: Bar = Bar(unit="eval", dynamic_ncols=True)
        try:
            yield lambda update: _move(bar, update)
        finally:
            bar.close()
    else:
        yield None


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    return "ipykernel" in sys.modules


def _move(bar: Bar, update: Update) -> None:
    bar.total = update.total
    bar.set_postfix_str(f"loss {update.loss:.4g}", refresh=False)
    bar.update(update.evaluation - bar.n)
