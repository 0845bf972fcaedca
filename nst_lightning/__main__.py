"""``python -m nst_lightning`` is the command ``nst``."""

from nst_lightning.cli import entry_point

entry_point()
