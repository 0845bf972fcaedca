"""Optimisation-based neural style transfer as a PyTorch Lightning program.

`stylize` makes a picture, and a `Session` many. `StyleTransfer` (the module), `StyleTransferData` (the data module) and
`Style` and `Stage` (their parts) are all that a run with a trainer needs; the subpackages hold extractors, loss terms,
optimisers and callbacks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst_lightning.data.module import StyleTransferData
    from nst_lightning.data.schedule import Stage
    from nst_lightning.data.styles import Style
    from nst_lightning.engine.module import StyleTransfer
    from nst_lightning.engine.trainer import StyleTrainer
    from nst_lightning.errors import UserError
    from nst_lightning.session.library import stylize
    from nst_lightning.session.result import Result
    from nst_lightning.session.session import Session

__version__ = "0.2.0"
__all__ = [
    "Result",
    "Session",
    "Stage",
    "Style",
    "StyleTrainer",
    "StyleTransfer",
    "StyleTransferData",
    "UserError",
    "__version__",
    "stylize",
]

_HOMES = {
    "Result": "session.result",
    "Session": "session.session",
    "Stage": "data.schedule",
    "Style": "data.styles",
    "StyleTrainer": "engine.trainer",
    "StyleTransfer": "engine.module",
    "StyleTransferData": "data.module",
    "UserError": "errors",
    "stylize": "session.library",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are asked for: torch and lightning take seconds, ``nst --help`` must not."""
    if name in _HOMES:
        import_module("nst_lightning.process.before_torch").import_torch()
        return getattr(import_module("nst_lightning.process.loading").load(f"nst_lightning.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
