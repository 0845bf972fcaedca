"""How much the server takes from outside."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nst_lightning.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds that keep memory and disk of the machine the owner's.

    Args:
        megabytes: Of one uploaded file.
        megapixels: Of one picture, uploaded or made.
        keep_hours: How long an upload is kept that no picture uses.
        queued: Pictures that may wait.
        uploads: Uploads that are kept.
        json_bytes: Of a request's body that is no upload.

    Raises:
        UserError: A number makes no sense.
    """

    megabytes: float = 50.0
    megapixels: float = 64.0
    keep_hours: float = 24.0
    queued: int = 50
    uploads: int = 1000
    json_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name in ("megabytes", "megapixels", "keep_hours"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UserError(f"--max_{name}: must be above 0, got {value:g}; the default is a good start".replace(
                    "--max_keep", "--keep"))  # fmt: skip

    @property
    def file_bytes(self) -> int:
        """Of one uploaded file."""
        return int(self.megabytes * 1e6)

    @property
    def max_size(self) -> int:
        """Long side in pixels of a picture that is made: that of a square of so many pixels."""
        return int(math.sqrt(self.megapixels * 1e6))
