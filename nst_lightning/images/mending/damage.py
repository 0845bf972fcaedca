"""How much damage is borne, and how it is told."""

from typing import NamedTuple

from nst_lightning.images.opening import CutError

MOST_MISSING = 0.25  # fraction of the pixels: beyond it a result shows the hole rather than the picture


class Mended(NamedTuple):
    """A file's bytes made sound, and what to say of it after the file's name."""

    data: bytes
    said: str


def told(missing: float) -> str:
    """Say that so large a fraction of the pixels is missing; a CutError if it is too large."""
    if missing > MOST_MISSING:
        raise CutError(
            f"the file is truncated: {100 * missing:.0f} % of its pixels are missing, and at most "
            f"{100 * MOST_MISSING:.0f} % may be"
        )
    if not missing:
        return "is cut short, of which no pixel is missing"
    return f"is cut short: {max(0.1, 100 * missing):.{0 if missing >= 0.0995 else 1}f} % of its pixels are missing"
