"""How much the server takes from outside."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nst_lightning.errors import UserError

_OPTIONS = {
    "megabytes": "max_megabytes",
    "megapixels": "max_megapixels",
    "keep_hours": "keep_hours",
    "checkpoint_seconds": "checkpoint_seconds",
}


@dataclass(frozen=True)
class Limits:
    """Bounds that keep memory and disk of the machine the owner's.

    Args:
        megabytes: Of one uploaded file.
        megapixels: Of one picture, uploaded or made.
        keep_hours: How long an upload is kept that no picture uses.
        checkpoint_seconds: Seconds between two checkpoints of a run: what a kill or a power failure costs.
        queued: Pictures that may wait.
        uploads: Uploads that are kept.
        json_bytes: Of a request's body that is no upload.

    Raises:
        UserError: A number makes no sense.
    """

    megabytes: float = 50.0
    megapixels: float = 64.0
    keep_hours: float = 24.0
    checkpoint_seconds: float = 10.0
    queued: int = 50
    uploads: int = 1000
    json_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name, option in _OPTIONS.items():
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"--{option}: must be above 0, got {value:g}; the default is a good start")

    @property
    def file_bytes(self) -> int:
        """Of one uploaded file."""
        return int(self.megabytes * 1e6)

    @property
    def max_size(self) -> int:
        """Long side in pixels of a picture that is made: that of a square of so many pixels."""
        return int(math.sqrt(self.megapixels * 1e6))
