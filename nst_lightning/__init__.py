"""Optimisation-based neural style transfer as a PyTorch Lightning program.

`StyleTransfer` (the module), `StyleTransferData` (the data module) and `Style` and `Stage` (their parts) are all that a
run from Python needs; the subpackages hold extractors, loss terms, optimisers and callbacks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst_lightning.data.module import StyleTransferData
    from nst_lightning.data.schedule import Stage
    from nst_lightning.data.styles import Style
    from nst_lightning.engine.module import StyleTransfer
    from nst_lightning.engine.trainer import StyleTrainer

__version__ = "0.2.0"
__all__ = ["Stage", "StyleTrainer", "Style", "StyleTransfer", "StyleTransferData", "__version__"]  # noqa: RUF022

_HOMES = {
    "Stage": "data.schedule",
    "Style": "data.styles",
    "StyleTrainer": "engine.trainer",
    "StyleTransfer": "engine.module",
    "StyleTransferData": "data.module",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are asked for: torch and lightning take seconds, ``nst --help`` must not."""
    if name in _HOMES:
        return getattr(import_module(f"nst_lightning.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
